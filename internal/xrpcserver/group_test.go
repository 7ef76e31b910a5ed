package xrpcserver

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/lexicons"
	"waxwing.im/waxwing/mls"
)

// party is a phone in a group.
type party struct {
	*phone
	id string // of the conversation
	g  *mls.Group
}

func (p *phone) identity() mls.Identity {
	return mls.Identity{Credential: []byte(p.w.did(p.name)), Key: p.key}
}

// start makes a group and its conversation, alone.
func (p *phone) start() *party {
	p.w.t.Helper()
	groupID := make([]byte, 16)
	rand.Read(groupID)
	g, err := mls.NewGroup(p.key.Suite(), groupID, p.identity(), mls.GroupOptions{Now: p.w.now})
	must(p.w.t, err)
	o := &party{p, hex.EncodeToString(groupID), g}
	p.w.call(p.name, xrpc.CreateConvo, object{"groupId": o.id, "cipherSuite": suiteName, "groupInfo": blob(o.info())}).fields()
	return o
}

func (p *party) info() []byte {
	p.w.t.Helper()
	info, err := p.g.GroupInfo()
	must(p.w.t, err)
	return info
}

func (p *party) commit(o mls.CommitOptions) *mls.PendingCommit {
	p.w.t.Helper()
	pending, err := p.g.Commit(o)
	must(p.w.t, err)
	return pending
}

// change is a call of commitGroupChange about the party's conversation.
func (p *party) change(action string, more object) answer {
	p.w.t.Helper()
	return p.w.call(p.name, xrpc.CommitGroupChange, p.body(action, more))
}

func (p *party) body(action string, more object) object {
	in := object{"convoId": p.id, "action": action}
	for k, v := range more {
		in[k] = v
	}
	return in
}

// adding is a commit that adds key packages, and the body that hands it in.
func (p *party) adding(dids []string, packs ...*mls.KeyPackage) (*mls.PendingCommit, object) {
	p.w.t.Helper()
	var o mls.CommitOptions
	for _, k := range packs {
		o.Add = append(o.Add, k.Message())
	}
	pending := p.commit(o)
	return pending, object{"memberDids": dids, "commit": blob(pending.Message()), "welcome": blob(pending.Welcome()), "groupInfo": blob(pending.GroupInfo())}
}

// add adds other phones with a package each that their owners have published, and has
// them join by the Welcome that the service keeps for them.
func (p *party) add(others ...*phone) []*party {
	p.w.t.Helper()
	var dids []string
	var packs []*mls.KeyPackage
	for _, other := range others {
		packs = append(packs, other.published())
		dids = append(dids, p.w.did(other.name))
	}
	pending, in := p.adding(dids, packs...)
	same(p.w.t, "newEpoch", epochOf(p.change("addMembers", in)), int64(pending.Epoch())+1)
	p.g = pending.Group()
	var list []*party
	for i, other := range others {
		g, err := mls.Join(other.welcome(p.id, packs[i]), packs[i], mls.JoinOptions{Now: p.w.now})
		must(p.w.t, err)
		list = append(list, &party{other, p.id, g})
	}
	return list
}

// published is a new key package that the directory knows.
func (p *phone) published() *mls.KeyPackage {
	p.w.t.Helper()
	k := p.pack()
	in := p.registration(0, object{"deviceUUID": "uuid-of-" + p.name})
	in["keyPackages"] = []object{p.w.item(k)}
	p.w.call(p.name, xrpc.RegisterDevice, in).fields()
	return k
}

// welcome is what waits for a key package, or nil.
func (p *phone) welcome(convo string, k *mls.KeyPackage) []byte {
	p.w.t.Helper()
	var out xrpc.GetGroupStateOutput
	p.w.callAs(lexicons.B, p.name, xrpc.GetGroupState, params("convoId", convo, "include", "welcome", "keyPackageHashes", hex.EncodeToString(k.Ref()))).into(&out)
	return out.Welcome.Data
}

func epochOf(a answer) int64 {
	a.t.Helper()
	var out xrpc.CommitGroupChangeOutput
	a.into(&out)
	if !out.Success || out.NewEpoch == nil {
		a.t.Fatalf("no newEpoch: %s", a.body)
	}
	return *out.NewEpoch
}

// commits reads the epochs of the stored commits, in order.
func (p *party) messages(kind string) []xrpc.MessageView {
	p.w.t.Helper()
	var out xrpc.GetMessagesOutput
	p.w.call(p.name, xrpc.GetMessages, params("convoId", p.id, "type", kind, "limit", "100")).into(&out)
	return out.Messages
}

// process takes in the commits that came since.
func (p *party) catchUp() {
	p.w.t.Helper()
	for _, m := range p.messages("commits") {
		if uint64(m.Epoch) != p.g.Epoch()+1 {
			continue
		}
		done, err := p.g.Process(m.Ciphertext)
		must(p.w.t, err)
		p.g = done.Group
	}
}

// TestAddMembers: those who are added enter by the Welcome that the service keeps for
// them, whichever generation of the API they and the committer speak.
func TestAddMembers(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		ann, bob, cid := w.phone("ann").start(), w.phone("bob"), w.phone("cid")
		joined := ann.add(bob, cid)
		for _, p := range joined {
			if !bytes.Equal(p.g.EpochAuthenticator(), ann.g.EpochAuthenticator()) {
				t.Errorf("%s is in another group", p.name)
			}
		}
		var convos xrpc.GetConvosOutput
		w.call("bob", xrpc.GetConvos, params()).into(&convos)
		if len(convos.Conversations) != 1 || convos.Conversations[0].Epoch != 1 || len(convos.Conversations[0].Members) != 3 {
			t.Errorf("bob's conversations: %+v", convos.Conversations)
		}
		// Generation A sends and reads strings.
		eve := w.phone("eve")
		k := eve.pack() // the directory does not know it
		pending := ann.commit(mls.CommitOptions{Add: [][]byte{k.Message()}})
		same(t, "newEpoch", epochOf(ann.change("addMembers", object{"memberDids": []string{w.did("eve")}, "commit": text(pending.Message()),
			"welcome": text(pending.Welcome()), "keyPackageHashes": []object{{"did": w.did("eve"), "hash": strings.ToUpper(hex.EncodeToString(k.Ref()))}}})), 2)
		ann.g = pending.Group()
		in := eve.registration(1, nil)
		in["keyPackages"] = []object{w.itemOf(text(bare(eve.pack())))}
		w.call("eve", xrpc.RegisterDevice, in).fields()
		var state struct {
			Welcome   string
			Epoch     int64
			GroupInfo string
		}
		w.callAs(lexicons.A, "eve", xrpc.GetGroupState, params("convoId", ann.id, "include", "epoch,welcome")).into(&state)
		if state.Welcome != text(pending.Welcome()) || state.Epoch != 2 {
			t.Errorf("as generation A: %+v", state)
		}
	})
}

// TestChangesAreAnsweredAgain: a retry is answered in full whatever happened since, and
// idempotency keys belong to their caller.
func TestChangesAreAnsweredAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		ann, bob := w.phone("ann").start(), w.phone("bob")
		pb := ann.add(bob)[0]
		first := ann.commit(mls.CommitOptions{})
		in := object{"commit": blob(first.Message()), "idempotencyKey": "one"}
		plain := object{"commit": blob(pb.commit(mls.CommitOptions{}).Message())}
		answers := ann.change("commit", in)
		same(t, "newEpoch", epochOf(answers), 2)
		lost := pb.change("commit", plain)
		lost.refused("409 EpochConflict")
		if !strings.Contains(string(lost.body), "epoch is 2") {
			t.Errorf("the current epoch is not told: %s", lost.body)
		}
		pb.catchUp()
		second := pb.commit(mls.CommitOptions{})
		// The same key of another caller is another request.
		same(t, "newEpoch", epochOf(pb.change("commit", object{"commit": blob(second.Message()), "idempotencyKey": "one"})), 3)
		rows := []struct {
			who  *party
			in   object
			want int64
		}{
			{ann, in, 2},
			{ann, object{"commit": blob(second.Message()), "idempotencyKey": "one"}, 2}, // other bytes under the same key
			{pb, object{"commit": blob(second.Message()), "idempotencyKey": "one"}, 3},
			{pb, object{"commit": blob([]byte("no commit at all")), "idempotencyKey": "two"}, 0},
		}
		for i, row := range rows {
			a := row.who.change("commit", row.in)
			if row.want == 0 {
				a.refused("400 InvalidCommit")
				continue
			}
			same(t, fmt.Sprintf("retry %d", i), epochOf(a), row.want)
		}
		same(t, "commits", len(ann.messages("commits")), 3)
		// Who has left is still answered what it has done.
		w.call("bob", xrpc.LeaveConvo, object{"convoId": ann.id}).fields()
		same(t, "after leaving", epochOf(pb.change("commit", rows[2].in)), 3)
		pb.change("commit", plain).refused("403 NotMember")
	})
}

// TestChangesThatAreRefused has a row for each refusal.
func TestChangesThatAreRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		ann, bob, cid := w.phone("ann").start(), w.phone("bob"), w.phone("cid")
		pb := ann.add(bob)[0]
		k := cid.published()
		_, adding := ann.adding([]string{w.did("cid")}, k)
		_, bobAdding := pb.adding([]string{w.did("cid")}, k)
		other := w.phone("ann").start()
		with := func(in object, pairs ...any) object {
			out := object{}
			for key, v := range in {
				out[key] = v
			}
			for i := 0; i < len(pairs); i += 2 {
				if out[pairs[i].(string)] = pairs[i+1]; pairs[i+1] == nil {
					delete(out, pairs[i].(string))
				}
			}
			return out
		}
		many := []string{}
		for i := range 51 {
			many = append(many, fmt.Sprintf("did:web:m%d.example", i))
		}
		plain := object{"commit": blob(ann.commit(mls.CommitOptions{}).Message())}
		bobRemoves := object{"commit": blob(pb.commit(mls.CommitOptions{Remove: []uint32{0}}).Message())}
		message, _, err := ann.g.Seal([]byte("hi"), nil, mls.SealOptions{})
		must(t, err)
		external, err := mls.JoinExternal(ann.info(), cid.identity(), mls.ExternalJoinOptions{Now: w.now})
		must(t, err)
		sue := &party{w.phone("sue"), ann.id, nil}
		ghost := &party{ann.phone, strings.Repeat("ab", 16), nil}
		hash := func(name string, ref []byte) []object {
			return []object{{"did": w.did(name), "hash": hex.EncodeToString(ref)}}
		}
		rows := []struct {
			name   string
			who    *party
			action string
			in     object
			want   string
		}{
			{"unknown action", ann, "explode", plain, "400 InvalidAction"},
			{"no commit", ann, "commit", nil, "400 InvalidRequest"},
			{"no MLS", ann, "commit", object{"commit": blob([]byte("commit"))}, "400 InvalidCommit"},
			{"a message", ann, "commit", object{"commit": blob(message)}, "400 InvalidCommit"},
			{"of another group", ann, "commit", object{"commit": blob(other.commit(mls.CommitOptions{}).Message())}, "400 InvalidCommit"},
			{"of an old epoch", ann, "commit", object{"commit": blob(other.oldCommit(ann))}, "409 EpochConflict"},
			{"members in a plain commit", ann, "commit", with(plain, "memberDids", []string{w.did("cid")}), "400 InvalidRequest"},
			{"by a stranger", sue, "commit", plain, "403 NotMember"},
			{"in no conversation", ghost, "commit", plain, "403 NotMember"},
			{"stranger with a wrong package", sue, "addMembers", with(adding, "keyPackageHashes", hash("cid", []byte("x"))), "403 NotMember"},
			{"a plain member adds", pb, "addMembers", bobAdding, "403 Unauthorized"},
			{"without members", ann, "addMembers", with(adding, "memberDids", nil), "400 InvalidRequest"},
			{"without a welcome", ann, "addMembers", with(adding, "welcome", nil), "400 InvalidRequest"},
			{"no DID", ann, "addMembers", with(adding, "memberDids", []string{"cid"}), "400 InvalidRequest"},
			{"a welcome that is none", ann, "addMembers", with(adding, "welcome", blob([]byte("hello"))), "400 InvalidCommit"},
			{"too many at once", ann, "addMembers", with(adding, "memberDids", many), "400 TooManyMembers"},
			{"another's package", ann, "addMembers", with(adding, "keyPackageHashes", hash("bob", k.Ref())), "409 KeyPackageNotFound"},
			{"an unknown package", ann, "addMembers", with(adding, "keyPackageHashes", hash("cid", []byte("x"))), "409 KeyPackageNotFound"},
			{"no package of a new member", ann, "addMembers", with(adding, "memberDids", []string{w.did("cid"), w.did("eve")}), "409 KeyPackageNotFound"},
			{"a member, without a package of it", ann, "addMembers", with(adding, "memberDids", []string{w.did("cid"), w.did("bob")}), "409 AlreadyMember"},
			{"the welcome is for somebody else", ann, "addMembers", with(adding, "memberDids", []string{w.did("bob")}), "400 InvalidRequest"},
			{"a group info of now", ann, "addMembers", with(adding, "groupInfo", blob(ann.info())), "400 InvalidGroupInfo"},
			{"a group info that is none", ann, "addMembers", with(adding, "groupInfo", blob([]byte("info"))), "400 InvalidGroupInfo"},
			{"a plain member removes", pb, "removeMember", with(bobRemoves, "memberDids", []string{w.did("ann")}), "403 Unauthorized"},
			{"removes itself", ann, "removeMember", with(plain, "memberDids", []string{w.did("ann")}), "400 InvalidRequest"},
			{"removes who never was there", ann, "removeMember", with(plain, "memberDids", []string{w.did("eve")}), "400 InvalidRequest"},
			{"removes nobody", ann, "removeMember", plain, "400 InvalidRequest"},
			{"an external commit as another", ann, "commit", object{"commit": blob(external.Message())}, "400 InvalidCommit"},
			{"another as an external commit", ann, "externalCommit", plain, "400 InvalidCommit"},
			{"in another's name", pb, "externalCommit", object{"commit": blob(external.Message())}, "403 Unauthorized"},
			{"a stranger enters", &party{cid, ann.id, nil}, "externalCommit", object{"commit": blob(external.Message())}, "403 NotMember"},
			{"a long key", ann, "commit", with(plain, "idempotencyKey", strings.Repeat("k", 129)), "400 InvalidRequest"},
			{"a long tag", ann, "commit", with(plain, "confirmationTag", blob(make([]byte, 65))), "400 InvalidRequest"},
			{"group info by a stranger", sue, "updateGroupInfo", object{"groupInfo": blob(ann.info())}, "403 NotMember"},
			{"no group info", ann, "updateGroupInfo", nil, "400 InvalidRequest"},
			{"group info of another group", ann, "updateGroupInfo", object{"groupInfo": blob(other.info())}, "400 InvalidGroupInfo"},
			{"refresh by a stranger", sue, "refreshGroupInfo", nil, "403 NotMember"},
			{"readdition of a stranger", sue, "readdition", nil, "403 NotMember"},
			{"no welcome waits", ann, "confirmWelcome", nil, "404 NotFound"},
			{"a stranger's welcome", sue, "confirmWelcome", nil, "403 NotMember"},
			{"claims nothing", ann, "claimPending", nil, "400 InvalidRequest"},
			{"claims what is not there", ann, "claimPending", object{"pendingAdditionId": "x"}, "404 PendingAdditionNotFound"},
			{"completes what is not there", ann, "completePendingDeviceAddition", object{"pendingAdditionId": "x"}, "404 PendingAdditionNotFound"},
		}
		for _, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				a := row.who.change(row.action, row.in)
				a.t = t
				a.refused(row.want)
			})
		}
		same(t, "commits", len(ann.messages("commits")), 1)
		same(t, "what was refused is good otherwise", epochOf(ann.change("addMembers", adding)), 2)
	})
}

// oldCommit is a commit of ann's group in the epoch that it began with.
func (p *party) oldCommit(ann *party) []byte {
	g, err := mls.NewGroup(ann.key.Suite(), ann.g.ID(), ann.identity(), mls.GroupOptions{Now: p.w.now})
	must(p.w.t, err)
	pending, err := g.Commit(mls.CommitOptions{})
	must(p.w.t, err)
	return pending.Message()
}

// TestRulesOfChanges: adding and removing members follows the conversation's rules.
func TestRulesOfChanges(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		ann, bob, cid, eve := w.phone("ann").start(), w.phone("bob"), w.phone("cid"), w.phone("eve")
		pb := ann.add(bob)[0]
		rules := func(policy object) {
			t.Helper()
			w.call("ann", xrpc.UpdateConvo, object{"convoId": ann.id, "action": "updatePolicy", "policy": policy}).fields()
		}
		rules(object{"allowMemberAdd": true, "requireAdminApproval": true})
		_, in := pb.adding([]string{w.did("cid")}, cid.published())
		pb.change("addMembers", in).refused("403 Unauthorized")
		rules(object{"requireAdminApproval": false, "maxMembers": 2})
		pb.change("addMembers", in).refused("400 TooManyMembers")
		rules(object{"maxMembers": 50})
		pc := pb.add(cid)[0]
		ann.catchUp()
		// Removing is by another rule, and reaches plain members only.
		out := func(by *party, name string) object {
			index := slices.IndexFunc(by.g.Members(), func(l mls.Leaf) bool { return string(l.Credential) == w.did(name) })
			return object{"memberDids": []string{w.did(name)}, "commit": blob(by.commit(mls.CommitOptions{Remove: []uint32{by.g.Members()[index].Index}}).Message())}
		}
		pc.change("removeMember", out(pc, "bob")).refused("403 Unauthorized")
		rules(object{"allowMemberRemove": true})
		pc.change("removeMember", out(pc, "ann")).refused("403 Unauthorized")
		same(t, "newEpoch", epochOf(pc.change("removeMember", out(pc, "bob"))), 3)
		w.call("bob", xrpc.GetMessages, params("convoId", ann.id)).refused("403 NotMember")
		ann.catchUp()
		// An account that left without a commit may be removed from the group by any member.
		pe := ann.add(eve)[0]
		w.call("cid", xrpc.LeaveConvo, object{"convoId": ann.id}).fields()
		rules(object{"allowMemberRemove": false})
		same(t, "newEpoch", epochOf(pe.change("removeMember", out(pe, "cid"))), 5)
	})
}

// TestEntering: members and, where the rules permit it, accounts that left enter the group by
// themselves; removed accounts and all others may not.
func TestEntering(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		ann, bob, cid := w.phone("ann").start(), w.phone("bob"), w.phone("cid")
		ann.add(bob, cid)
		enter := func(p *phone, o mls.ExternalJoinOptions) (*mls.PendingCommit, object) {
			t.Helper()
			o.Now = w.now
			pending, err := mls.JoinExternal(ann.info(), p.identity(), o)
			must(t, err)
			return pending, object{"commit": blob(pending.Message()), "groupInfo": blob(pending.GroupInfo())}
		}
		pb, pc := &party{bob, ann.id, nil}, &party{cid, ann.id, nil}
		// A member with a new device, by either word for it.
		tablet := w.phone("bob")
		_, in := enter(tablet, mls.ExternalJoinOptions{})
		same(t, "newEpoch", epochOf(pb.change("processExternalCommit", in)), 2)
		ann.catchUp()
		// One who lost its state removes its old leaf; another's it may not.
		pending, in := enter(bob, mls.ExternalJoinOptions{Resync: true})
		var out xrpc.CommitGroupChangeOutput
		pb.change("rejoin", in).into(&out)
		if *out.NewEpoch != 3 || out.RejoinedAt.IsZero() {
			t.Errorf("rejoin: %+v", out)
		}
		ann.catchUp()
		same(t, "members", len(ann.g.Members()), 4)
		if !bytes.Equal(ann.g.EpochAuthenticator(), pending.Group().EpochAuthenticator()) {
			t.Error("the group is another one")
		}
		_, foreign := enter(w.phone("bob"), mls.ExternalJoinOptions{Resync: true, IsOld: func(l mls.Leaf) bool { return string(l.Credential) == w.did("ann") }})
		pb.change("externalCommit", foreign).refused("403 Unauthorized")
		// Who has left may come back while the rules say so.
		w.call("cid", xrpc.LeaveConvo, object{"convoId": ann.id}).fields()
		var state xrpc.GetGroupStateOutput
		w.callAs(lexicons.B, "cid", xrpc.GetGroupState, params("convoId", ann.id, "include", "groupInfo")).into(&state)
		same(t, "epoch of the group info", *state.Epoch, 3)
		_, back := enter(cid, mls.ExternalJoinOptions{Resync: true})
		w.later.Add((31 * 24 * time.Hour).Milliseconds())
		pc.change("rejoin", back).refused("403 Unauthorized")
		w.call("cid", xrpc.GetGroupState, params("convoId", ann.id)).refused("404 GroupInfoUnavailable")
		rules := func(policy object) {
			t.Helper()
			w.call("ann", xrpc.UpdateConvo, object{"convoId": ann.id, "action": "updatePolicy", "policy": policy}).fields()
		}
		rules(object{"rejoinWindowDays": 0, "allowRejoin": false})
		pc.change("rejoin", back).refused("403 Unauthorized")
		rules(object{"allowRejoin": true, "requireInviteForJoin": true})
		pc.change("rejoin", back).refused("403 Unauthorized")
		rules(object{"requireInviteForJoin": false, "maxMembers": 2})
		pc.change("rejoin", back).refused("400 TooManyMembers")
		rules(object{"maxMembers": 1000, "allowExternalCommits": false})
		pc.change("rejoin", back).refused("403 Unauthorized")
		pb.change("externalCommit", in).into(&out) // a repeat is none of the rules' matter
		same(t, "repeat", *out.NewEpoch, 3)
		rules(object{"allowExternalCommits": true})
		w.call("cid", xrpc.GetMessages, params("convoId", ann.id)).refused("403 NotMember")
		same(t, "newEpoch", epochOf(pc.change("rejoin", back)), 4)
		same(t, "newEpoch", epochOf(pc.change("rejoin", back)), 4)
		w.call("cid", xrpc.GetMessages, params("convoId", ann.id)).fields()
		ann.catchUp()
		// A removed account may not.
		index := slices.IndexFunc(ann.g.Members(), func(l mls.Leaf) bool { return string(l.Credential) == w.did("cid") })
		removing := ann.commit(mls.CommitOptions{Remove: []uint32{ann.g.Members()[index].Index}})
		same(t, "newEpoch", epochOf(ann.change("removeMember", object{"memberDids": []string{w.did("cid")}, "commit": blob(removing.Message()), "groupInfo": blob(removing.GroupInfo())})), 5)
		ann.g = removing.Group()
		_, in = enter(cid, mls.ExternalJoinOptions{})
		pc.change("externalCommit", in).refused("403 Unauthorized")
		w.call("cid", xrpc.GetGroupState, params("convoId", ann.id)).refused("404 GroupInfoUnavailable")
		w.callAs(lexicons.B, "cid", xrpc.GetGroupState, params("convoId", ann.id, "include", "epoch")).into(&state)
		same(t, "epoch for a former member", *state.Epoch, 5)
	})
}

// TestGroupState: members, present and former, are answered what they ask for.
func TestGroupState(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		ann, bob := w.phone("ann").start(), w.phone("bob")
		ask := func(name string, pairs ...string) (xrpc.GetGroupStateOutput, answer) {
			t.Helper()
			a := w.callAs(lexicons.B, name, xrpc.GetGroupState, params(append([]string{"convoId", ann.id}, pairs...)...))
			var out xrpc.GetGroupStateOutput
			_ = json.Unmarshal(a.body, &out)
			return out, a
		}
		_, a := ask("bob")
		a.refused("403 Unauthorized")
		w.call("bob", xrpc.GetGroupState, params("convoId", strings.Repeat("ab", 16))).refused("403 Unauthorized")
		w.call("bob", xrpc.GetGroupState, params("convoId", "")).refused("403 Unauthorized")
		out, _ := ask("ann")
		if !bytes.Equal(out.GroupInfo.Data, ann.info()) && len(out.GroupInfo.Data) == 0 || *out.Epoch != 0 || out.ExpiresAt.UnixMilli() != w.now().Add(5*time.Minute).UnixMilli() {
			t.Errorf("at first: %+v", out)
		}
		// A commit without a GroupInfo leaves that of the epoch before.
		pending := ann.commit(mls.CommitOptions{})
		same(t, "newEpoch", epochOf(ann.change("commit", object{"commit": blob(pending.Message())})), 1)
		ann.g = pending.Group()
		out, _ = ask("ann", "include", "groupInfo")
		same(t, "epoch of the group info", *out.Epoch, 0)
		out, _ = ask("ann", "include", "groupInfo,epoch")
		same(t, "epoch", *out.Epoch, 1)
		if out, _ = ask("ann", "include", "welcome"); out.Epoch != nil || !out.Welcome.IsZero() || !out.GroupInfo.IsZero() {
			t.Errorf("nothing was asked for: %+v", out)
		}
		info := ann.info()
		same(t, "newEpoch", epochOf(ann.change("updateGroupInfo", object{"groupInfo": blob(info)})), 1)
		out, _ = ask("ann")
		if !bytes.Equal(out.GroupInfo.Data, info) || *out.Epoch != 1 {
			t.Errorf("what was uploaded is not read back: %+v", out)
		}
		ann.change("refreshGroupInfo", nil).fields()
		ann.change("readdition", nil).fields()
		// Two Welcomes wait for bob, by package and by device; reading leaves them.
		first, second := bob.published(), w.phone("bob").pack()
		pending, in := ann.adding([]string{w.did("bob")}, first)
		ann.change("addMembers", in).fields()
		ann.g = pending.Group()
		p2, in := ann.adding([]string{w.did("bob")}, second) // another device of a member, unknown here
		same(t, "newEpoch", epochOf(ann.change("addMembers", in)), 3)
		ann.g = p2.Group()
		var convo xrpc.GetConvosOutput
		w.call("bob", xrpc.GetConvos, params()).into(&convo)
		same(t, "members", len(convo.Conversations[0].Members), 2)
		device := w.devices("bob")[0].DeviceID
		for range 2 {
			if out, _ = ask("bob", "include", "welcome"); !bytes.Equal(out.Welcome.Data, p2.Welcome()) {
				t.Error("the newest is not what was given")
			}
			for _, name := range []string{device, w.did("bob") + "#" + device, "uuid-of-bob"} {
				if out, _ = ask("bob", "include", "welcome", "deviceId", name); !bytes.Equal(out.Welcome.Data, pending.Welcome()) {
					t.Errorf("by device %s: another one", name)
				}
			}
			if !bytes.Equal(bob.welcome(ann.id, first), pending.Welcome()) {
				t.Error("by package: another one")
			}
		}
		if out, _ = ask("ann", "include", "welcome"); !out.Welcome.IsZero() {
			t.Error("somebody else's welcome")
		}
		pb := &party{bob, ann.id, nil}
		pb.change("confirmWelcome", object{"deviceId": device}).fields()
		pb.change("confirmWelcome", object{"keyPackageHashes": []object{{"did": w.did("bob"), "hash": hex.EncodeToString(first.Ref())}}}).fields()
		pb.change("invalidateWelcome", nil).refused("404 NotFound")
		if out, _ = ask("bob", "include", "welcome"); !out.Welcome.IsZero() {
			t.Error("a welcome is given again that was confirmed")
		}
	})
}

// TestCommitID: the same request has the same id, and no other request has it.
func TestCommitID(t *testing.T) {
	one := commitID("ann", "k", []byte("a"))
	if commitID("ann", "k", []byte("b")) != one || !ds.IsValidID(string(one)) {
		t.Errorf("a key does not name its request: %q", one)
	}
	for name, other := range map[string]ds.MessageID{"another account": commitID("bob", "k", []byte("a")),
		"another key": commitID("ann", "l", []byte("a")), "no key": commitID("ann", "", []byte("a"))} {
		if other == one {
			t.Errorf("%s: the same name", name)
		}
	}
	if commitID("ann", "", []byte("a")) != commitID("bob", "", []byte("a")) || commitID("ann", "", []byte("a")) == commitID("ann", "", []byte("b")) {
		t.Error("without a key the bytes do not name it")
	}
}
