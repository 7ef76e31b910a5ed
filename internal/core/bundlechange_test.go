package core

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/mls/wire"
)

// TestRecipientsOf: a Welcome is for whom its key packages say, the directory first.
func TestRecipientsOf(t *testing.T) {
	known := knownPackages{owners: map[string]ds.Device{"aa": {Account: "ann", ID: "phone"}, "bb": {Account: "bob", ID: "tablet"}},
		publishers: map[ds.AccountID]bool{"ann": true, "bob": true}}
	rows := []struct {
		name     string
		refs     []string
		add      []ds.AccountID
		packages []UsedPackage
		want     string
		reason   ds.Reason
	}{
		{name: "known packages", refs: []string{"aa", "bb"}, add: []ds.AccountID{"ann", "bob"}, want: "ann/phone/aa bob/tablet/bb"},
		{name: "said and known", refs: []string{"aa"}, add: []ds.AccountID{"ann"}, packages: []UsedPackage{{"ann", "AA"}}, want: "ann/phone/aa"},
		{name: "said and known otherwise", refs: []string{"aa"}, add: []ds.AccountID{"bob"}, packages: []UsedPackage{{"bob", "aa"}}, reason: ds.NoKeyPackage},
		{name: "not of a publisher", refs: []string{"cc"}, add: []ds.AccountID{"ann"}, packages: []UsedPackage{{"ann", "cc"}}, reason: ds.NoKeyPackage},
		{name: "of one who has published nothing here", refs: []string{"cc"}, add: []ds.AccountID{"cid"}, packages: []UsedPackage{{"cid", "cc"}}, want: "cid//cc"},
		{name: "not in the welcome", refs: []string{"bb"}, add: []ds.AccountID{"ann"}, packages: []UsedPackage{{"ann", "aa"}}, reason: ds.BadCommit},
		{name: "nobody says whose", refs: []string{"aa", "cc"}, add: []ds.AccountID{"ann", "cid", "cid"}, want: "ann/phone/aa cid//"},
		{name: "nobody could be meant", refs: []string{"aa", "cc"}, add: []ds.AccountID{"ann"}, reason: ds.NoKeyPackage},
		{name: "an account without a package", refs: []string{"aa"}, add: []ds.AccountID{"ann", "cid"}, want: "ann/phone/aa"}, // refused where membership is known
		{name: "no welcome", add: []ds.AccountID{"ann"}, want: ""},
	}
	for _, row := range rows {
		list, err := recipientsOf(Bundle{Add: row.add, Packages: row.packages}, row.refs, known)
		var got []string
		for _, r := range list {
			got = append(got, fmt.Sprintf("%s/%s/%s", r.Device.Account, r.Device.ID, r.KeyPackageRef))
		}
		var refusal *ds.Refusal
		errors.As(err, &refusal)
		if row.reason == "" && (err != nil || strings.Join(got, " ") != row.want) || row.reason != "" && (refusal == nil || refusal.Reason != row.reason) {
			t.Errorf("%s: got %q, %v, want %q %q", row.name, got, err, row.want, row.reason)
		}
	}
}

// TestChoose: which of the Welcomes that wait is meant.
func TestChoose(t *testing.T) {
	list := []store.WelcomeRecipient{{WelcomeID: "4"}, {WelcomeID: "3", Device: "phone", KeyPackageRef: "aa"}, {WelcomeID: "2", Device: "tablet", KeyPackageRef: "bb"},
		{WelcomeID: "1", Device: "phone", KeyPackageRef: "cc"}}
	rows := []struct {
		choice WelcomeChoice
		from   int
		want   string
	}{
		{WelcomeChoice{}, 0, "4"},
		{WelcomeChoice{}, 1, "3"},
		{WelcomeChoice{Refs: []string{"CC", "bb"}}, 0, "21"},
		{WelcomeChoice{Refs: []string{"dd"}}, 0, "4"},
		{WelcomeChoice{Refs: []string{"dd"}}, 1, ""},
		{WelcomeChoice{Refs: []string{"bb"}, Device: "phone"}, 0, "2"},
		{WelcomeChoice{Device: "phone"}, 0, "31"},
		{WelcomeChoice{Device: "laptop"}, 0, "4"},
		{WelcomeChoice{Device: "laptop"}, 1, ""},
	}
	for _, row := range rows {
		got := ""
		for _, r := range choose(list[row.from:], row.choice) {
			got += r.WelcomeID
		}
		if got != row.want {
			t.Errorf("%+v of %d: got %q, want %q", row.choice, row.from, got, row.want)
		}
	}
}

// TestLongCommitAgain: a commit is answered in full when it comes again, however long it is.
func TestLongCommitAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		w.room("c1", "ann")
		long := wire.Marshal(&wire.Message{WireFormat: wire.PrivateMessageFormat, Private: &wire.PrivateMessage{GroupID: []byte("g"),
			ContentType: wire.CommitContent, EncryptedSenderData: []byte("s"), Ciphertext: make([]byte, 1<<20)}})
		for range 2 {
			r, err := w.record(ds.Caller{Account: "ann"}, Bundle{ConversationID: "c1", ID: "k1", Commit: long, Encoding: ds.Binary, ByAccount: true})
			if err == nil && r.Body == nil {
				r, err = w.service.Stored(context.Background(), r)
			}
			if err != nil || r.Epoch != 1 || len(r.Body) != len(long) {
				t.Errorf("epoch %d, %d bytes, %v", r.Epoch, len(r.Body), err)
			}
		}
	})
}

// TestEnteringAnyGroup: nothing of a suite that this service cannot compute with stands
// in the way of entering its group, and an external commit holds nothing that is not its.
func TestEnteringAnyGroup(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		const xWing = 0x004d
		w := newWorld(t, url)
		info := func(epoch uint64, accounts ...string) []byte {
			var m wire.Message
			if err := wire.Unmarshal(treeInfo("g", epoch, accounts...), &m); err != nil {
				t.Fatal(err)
			}
			m.GroupInfo.Context.CipherSuite = xWing
			return wire.Marshal(&m)
		}
		// with is an external commit of bob's that holds one proposal more.
		with := func(p wire.ProposalOrRef) []byte {
			var m wire.Message
			if err := wire.Unmarshal(externalMessage("g", 1, "bob"), &m); err != nil {
				t.Fatal(err)
			}
			m.Public.Content.Commit.Path.Leaf.EncryptionKey = make([]byte, 1216)
			m.Public.Content.Commit.Proposals = append(m.Public.Content.Commit.Proposals, p)
			return wire.Marshal(&m)
		}
		proposal := func(p wire.Proposal) wire.ProposalOrRef { return wire.ProposalOrRef{Proposal: &p} }
		w.room("c1", "ann", "bob", "cid")
		enter := func(body, info []byte) error {
			_, err := w.service.Apply(context.Background(), ds.Caller{Account: "bob"}, Bundle{ConversationID: "c1", ID: ds.MessageID(fmt.Sprintf("k%.40x", sha256.Sum256(body))), Commit: body, GroupInfo: info, Encoding: ds.Binary, ByAccount: true, Enters: true})
			return err
		}
		if err := enter(externalMessage("g", 0, "bob"), nil); ds.CodeOf(err) != ds.InvalidRequest {
			t.Errorf("before there is a group: %v", err)
		}
		if _, err := w.bundle("ann", Bundle{ConversationID: "c1", ID: "k1", Commit: commit("g", 0), GroupInfo: info(1, "ann", "bob", "cid")}); err != nil {
			t.Fatal(err)
		}
		rows := []struct {
			name string
			body []byte
			want ds.Code
		}{
			{"removes another", with(proposal(wire.Proposal{Type: wire.RemoveProposal, Remove: 2})), ds.Forbidden},
			{"removes a leaf beyond the tree", with(proposal(wire.Proposal{Type: wire.RemoveProposal, Remove: 9})), ds.Forbidden},
			{"changes the group", with(proposal(wire.Proposal{Type: wire.GroupContextExtensionsProposal})), ds.InvalidRequest},
			{"refers to a proposal", with(wire.ProposalOrRef{Reference: []byte("ref")}), ds.InvalidRequest},
			{"begins twice", with(proposal(wire.Proposal{Type: wire.ExternalInitProposal, ExternalInit: []byte("kem")})), ds.InvalidRequest},
			{"another group", externalMessage("h", 1, "bob"), ds.InvalidRequest},
			{"a later epoch", externalMessage("g", 2, "bob", 1), ds.EpochConflict},
		}
		for _, row := range rows {
			if err := enter(row.body, nil); ds.CodeOf(err) != row.want {
				t.Errorf("%s: got %v, want %q", row.name, err, row.want)
			}
		}
		good := with(proposal(wire.Proposal{Type: wire.RemoveProposal, Remove: 1}))
		for range 2 { // the second is a repeat
			if err := enter(good, info(2, "ann", "bob", "cid")); err != nil {
				t.Error(err)
			}
		}
		// Without a GroupInfo of the epoch nobody knows whose leaves are removed.
		if err := enter(externalMessage("g", 2, "bob"), nil); err != nil {
			t.Error(err)
		}
		if err := enter(externalMessage("g", 3, "bob", 1), nil); ds.CodeOf(err) != ds.InvalidRequest {
			t.Errorf("removes what nobody knows: %v", err)
		}
	})
}
