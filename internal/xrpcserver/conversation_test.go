package xrpcserver

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/lexicons"
	"waxwing.im/waxwing/mls"
	"waxwing.im/waxwing/mls/wire"
)

// group is the hex of a group id.
func group(name string) string { return hex.EncodeToString([]byte(name)) }

// creation is the body that creates a conversation of people.
func (w *world) creation(id string, members ...string) object {
	dids := []string{}
	for _, name := range members {
		dids = append(dids, w.did(name))
	}
	return object{"groupId": id, "cipherSuite": suiteName, "initialMembers": dids}
}

// create creates a conversation of people, the first its creator.
func (w *world) create(id string, names ...string) xrpc.CreateConvoOutput {
	w.t.Helper()
	var out xrpc.CreateConvoOutput
	w.call(names[0], xrpc.CreateConvo, w.creation(id, names[1:]...)).into(&out)
	return out
}

// convos asks for conversations.
func (w *world) convos(name string, pairs ...string) xrpc.GetConvosOutput {
	w.t.Helper()
	var out xrpc.GetConvosOutput
	w.call(name, xrpc.GetConvos, params(pairs...)).into(&out)
	return out
}

// convo returns a person's view of a conversation, or nil.
func (w *world) convo(name, id string) *xrpc.ConvoView {
	w.t.Helper()
	list := w.convos(name).Conversations
	if i := slices.IndexFunc(list, func(v xrpc.ConvoView) bool { return v.ConversationID == id }); i >= 0 {
		return &list[i]
	}
	return nil
}

// roles returns the roles of people in a conversation, in the view of name: o for the owner and
// admins, m for moderators and p for all others.
func (w *world) roles(name, id string, people ...string) string {
	w.t.Helper()
	view := w.convo(name, id)
	if view == nil {
		return "none"
	}
	var list []string
	for _, m := range view.Members {
		who := "?"
		for _, p := range people {
			if w.did(p) == m.DID {
				who = p
			}
		}
		switch {
		case m.IsAdmin:
			who += ":a"
		case m.IsModerator != nil && *m.IsModerator:
			who += ":m"
		}
		list = append(list, who)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// info is a GroupInfo as an MLSMessage.
func info(group string, epoch uint64) []byte {
	return wire.Marshal(&wire.Message{WireFormat: wire.GroupInfoFormat, GroupInfo: infoOf(group, epoch)})
}

func infoOf(group string, epoch uint64) *wire.GroupInfo {
	return &wire.GroupInfo{Context: wire.GroupContext{Version: wire.MLS10, CipherSuite: 1, GroupID: []byte(group), Epoch: epoch},
		ConfirmationTag: make([]byte, 32), Signature: make([]byte, 64)}
}

// welcomeFor is a Welcome for key packages.
func welcomeFor(packages ...*mls.KeyPackage) []byte {
	m := &wire.Welcome{CipherSuite: 1, EncryptedGroupInfo: []byte("x")}
	for _, p := range packages {
		m.Secrets = append(m.Secrets, wire.EncryptedGroupSecrets{NewMember: p.Ref(), Secrets: wire.HPKECiphertext{KEMOutput: []byte("k"), Ciphertext: []byte("c")}})
	}
	return wire.Marshal(&wire.Message{WireFormat: wire.WelcomeFormat, Welcome: m})
}

// waitingFor lists the recipients that the Welcomes of a conversation wait for: "device ref", or "any"
// for a device or ref that is not known.
func (w *world) waitingFor(name, id string) []string {
	w.t.Helper()
	var out []string
	must(w.t, w.store.View(context.Background(), func(tx *store.Tx) error {
		list, err := tx.Welcomes.Waiting(ds.AccountID(w.did(name)), ds.ConversationID(id), 100)
		for _, r := range list {
			device, ref := string(r.Device), r.KeyPackageRef
			if device == "" {
				device = "any"
			}
			if ref == "" {
				ref = "any"
			}
			out = append(out, device+" "+ref)
		}
		return err
	}))
	slices.Sort(out)
	return out
}

func TestCreateConvoRefusals(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		id := group("g1")
		bob := w.phone("bob")
		bobs := bob.pack()
		bob.register(1, object{})
		w.publish("bob", object{}, bobs)
		ref := hex.EncodeToString(bobs.Ref())
		many := make([]string, 1000)
		for i := range many {
			many[i] = fmt.Sprintf("did:plc:%024d", i)
		}
		w.talk("room", "eve")
		must(t, w.bindTo("room", "eve", "taken", 0))
		w.create(group("g2"), "eve")
		tests := []struct {
			name string
			set  object
			want string
		}{
			{"no group", object{"groupId": ""}, "400 InvalidRequest"},
			{"a group that is no hex", object{"groupId": "xyz0"}, "400 InvalidRequest"},
			{"half a byte", object{"groupId": "abc"}, "400 InvalidRequest"},
			{"too long a group", object{"groupId": strings.Repeat("ab", 65)}, "400 InvalidRequest"},
			{"an unknown suite", object{"cipherSuite": "MLS_ROT13"}, "400 InvalidCipherSuite"},
			{"too many members", object{"initialMembers": many}, "400 TooManyMembers"},
			{"a member that is no DID", object{"initialMembers": []string{"bob"}}, "400 InvalidRequest"},
			{"a key package of nobody", object{"keyPackageHashes": []object{{"did": w.did("bob"), "hash": strings.Repeat("ab", 32)}}}, "400 KeyPackageNotFound"},
			{"a key package of somebody else", object{"keyPackageHashes": []object{{"did": w.did("ann"), "hash": ref}}}, "400 KeyPackageNotFound"},
			{"a key package of no member", object{"initialMembers": []string{}, "keyPackageHashes": []object{{"did": w.did("bob"), "hash": ref}}}, "400 InvalidRequest"},
			{"a groupInfo that is none", object{"groupInfo": blob([]byte("hello"))}, "400 InvalidRequest"},
			{"a groupInfo of another group", object{"groupInfo": blob(info("g9", 1))}, "400 InvalidRequest"},
			{"a groupInfo of another epoch", object{"groupInfo": blob(info("g1", 1)), "currentEpoch": 2}, "400 InvalidRequest"},
			{"too long a name", object{"metadata": object{"name": strings.Repeat("a", 129)}}, "400 InvalidRequest"},
			{"too long a description", object{"metadata": object{"description": strings.Repeat("a", 513)}}, "400 InvalidRequest"},
			{"somebody else's conversation", object{"groupId": group("g2")}, "409 ConvoAlreadyExists"},
			{"somebody else's, spelled otherwise", object{"groupId": strings.ToUpper(group("zz"))}, "409 ConvoAlreadyExists"},
			{"the group of a room", object{"groupId": group("taken")}, "409 ConvoAlreadyExists"},
		}
		w.create(group("zz"), "eve")
		for _, test := range tests {
			in := w.creation(id, "bob")
			for k, v := range test.set {
				in[k] = v
			}
			a := w.call("ann", xrpc.CreateConvo, in)
			if a.refused(test.want); t.Failed() {
				t.Fatal(test.name)
			}
			if strings.Contains(string(a.body), w.did("eve")) {
				t.Errorf("%s: the refusal names somebody: %s", test.name, a.body)
			}
		}
		w.call("", xrpc.CreateConvo, w.creation(id)).refused("401 AuthenticationRequired")
		if n := len(w.convos("ann").Conversations) + len(w.convos("bob").Conversations); n > 0 {
			t.Errorf("refusals left %d conversations", n)
		}
	})
}

func TestCreateConvo(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		id := group("g1")
		in := w.creation(id, "bob", "ann", "bob")
		in["metadata"] = object{"name": "Tea", "description": "at five"}
		a := w.call("ann", xrpc.CreateConvo, in)
		top := a.fields()
		var out xrpc.CreateConvoOutput
		a.into(&out)
		if top["groupId"] != id || out.Convo.GroupID != id || out.Convo.ConversationID != id || out.Creator != w.did("ann") || out.Epoch != 0 ||
			out.CipherSuite != suiteName || len(out.Members) != 2 || out.Convo.SequencerDID != testDID || out.SequencerDS != testDID || out.InviteCode != "" {
			t.Errorf("got %s", a.body)
		}
		m := out.Convo.Members
		if m[0].DID != w.did("ann") || !m[0].IsAdmin || m[1].IsAdmin || m[0].JoinedAt.UnixMilli() != testTime.UnixMilli() || m[1].UserDID != w.did("bob") || !m[0].PromotedAt.IsZero() {
			t.Errorf("members %+v", m)
		}
		if out.Convo.CreatedAt.UnixMilli() != testTime.UnixMilli() || !out.Convo.LastMessageAt.IsZero() {
			t.Errorf("times %+v", out.Convo)
		}
		seen := w.convo("bob", id)
		if seen == nil || seen.Metadata == nil || *seen.Metadata != (xrpc.Metadata{Name: "Tea", Description: "at five"}) || seen.Creator != w.did("ann") {
			t.Fatalf("bob sees %+v", seen)
		}
		// Black-box check 14, and no device is recorded with a message.
		alone := group("alone")
		w.create(alone, "ann")
		if got := w.messages("ann", alone).Messages; len(got) != 0 {
			t.Errorf("messages %v", got)
		}
		w.later.Store(3000)
		w.send("ann", message(id, uuid(1), 0, 512))
		if seen = w.convo("bob", id); seen.LastMessageAt.UnixMilli() != (testTime.UnixMilli()+3000)/2000*2000 {
			t.Errorf("the last message was at %v", seen.LastMessageAt)
		}
		for _, r := range w.records(ds.ConversationLog(ds.ConversationID(id))) {
			if r.Sender != (ds.Device{}) {
				t.Errorf("a sender is stored: %+v", r.Sender)
			}
		}
		// Again: the current state, for members only.
		in["initialMembers"], in["metadata"] = []string{w.did("eve")}, nil
		w.call("ann", xrpc.CreateConvo, in).into(&out)
		if len(out.Members) != 2 || out.Creator != w.did("ann") || out.Convo.Metadata == nil {
			t.Errorf("a repeat changed something: %+v", out.Convo)
		}
		w.call("bob", xrpc.CreateConvo, in).into(&out)
		if out.Creator != w.did("ann") || out.Members[0].DID != w.did("ann") {
			t.Errorf("a repeat of bob's: %+v", out.Convo)
		}
		w.call("eve", xrpc.CreateConvo, in).refused("409 ConvoAlreadyExists")
		if n := len(w.records(ds.ConversationLog(ds.ConversationID(id)))); n != 2 {
			t.Errorf("%d records", n)
		}
	})
}

func TestCreateConvoEpochs(t *testing.T) {
	w := newWorld(t)
	for i, test := range []struct {
		set  object
		want int64
	}{
		{object{}, 0},
		{object{"currentEpoch": 1}, 1},
		{object{"groupInfo": blob(info("e2", 4))}, 4},
		{object{"groupInfo": text(wire.Marshal(infoOf("e3", 5)))}, 5}, // without a message around it
		{object{"groupInfo": blob(info("e4", 0)), "currentEpoch": 0}, 0},
		{object{"currentEpoch": int64(1) << 40}, 1 << 40},
	} {
		in := w.creation(group(fmt.Sprint("e", i)))
		for k, v := range test.set {
			in[k] = v
		}
		var out xrpc.CreateConvoOutput
		w.call("ann", xrpc.CreateConvo, in).into(&out)
		w.call("ann", xrpc.CreateConvo, in).into(&out)
		same(t, fmt.Sprint("epoch of ", i), out.Epoch, test.want)
		w.send("ann", message(out.GroupID, uuid(1), int(test.want), 512))
		w.call("ann", xrpc.SendMessage, message(out.GroupID, uuid(2), int(test.want)+1, 512)).refused("409 EpochMismatch")
	}
}

// TestCreateConvoWelcome has a row for each way to know the recipients of a Welcome.
func TestCreateConvoWelcome(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		packs := map[string]*mls.KeyPackage{}
		devices := map[string]string{}
		for _, name := range []string{"bob", "cid"} {
			p := w.phone(name)
			devices[name] = p.register(1, object{})
			for _, n := range []string{"1", "2"} {
				packs[name+n] = p.pack()
				w.publish(name, object{"deviceId": devices[name]}, packs[name+n])
			}
		}
		w.fetch("eve", "bob", "cid") // what they were registered with
		unknown := w.phone("dan").pack()
		line := func(name, pack string) string { return devices[name] + " " + hex.EncodeToString(packs[pack].Ref()) }
		hash := func(name, pack string) object {
			return object{"did": w.did(name), "hash": strings.ToUpper(hex.EncodeToString(packs[pack].Ref()))}
		}
		tests := []struct {
			name    string
			welcome any
			hashes  []object
			bob     []string
			cid     []string
			dan     []string
		}{
			{"no welcome", nil, []object{hash("bob", "bob1")}, nil, nil, nil},
			{"opaque, without hashes", text(bytes.Repeat([]byte{7}, 256)), nil, []string{"any any"}, []string{"any any"}, []string{"any any"}},
			{"opaque, with hashes", blob(bytes.Repeat([]byte{7}, 256)), []object{hash("bob", "bob1"), hash("bob", "bob2"), hash("bob", "bob2"), hash("cid", "cid1")},
				[]string{line("bob", "bob1"), line("bob", "bob2")}, []string{line("cid", "cid1")}, []string{"any any"}},
			{"MLS, all known", blob(welcomeFor(packs["bob1"], packs["cid2"])), nil, []string{line("bob", "bob1")}, []string{line("cid", "cid2")}, nil},
			{"MLS, one unknown", blob(welcomeFor(packs["bob1"], unknown)), nil, []string{line("bob", "bob1")}, []string{"any any"}, []string{"any any"}},
			{"MLS, with hashes besides", blob(welcomeFor(packs["bob1"], packs["cid2"])), []object{hash("bob", "bob1")}, []string{line("bob", "bob1")}, []string{line("cid", "cid2")}, nil},
		}
		for i, test := range tests {
			id := group(fmt.Sprint("w", i))
			in := w.creation(id, "bob", "cid", "dan")
			if test.welcome != nil {
				in["welcomeMessage"] = test.welcome
			}
			in["keyPackageHashes"] = test.hashes
			var out xrpc.CreateConvoOutput
			w.call("ann", xrpc.CreateConvo, in).into(&out)
			w.call("ann", xrpc.CreateConvo, in).into(&out) // stores it no second time
			for name, want := range map[string][]string{"bob": test.bob, "cid": test.cid, "dan": test.dan, "ann": nil} {
				slices.Sort(want)
				if got := w.waitingFor(name, id); !slices.Equal(got, want) {
					t.Errorf("%s: %s waits with %q, want %q", test.name, name, got, want)
				}
			}
		}
		// What a Welcome was made with is not handed out again (I5).
		if got := w.fetch("eve", "bob", "cid"); len(got) != 0 {
			t.Errorf("handed out again: %v", got)
		}
		// The gateway's clients are told of those that are for a device of theirs.
		told := 0
		for _, r := range w.records(ds.AccountLog(ds.AccountID(w.did("cid")))) {
			if r.Kind == ds.WelcomeEvent && string(r.Recipient) == devices["cid"] {
				told++
			}
		}
		same(t, "Welcomes that cid's device was told of", told, 3)
	})
}

// TestCreateConvoRace has many create one conversation at once: one is the creator, and
// to the others it is taken, unless they are in it.
func TestCreateConvoRace(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		id := group("race")
		var wait sync.WaitGroup
		var created, taken atomic.Int64
		for i := range 8 {
			name := fmt.Sprint("p", i)
			w.did(name)
			wait.Go(func() {
				switch a := w.call(name, xrpc.CreateConvo, w.creation(id)); a.status {
				case http.StatusOK:
					created.Add(1)
				case http.StatusConflict:
					taken.Add(1)
				default:
					t.Errorf("%d %s", a.status, a.body)
				}
			})
		}
		wait.Wait()
		if created.Load() != 1 || taken.Load() != 7 {
			t.Errorf("%d created it, to %d it was taken", created.Load(), taken.Load())
		}
	})
}

// TestInviteCodes: what asks for a code that invites, or for its end, does nothing else.
func TestInviteCodes(t *testing.T) {
	onBothStored(t, func(t *testing.T, w *world, stored *database) {
		id := group("g1")
		w.create(id, "ann", "bob")
		before := stored.contents()
		for _, invite := range []object{{"action": "create"}, {"action": "revoke", "code": "x"}, {"action": "eat"}} {
			w.call("ann", xrpc.CreateConvo, w.with(w.creation(id), "invite", invite)).refused("501 MethodNotImplemented")
			w.call("ann", xrpc.CreateConvo, w.with(w.creation(group("g2")), "invite", invite)).refused("501 MethodNotImplemented")
		}
		stored.unchanged(xrpc.CreateConvo, before)
	})
}

func TestGetConvos(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		if a := w.call("ann", xrpc.GetConvos, params()); !strings.Contains(string(a.body), `"conversations":[]`) {
			t.Errorf("got %s", a.body)
		}
		for i := range 7 {
			w.later.Store(int64(i/2) * 1000) // two at a time
			w.create(group(fmt.Sprint("g", i)), "ann", "bob")
		}
		w.create(group("other"), "bob")
		order := func(out xrpc.GetConvosOutput) string {
			var list []string
			for _, v := range out.Conversations {
				name, err := hex.DecodeString(v.GroupID)
				must(t, err)
				list = append(list, string(name))
			}
			return strings.Join(list, " ")
		}
		const want = "g6 g4 g5 g2 g3 g0 g1"
		same(t, "all", order(w.convos("ann")), want)
		same(t, "all, said", order(w.convos("ann", "filter", "all", "status", "active")), want)
		var pages []string
		cursor := ""
		for range 10 {
			pairs := []string{"limit", "3"}
			if cursor != "" {
				pairs = append(pairs, "cursor", cursor)
			}
			out := w.convos("ann", pairs...)
			pages = append(pages, order(out))
			if cursor = out.Cursor; cursor == "" {
				break
			}
		}
		same(t, "pages", strings.Join(pages, "|"), "g6 g4 g5|g2 g3 g0|g1")
		if out := w.convos("ann", "limit", "7"); out.Cursor != "" {
			t.Errorf("a last page has the cursor %q", out.Cursor)
		}
		counts := w.convos("ann", "countOnly", "true")
		if len(counts.Conversations) != 0 || counts.PendingCount == nil || *counts.PendingCount != 0 {
			t.Errorf("counts %+v", counts)
		}
		for _, test := range []struct {
			want  string
			pairs []string
		}{
			{"400 InvalidRequest", []string{"limit", "0"}}, {"400 InvalidRequest", []string{"limit", "101"}}, {"400 InvalidRequest", []string{"limit", "x"}},
			{"400 InvalidFilter", []string{"filter", "lost"}}, {"400 InvalidCursor", []string{"cursor", "???"}}, {"400 InvalidCursor", []string{"cursor", "aGk"}},
		} {
			w.call("ann", xrpc.GetConvos, params(test.pairs...)).refused(test.want)
		}
		w.call("", xrpc.GetConvos, params()).refused("401 AuthenticationRequired")
	})
}

// TestGetConvosThatWait asks for those that have not reached the caller's devices.
func TestGetConvosThatWait(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		p := w.phone("bob")
		pack := p.pack()
		one := p.register(1, object{})
		w.publish("bob", object{"deviceId": one}, pack)
		id, open, done := group("for-one"), group("for-any"), group("plain")
		w.call("ann", xrpc.CreateConvo, w.with(w.creation(id, "bob"), "welcomeMessage", blob(welcomeFor(pack)))).fields()
		w.call("ann", xrpc.CreateConvo, w.with(w.creation(open, "bob"), "welcomeMessage", blob([]byte("opaque")))).fields()
		w.create(done, "ann", "bob")
		ids := func(out xrpc.GetConvosOutput) string {
			var list []string
			for _, v := range out.Conversations {
				list = append(list, v.GroupID)
			}
			slices.Sort(list)
			return strings.Join(list, " ")
		}
		both := []string{id, open}
		slices.Sort(both)
		for _, filter := range []string{"pending", "requests", "expected"} {
			out := w.convos("bob", "filter", filter)
			if ids(out) != strings.Join(both, " ") || *out.PendingCount != 2 || *out.RequestCount != 2 {
				t.Errorf("%s: %s, %d", filter, ids(out), *out.PendingCount)
			}
		}
		same(t, "for the device", ids(w.convos("bob", "filter", "expected", "deviceId", one)), strings.Join(both, " "))
		same(t, "for the device by its DID", ids(w.convos("bob", "filter", "expected", "deviceId", w.did("bob")+"#"+one)), strings.Join(both, " "))
		same(t, "for another device", ids(w.convos("bob", "filter", "expected", "deviceId", "tablet")), open)
		same(t, "counted", *w.convos("bob", "filter", "pending", "countOnly", "true").PendingCount, 2)
		same(t, "of the creator", ids(w.convos("ann", "filter", "pending")), "")
		out := w.convos("bob", "filter", "pending", "limit", "1")
		if len(out.Conversations) != 1 || out.Cursor == "" || len(w.convos("bob", "filter", "pending", "limit", "1", "cursor", out.Cursor).Conversations) != 1 {
			t.Errorf("pages of pending: %+v", out)
		}
		w.call("bob", xrpc.LeaveConvo, object{"convoId": id}).fields()
		same(t, "after leaving", *w.convos("bob").PendingCount, 1)
	})
}

// TestGetConvosCostsTheSame is black-box check 19, and counts the statements that a list
// costs: few, and as many for one conversation as for a hundred.
func TestGetConvosCostsTheSame(t *testing.T) {
	var counting atomic.Bool
	var statements atomic.Int64
	onBoth(t, func(t *testing.T, w *world) {
		cost := func() int64 {
			statements.Store(0)
			counting.Store(true)
			_, _, _, err := w.core.Convos(context.Background(), w.caller("ann"), core.ConvosQuery{})
			counting.Store(false)
			must(t, err)
			return statements.Load()
		}
		w.create(group("first"), "ann", "bob")
		one := cost()
		if one == 0 || one > 5 { // three, and the transaction's two
			t.Errorf("a list costs %d statements", one)
		}
		var wait sync.WaitGroup
		for i := range 100 {
			id := group(fmt.Sprint("c", i))
			wait.Go(func() {
				w.create(id, "ann", "bob")
				w.send("ann", message(id, uuid(i), 0, 512))
			})
		}
		wait.Wait()
		same(t, "statements for many", cost(), one)
		out := w.convos("ann")
		if len(out.Conversations) != 101 || out.Cursor != "" {
			t.Errorf("%d conversations, cursor %q", len(out.Conversations), out.Cursor)
		}
		for _, v := range out.Conversations {
			if len(v.Members) != 2 {
				t.Errorf("%s has %d members", v.GroupID, len(v.Members))
			}
		}
	}, func(s *setup) {
		s.identity.PollInterval = time.Hour
		s.store.Hook = store.Watch(func(sql string, done bool) {
			if done && counting.Load() {
				statements.Add(1)
			}
		})
	})
}

// TestBothDoors has a conversation of each door work through the other.
func TestBothDoors(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		w.conversation("tea room", "ann", "bob")
		must(t, w.apply(w.caller("ann"), core.Invite{ConversationID: "tea room", Accounts: []ds.AccountID{"not a did"}}))
		view := w.convo("bob", "tea room")
		if view == nil || view.Creator != w.did("ann") || view.GroupID != "tea room" || len(view.Members) != 2 || view.Epoch != 0 {
			t.Fatalf("bob sees %+v", view)
		}
		w.send("bob", message("tea room", uuid(1), 0, 512))
		must(t, w.bindTo("tea room", "ann", "tea", 3))
		if view = w.convo("bob", "tea room"); view.GroupID != group("tea") || view.ConversationID != "tea room" || view.Epoch != 4 {
			t.Errorf("once bound: %+v", view)
		}
		w.update("ann", "tea room", object{"action": "updateGroupInfo", "epoch": 4, "groupInfo": blob(info("tea", 4))})
		if view = w.convo("bob", "tea room"); view.CipherSuite != suiteName {
			t.Errorf("the suite of its GroupInfo is shown as %q", view.CipherSuite)
		}
		w.update("ann", "tea room", object{"action": "promoteModerator", "targetDid": w.did("bob")})
		w.call("bob", xrpc.LeaveConvo, object{"convoId": "tea room"}).fields()
		w.call("ann", xrpc.LeaveConvo, object{"convoId": "tea room"}).fields()

		id := group("g1")
		w.create(id, "ann", "bob", "cid")
		if _, err := w.core.Apply(ctx, w.caller("bob"), core.Send{ConversationID: ds.ConversationID(id), ID: "m1", Body: sealed("g1", 0, wire.ApplicationContent), Encoding: ds.Binary}); err != nil {
			t.Error(err)
		}
		commit := core.Bundle{ConversationID: ds.ConversationID(id), ID: "m2", Commit: sealed("g1", 0, wire.CommitContent), Encoding: ds.Binary,
			Add: []ds.AccountID{ds.AccountID(w.did("dan"))}, Remove: []ds.AccountID{ds.AccountID(w.did("cid"))}}
		if _, err := w.core.Apply(ctx, w.caller("bob"), commit); ds.CodeOf(err) != ds.Forbidden {
			t.Error(err)
		}
		if _, err := w.core.Apply(ctx, w.caller("ann"), commit); err != nil {
			t.Error(err)
		}
		must(t, w.apply(w.caller("ann"), core.Leave{ConversationID: ds.ConversationID(id), NewOwner: ds.AccountID(w.did("bob"))}))
		same(t, "roles", w.roles("bob", id, "ann", "bob", "cid", "dan"), "bob:a dan")
		if view = w.convo("bob", id); view.Epoch != 1 || view.Creator != w.did("ann") {
			t.Errorf("at last: %+v", view)
		}
	})
}

func TestCreateConvoIsAnsweredAlike(t *testing.T) {
	w := newWorld(t)
	// Every shape that either generation has for bytes is read, whatever else there is.
	for i, in := range []object{
		{"welcomeMessage": text([]byte("w")), "groupInfo": text(info("a0", 0))},
		{"welcomeMessage": blob([]byte("w")), "groupInfo": blob(info("a1", 0))},
		{"welcomeMessage": text([]byte("w")), "groupInfo": blob(info("a2", 0)), "unknown": true},
	} {
		for k, v := range w.creation(group(fmt.Sprint("a", i)), "bob") {
			in[k] = v
		}
		w.callAs(lexicons.A, "ann", xrpc.CreateConvo, in).fields()
		w.callAs(lexicons.B, "ann", xrpc.CreateConvo, in).fields()
	}
}

// TestConvosFitThroughAPDS: a page of conversations ends before a PDS would cut it, however
// many members they have and however long their names are.
func TestConvosFitThroughAPDS(t *testing.T) {
	w := newWorld(t)
	members := make([]ds.AccountID, 1000)
	for i := range members {
		members[i] = ds.AccountID("did:x:" + strings.Repeat("a", ds.AccountBytesMax-10) + fmt.Sprintf("%04d", i))
	}
	const count = 5
	for i := range count {
		must(t, w.apply(w.as("ann"), core.Create{ConversationID: ds.ConversationID(fmt.Sprint("c", i)), Accounts: members}))
	}
	seen, query, longest := map[any]bool{}, params(), 0
	for {
		a := w.call("ann", xrpc.GetConvos, query)
		longest = max(longest, len(a.body))
		out := a.fields()
		for _, convo := range out["conversations"].([]any) {
			seen[convo.(object)["conversationId"]] = true
		}
		cursor, ok := out["cursor"].(string)
		if !ok {
			break
		}
		query.Set("cursor", cursor)
	}
	if len(seen) != count || longest > answerBytesMax || longest < answerBytesMax/2 {
		t.Errorf("%d of %d conversations, the longest page has %d bytes", len(seen), count, longest)
	}
}
