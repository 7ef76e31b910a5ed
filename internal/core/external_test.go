package core

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/mls/wire"
)

func leafOf(account string) *wire.LeafNode {
	return &wire.LeafNode{Credential: wire.Credential{Type: wire.BasicCredential, Identity: []byte(account)}, Source: wire.CommitLeaf}
}

// treeInfo is a GroupInfo of an epoch with a tree of these leaves, "" for a blank one.
func treeInfo(group string, epoch uint64, accounts ...string) []byte {
	var tree wire.RatchetTree
	for i, account := range accounts {
		if i > 0 {
			tree = append(tree, nil)
		}
		if account == "" {
			tree = append(tree, nil)
			continue
		}
		tree = append(tree, &wire.Node{Leaf: leafOf(account)})
	}
	return wire.Marshal(&wire.Message{WireFormat: wire.GroupInfoFormat, GroupInfo: &wire.GroupInfo{
		Context:    wire.GroupContext{Version: wire.MLS10, CipherSuite: 1, GroupID: []byte(group), Epoch: epoch},
		Extensions: []wire.Extension{{Type: wire.RatchetTreeExtension, Data: wire.Marshal(&tree)}}}})
}

// externalMessage is a commit by which account enters a group and removes leaves.
func externalMessage(group string, epoch uint64, account string, removes ...uint32) []byte {
	commit := &wire.Commit{Path: &wire.UpdatePath{Leaf: *leafOf(account)},
		Proposals: []wire.ProposalOrRef{{Proposal: &wire.Proposal{Type: wire.ExternalInitProposal, ExternalInit: []byte("kem")}}}}
	for _, leaf := range removes {
		commit.Proposals = append(commit.Proposals, wire.ProposalOrRef{Proposal: &wire.Proposal{Type: wire.RemoveProposal, Remove: leaf}})
	}
	return wire.Marshal(&wire.Message{WireFormat: wire.PublicMessageFormat, Public: &wire.PublicMessage{
		Content: wire.FramedContent{GroupID: []byte(group), Epoch: epoch, Sender: wire.Sender{Type: wire.NewMemberCommitSender},
			ContentType: wire.CommitContent, Commit: commit}}})
}

// TestExternalCommit: a member enters the group by itself in its own name, removes
// nobody but itself, and only where a device of its account is in the group.
func TestExternalCommit(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		w.room("c1", "ann", "bob", "cid")
		if _, err := w.bundle("ann", Bundle{ConversationID: "c1", ID: "early", Commit: externalMessage("g", 0, "ann")}); ds.CodeOf(err) != ds.NotFound {
			t.Errorf("before there is a group: %v", err)
		}
		if _, err := w.bundle("ann", Bundle{ConversationID: "c1", ID: "k1", Commit: commit("g", 0), GroupInfo: treeInfo("g", 1, "ann", "", "bob")}); err != nil {
			t.Fatal(err)
		}
		rows := []struct {
			name, who string
			commit    []byte
			bundle    Bundle
			want      ds.Code
		}{
			{name: "in another's name", who: "bob", commit: externalMessage("g", 1, "ann"), want: ds.Forbidden},
			{name: "removes another", who: "bob", commit: externalMessage("g", 1, "bob", 0), want: ds.Forbidden},
			{name: "removes a blank leaf", who: "bob", commit: externalMessage("g", 1, "bob", 1), want: ds.Forbidden},
			{name: "removes beyond the tree", who: "bob", commit: externalMessage("g", 1, "bob", 7), want: ds.Forbidden},
			{name: "not in the group", who: "cid", commit: externalMessage("g", 1, "cid"), want: ds.Forbidden},
			{name: "stranger", who: "sue", commit: externalMessage("g", 1, "sue"), want: ds.Forbidden},
			{name: "another epoch", who: "bob", commit: externalMessage("g", 2, "bob"), want: ds.EpochConflict},
			{name: "another group", who: "bob", commit: externalMessage("h", 1, "bob"), want: ds.InvalidRequest},
			{name: "changes members", who: "ann", commit: externalMessage("g", 1, "ann"), bundle: Bundle{Add: []ds.AccountID{"dee"}}, want: ds.InvalidRequest},
			{name: "good", who: "bob", commit: externalMessage("g", 1, "bob", 2), bundle: Bundle{GroupInfo: treeInfo("g", 2, "ann", "", "bob")}},
			{name: "good, again", who: "bob", commit: externalMessage("g", 1, "bob", 2), bundle: Bundle{ID: "good"}},
			{name: "a second device", who: "bob", commit: externalMessage("g", 2, "bob")},
			{name: "without a group_info of the epoch", who: "bob", commit: externalMessage("g", 3, "bob"), want: ds.InvalidRequest},
		}
		for _, row := range rows {
			b := row.bundle
			if b.ID == "" {
				b.ID = ds.MessageID(row.name)
			}
			b.ConversationID, b.Commit = "c1", row.commit
			if _, err := w.bundle(row.who, b); ds.CodeOf(err) != row.want {
				t.Errorf("%s: got %v, want %q", row.name, err, row.want)
			}
		}
		if _, err := w.sendMLS("bob", "c1", "by send", externalMessage("g", 3, "bob")); ds.CodeOf(err) != ds.InvalidRequest {
			t.Errorf("by conv.send: %v", err)
		}
		if _, _, err := w.service.GroupInfo(context.Background(), who("sue"), "c1"); ds.CodeOf(err) != ds.Forbidden {
			t.Errorf("a stranger reads the group_info: %v", err)
		}
		info, head, err := w.service.GroupInfo(context.Background(), who("cid"), "c1")
		if err != nil || head.Epoch != 3 || !bytes.Equal(info, treeInfo("g", 2, "ann", "", "bob")) {
			t.Errorf("got %x at %d, %v", info, head.Epoch, err)
		}
	})
}

// TestGroupInfoNamesNobody: who hands in a GroupInfo is mostly who made the commit before
// it, and of that the log does not tell (I12).
func TestGroupInfoNamesNobody(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir())
	w.room("c1", "ann", "bob")
	if _, err := w.bundle("ann", Bundle{ConversationID: "c1", ID: "k1", Commit: commit("g", 0)}); err != nil {
		t.Fatal(err)
	}
	if stored, err := w.service.Apply(t.Context(), who("ann"), GroupInfoUpdate{ConversationID: "c1", GroupInfo: treeInfo("g", 1, "ann", "bob")}); err != nil || !stored.IsNew {
		t.Fatal(stored, err)
	}
	list, _ := w.read("bob", "c1", 1)
	last := list[len(list)-1]
	if last.Kind != ds.SettingsEvent || strings.Contains(string(last.Body), "ann") || !strings.Contains(string(last.Body), "groupInfo") {
		t.Errorf("%s %s", last.Kind, last.Body)
	}
}

// TestReturnToAnEmptyConversation: it does not fall to whichever former member comes back
// first. Its last owner, who left it when nobody else was there, is its owner again.
func TestReturnToAnEmptyConversation(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		ctx := context.Background()
		rows := []struct {
			name  string
			leave func(w *world) error // ann, the owner, and bob
			back  []string
			want  string
		}{
			{"a plain member", func(w *world) error {
				return errors.Join(w.apply(who("bob"), Leave{ConversationID: "c1"}), w.apply(who("ann"), Leave{ConversationID: "c1"}))
			}, []string{"bob"}, "[{bob member}]"},
			{"a plain member, before the owner", func(w *world) error {
				return errors.Join(w.apply(who("bob"), Leave{ConversationID: "c1"}), w.apply(who("ann"), Leave{ConversationID: "c1"}))
			}, []string{"bob", "ann"}, "[{ann member} {bob member}]"},
			{"the owner", func(w *world) error {
				return errors.Join(w.apply(who("bob"), Leave{ConversationID: "c1"}), w.apply(who("ann"), Leave{ConversationID: "c1"}))
			}, []string{"ann", "bob"}, "[{ann owner} {bob member}]"},
			{"the owner, whom nobody may ask for a group info", func(w *world) error {
				err := errors.Join(w.apply(who("bob"), Leave{ConversationID: "c1"}), w.apply(who("ann"), Leave{ConversationID: "c1"}))
				_, asked := w.service.Apply(ctx, who("bob"), GroupInfoRequest{ConversationID: "c1"})
				return errors.Join(err, asked)
			}, []string{"ann"}, "[{ann owner}]"},
			{"an owner who had named another", func(w *world) error {
				return errors.Join(w.apply(who("ann"), Leave{ConversationID: "c1", NewOwner: "bob"}), w.apply(who("bob"), Leave{ConversationID: "c1"}))
			}, []string{"ann", "bob"}, "[{ann member} {bob member}]"},
			{"the other door", func(w *world) error {
				_, first := w.service.Apply(ctx, who("ann"), Leave{ConversationID: "c1", PassOn: true})
				_, last := w.service.Apply(ctx, who("bob"), Leave{ConversationID: "c1", PassOn: true}) // the owner by then
				return errors.Join(first, last)
			}, []string{"bob", "ann"}, "[{bob owner} {ann member}]"},
		}
		for _, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				if strings.HasPrefix(url, "sqlite:") {
					url = "sqlite:" + t.TempDir()
				} else {
					url = pgtest.URL(t)
				}
				w := newWorld(t, url)
				w.room("c1", "ann", "bob")
				if _, err := w.bundle("ann", Bundle{ConversationID: "c1", ID: "k1", Commit: commit("g", 0), GroupInfo: treeInfo("g", 1, "ann", "", "bob")}); err != nil {
					t.Fatal(err)
				}
				if err := row.leave(w); err != nil {
					t.Fatal(err)
				}
				for i, account := range row.back {
					_, err := w.service.Apply(ctx, who(account), Bundle{ConversationID: "c1", ID: ds.MessageID(fmt.Sprint("k", i, account)), Commit: externalMessage("g", uint64(i+1), account), Encoding: ds.Binary, ByAccount: true, Enters: true})
					if err != nil {
						t.Fatal(err)
					}
				}
				if list, err := w.service.Members(ctx, who(row.back[0]), "c1"); fmt.Sprint(list) != row.want {
					t.Errorf("members %v, %v, want %s", list, err, row.want)
				}
			})
		}
	})
}
