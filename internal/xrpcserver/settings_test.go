package xrpcserver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/lexicons"
	"waxwing.im/waxwing/mls/wire"
)

// update makes an updateConvo that succeeds.
func (w *world) update(name, id string, in object) xrpc.UpdateConvoOutput {
	w.t.Helper()
	in["convoId"] = id
	var out xrpc.UpdateConvoOutput
	w.call(name, xrpc.UpdateConvo, in).into(&out)
	if !out.Success {
		w.t.Errorf("%v: no success", in)
	}
	return out
}

// role returns the body that changes the role of a person.
func (w *world) role(id, action, target string) object {
	return object{"convoId": id, "action": action, "targetDid": w.did(target)}
}

// TestRoles is a story in which every right to promote and demote is tried: what is
// asked, how it is answered, and who is what afterwards.
func TestRoles(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		id := group("g1")
		w.create(id, "ann", "bob", "cid", "dan")
		everybody := []string{"ann", "bob", "cid", "dan"}
		for _, step := range []struct {
			who, action, target string
			want                string // a refusal, or the roles
		}{
			{"bob", "promoteAdmin", "bob", "403 Unauthorized"},
			{"bob", "promoteModerator", "cid", "403 Unauthorized"},
			{"bob", "demoteAdmin", "ann", "403 Unauthorized"},
			{"eve", "promoteAdmin", "bob", "403 NotMember"},
			{"ann", "promoteAdmin", "eve", "404 TargetNotMember"},
			{"ann", "demoteAdmin", "eve", "404 TargetNotMember"},
			{"ann", "promoteAdmin", "ann", "409 AlreadyDone"},
			{"ann", "promoteModerator", "ann", "409 AlreadyDone"},
			{"ann", "demoteAdmin", "ann", "409 LastAdmin"},
			{"ann", "demoteAdmin", "bob", "400 InvalidRequest"},
			{"ann", "demoteModerator", "bob", "400 InvalidRequest"},
			{"ann", "promoteModerator", "bob", "ann:a bob:m cid dan"},
			{"ann", "promoteModerator", "bob", "409 AlreadyDone"},
			{"bob", "promoteModerator", "cid", "403 Unauthorized"},
			{"cid", "demoteModerator", "bob", "403 Unauthorized"},
			{"ann", "demoteAdmin", "bob", "400 InvalidRequest"},
			{"bob", "demoteModerator", "bob", "ann:a bob cid dan"},
			{"ann", "promoteModerator", "bob", "ann:a bob:m cid dan"},
			{"ann", "promoteAdmin", "bob", "ann:a bob:a cid dan"},
			{"ann", "demoteModerator", "bob", "400 InvalidRequest"},
			{"bob", "promoteAdmin", "cid", "ann:a bob:a cid:a dan"},
			{"bob", "demoteAdmin", "ann", "ann bob:a cid:a dan"}, // the owner; bob is the owner now
			{"ann", "promoteAdmin", "dan", "403 Unauthorized"},
			{"cid", "demoteAdmin", "cid", "ann bob:a cid dan"},
			{"bob", "demoteAdmin", "bob", "409 LastAdmin"},
		} {
			a := w.call(step.who, xrpc.UpdateConvo, w.role(id, step.action, step.target))
			if strings.HasPrefix(step.want, "4") {
				if a.refused(step.want); t.Failed() {
					t.Fatal(step)
				}
				continue
			}
			out := a.fields()
			if out["success"] != true || out["action"] != step.action || (out["promotedAt"] != nil) != strings.HasPrefix(step.action, "promote") {
				t.Errorf("got %v", out)
			}
			same(t, "roles", w.roles("dan", id, everybody...), step.want)
		}
		for _, m := range w.convo("dan", id).Members {
			switch m.DID {
			case w.did("bob"):
				if !slices.Contains([]string{w.did("ann"), w.did("cid")}, m.PromotedBy) || m.PromotedAt.IsZero() { // by the previous owner
					t.Errorf("bob was promoted by %q at %v", m.PromotedBy, m.PromotedAt)
				}
			default:
				if m.PromotedBy != "" || !m.PromotedAt.IsZero() {
					t.Errorf("%+v", m)
				}
			}
		}
		// Every change stands in the log, for all to see.
		var changes []string
		for _, r := range w.records(ds.ConversationLog(ds.ConversationID(id))) {
			var change ds.RoleChange
			if r.Kind == ds.Roles {
				must(t, json.Unmarshal(r.Body, &change))
				changes = append(changes, string(change.Role))
			}
		}
		if !slices.Contains(changes, string(ds.Owner)) || len(changes) < 8 {
			t.Errorf("roles in the log: %v", changes)
		}
		// To the gateway's protocol there are owners, admins and members.
		members, err := w.core.Members(context.Background(), w.caller("bob"), ds.ConversationID(id))
		must(t, err)
		same(t, "owner", members[0], ds.Member{Account: ds.AccountID(w.did("bob")), Role: ds.Owner})
	})
}

// TestLastAdminRace has two admins demote each other at once: one stays.
func TestLastAdminRace(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		for i := range 5 {
			id := group(fmt.Sprint("race", i))
			w.create(id, "ann", "bob", "cid")
			w.update("ann", id, w.role(id, "promoteAdmin", "bob"))
			var wait sync.WaitGroup
			answers := make([]answer, 4)
			for n, step := range [][2]string{{"ann", "bob"}, {"bob", "ann"}, {"ann", "ann"}, {"bob", "bob"}} {
				wait.Go(func() { answers[n] = w.call(step[0], xrpc.UpdateConvo, w.role(id, "demoteAdmin", step[1])) })
			}
			wait.Wait()
			good := 0
			for _, a := range answers {
				if a.status == http.StatusOK {
					good++
				}
			}
			roles := w.roles("cid", id, "ann", "bob", "cid")
			if good != 1 || roles != "ann:a bob cid" && roles != "ann bob:a cid" {
				t.Errorf("%d demotions, roles %s", good, roles)
			}
		}
	})
}

func TestUpdateConvoRefusals(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		id := group("g1")
		w.create(id, "ann", "bob")
		good := blob(info("g1", 0))
		for _, test := range []struct {
			name, who string
			in        object
			want      string
		}{
			{"nobody", "", object{"action": "getAdminStats"}, "401 AuthenticationRequired"},
			{"no action", "ann", object{}, "400 InvalidRequest"},
			{"an unknown action", "ann", object{"action": "eat"}, "400 InvalidAction"},
			{"no target", "ann", object{"action": "promoteAdmin"}, "400 MissingTargetDid"},
			{"a target that is no DID", "ann", object{"action": "promoteAdmin", "targetDid": "bob"}, "400 InvalidRequest"},
			{"no such conversation", "ann", object{"action": "getAdminStats", "convoId": "none"}, "403 NotMember"},
			{"too long a conversation", "ann", object{"action": "getAdminStats", "convoId": strings.Repeat("a", 129)}, "403 NotMember"},
			{"stats of a stranger", "eve", object{"action": "getAdminStats"}, "403 NotMember"},
			{"stats of a member", "bob", object{"action": "getAdminStats"}, "403 Unauthorized"},
			{"no rules", "ann", object{"action": "updatePolicy"}, "400 NoFieldsProvided"},
			{"empty rules", "ann", object{"action": "updatePolicy", "policy": object{"unknown": 1}}, "400 NoFieldsProvided"},
			{"one member at most", "ann", object{"action": "updatePolicy", "policy": object{"maxMembers": 1}}, "400 InvalidMaxMembers"},
			{"too many members", "ann", object{"action": "updatePolicy", "policy": object{"maxMembers": 1001}}, "400 InvalidMaxMembers"},
			{"too many days", "ann", object{"action": "updatePolicy", "policy": object{"rejoinWindowDays": 40000}}, "400 InvalidRequest"},
			{"rules of a member", "bob", object{"action": "updatePolicy", "policy": object{"allowInvites": true}}, "403 Unauthorized"},
			{"rules of a stranger", "eve", object{"action": "updatePolicy", "policy": object{"allowInvites": true}}, "403 NotMember"},
			{"no groupInfo", "ann", object{"action": "updateGroupInfo", "epoch": 0}, "400 InvalidGroupInfo"},
			{"a short groupInfo", "ann", object{"action": "updateGroupInfo", "epoch": 0, "groupInfo": blob(info("g1", 0)[:99])}, "400 InvalidGroupInfo"},
			{"a groupInfo that is none", "ann", object{"action": "updateGroupInfo", "epoch": 0, "groupInfo": text(filled(200))}, "400 InvalidGroupInfo"},
			{"a groupInfo without its epoch", "ann", object{"action": "updateGroupInfo", "groupInfo": good}, "400 InvalidRequest"},
			{"a groupInfo of another epoch than said", "ann", object{"action": "updateGroupInfo", "epoch": 1, "groupInfo": good}, "400 InvalidGroupInfo"},
			{"a groupInfo of another group", "ann", object{"action": "updateGroupInfo", "epoch": 0, "groupInfo": blob(info("g2", 0))}, "400 InvalidGroupInfo"},
			{"a groupInfo of an epoch to come", "ann", object{"action": "updateGroupInfo", "epoch": 1, "groupInfo": blob(info("g1", 1))}, "409 EpochConflict"},
			{"a groupInfo of a stranger", "eve", object{"action": "updateGroupInfo", "epoch": 0, "groupInfo": good}, "403 NotMember"},
			{"a refresh of a stranger", "eve", object{"action": "refreshGroupInfo"}, "403 NotMember"},
		} {
			if test.in["convoId"] == nil {
				test.in["convoId"] = id
			}
			if w.call(test.who, xrpc.UpdateConvo, test.in).refused(test.want); t.Failed() {
				t.Fatal(test.name)
			}
		}
		if n := len(w.records(ds.ConversationLog(ds.ConversationID(id)))); n != 1 {
			t.Errorf("refusals left %d records", n-1)
		}
		w.call("eve", xrpc.GetConvoSettings, params("convoId", id)).refused("403 NotMember")
		w.call("ann", xrpc.GetConvoSettings, params("convoId", "none")).refused("403 NotMember")
		w.call("ann", xrpc.GetConvoSettings, params()).refused("400 InvalidRequest")
	})
}

func TestPolicy(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		id := group("g1")
		w.create(id, "ann", "bob", "cid")
		settings := func() (p xrpc.PolicyView) {
			var out struct {
				ConvoID string          `json:"convoId"`
				Policy  xrpc.PolicyView `json:"policy"`
			}
			w.call("bob", xrpc.GetConvoSettings, params("convoId", id)).into(&out)
			same(t, "convoId", out.ConvoID, id)
			return out.Policy
		}
		first := settings()
		want := xrpc.PolicyView{ConvoID: id, AllowInvites: true, AdminOnlyInvites: true, AllowExternalCommits: true, AllowRejoin: true,
			RejoinWindowDays: 30, PreventRemovingLastAdmin: true, MaxMembers: 1000, UpdatedAt: first.UpdatedAt}
		same(t, "rules", first, want)
		same(t, "rules at", first.UpdatedAt.UnixMilli(), testTime.UnixMilli())
		w.later.Store(5000)
		out := w.update("ann", id, object{"action": "updatePolicy", "policy": object{"allowMemberAdd": true, "maxMembers": 4, "rejoinWindowDays": 0,
			"allowRejoin": false, "requireInviteForJoin": true}})
		want.AllowMemberAdd, want.MaxMembers, want.RejoinWindowDays, want.AllowRejoin, want.RequireInviteForJoin = true, 4, 0, false, true
		want.UpdatedBy, want.UpdatedAt = w.did("ann"), xrpc.TimeMS(testTime.UnixMilli()+5000)
		same(t, "answered", *out.Policy, want)
		same(t, "stored", settings(), want)

		// The rules hold for what comes by the other door too.
		invite := func(who, whom string) ds.Code {
			return ds.CodeOf(w.apply(w.caller(who), core.Invite{ConversationID: ds.ConversationID(id), Accounts: []ds.AccountID{ds.AccountID(w.did(whom))}}))
		}
		remove := func(who, whom string) ds.Code {
			return ds.CodeOf(w.apply(w.caller(who), core.Remove{ConversationID: ds.ConversationID(id), Accounts: []ds.AccountID{ds.AccountID(w.did(whom))}}))
		}
		same(t, "a member adds", invite("bob", "dan"), "")
		same(t, "beyond the most", invite("ann", "eve"), ds.LimitExceeded)
		same(t, "who is there already", invite("ann", "dan"), "")
		w.update("ann", id, object{"action": "updatePolicy", "policy": object{"maxMembers": 2}})
		same(t, "nobody enters, and nobody is put out", invite("ann", "bob"), "")
		same(t, "members", len(w.convo("ann", id).Members), 4)
		w.update("ann", id, object{"action": "updatePolicy", "policy": object{"maxMembers": 1000, "requireAdminApproval": true}})
		same(t, "a member adds where admins have to", invite("bob", "eve"), ds.Forbidden)
		same(t, "an admin does", invite("ann", "eve"), "")
		same(t, "a member removes", remove("bob", "eve"), ds.Forbidden)
		w.update("ann", id, object{"action": "updatePolicy", "policy": object{"allowMemberRemove": true}})
		w.update("ann", id, w.role(id, "promoteModerator", "cid"))
		same(t, "a member removes a moderator", remove("bob", "cid"), ds.Forbidden)
		same(t, "a member removes the owner", remove("bob", "ann"), ds.Forbidden)
		same(t, "a member removes a member", remove("bob", "eve"), "")
		w.update("ann", id, object{"action": "updatePolicy", "policy": object{"allowMemberRemove": false}})
		same(t, "a moderator removes a member", remove("cid", "dan"), "")
		same(t, "a moderator removes the owner", remove("cid", "ann"), ds.Forbidden)
		same(t, "an admin removes a moderator", remove("ann", "cid"), "")

		// Where the last admin may leave, another member is admin afterwards.
		w.update("ann", id, object{"action": "updatePolicy", "policy": object{"preventRemovingLastAdmin": false}})
		w.update("ann", id, w.role(id, "demoteAdmin", "ann"))
		same(t, "roles", w.roles("ann", id, "ann", "bob"), "ann bob:a")
		w.call("ann", xrpc.LeaveConvo, object{"convoId": id}).fields()
		w.call("bob", xrpc.UpdateConvo, w.role(id, "demoteAdmin", "bob")).refused("409 LastAdmin")
	})
}

// TestGroupInfo uploads GroupInfos by updateConvo: one for each epoch, of that epoch.
func TestGroupInfoUploads(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		id := group("g1")
		w.create(id, "ann", "bob")
		upload := func(who string, epoch int, data []byte) answer {
			return w.call(who, xrpc.UpdateConvo, object{"convoId": id, "action": "updateGroupInfo", "epoch": epoch, "groupInfo": text(data)})
		}
		stored := func() string {
			data, _, err := w.core.GroupInfo(context.Background(), w.caller("ann"), ds.ConversationID(id))
			must(t, err)
			return string(data)
		}
		first := info("g1", 0)
		out := upload("bob", 0, first).fields()
		if out["updated"] != true || out["success"] != true {
			t.Errorf("got %v", out)
		}
		same(t, "stored", stored(), string(first))
		upload("ann", 0, first).refused("409 EpochConflict")
		commit := func(epoch uint64, data []byte) {
			_, err := w.core.Apply(context.Background(), w.caller("bob"), core.Bundle{ConversationID: ds.ConversationID(id),
				ID: ds.MessageID(fmt.Sprint("commit-", epoch)), Commit: sealed("g1", epoch, wire.CommitContent), GroupInfo: data, Encoding: ds.Binary})
			must(t, err)
		}
		commit(0, nil)
		upload("ann", 0, first).refused("409 EpochConflict")
		bare := wire.Marshal(infoOf("g1", 1)) // without a message around it
		upload("ann", 1, bare).fields()
		same(t, "stored", stored(), string(bare))
		commit(1, info("g1", 2))
		upload("ann", 2, info("g1", 2)).refused("409 EpochConflict")
		// One that says nothing of its epoch, as commitGroupChange brings it, is passed over.
		for epoch, want := range map[uint64]ds.Code{2: "", 1: ds.EpochConflict} {
			done, err := w.core.Apply(context.Background(), w.caller("ann"), core.GroupInfoUpdate{ConversationID: ds.ConversationID(id), GroupInfo: info("g1", epoch)})
			if ds.CodeOf(err) != want || done.IsNew {
				t.Errorf("epoch %d: %v, stored %v", epoch, err, done.IsNew)
			}
		}
		// Two at once: one is stored.
		commit(2, nil)
		var wait sync.WaitGroup
		answers := make([]answer, 6)
		for i := range answers {
			wait.Go(func() { answers[i] = upload([]string{"ann", "bob"}[i%2], 3, info("g1", 3)) })
		}
		wait.Wait()
		good := 0
		for _, a := range answers {
			if a.status == http.StatusOK {
				good++
			}
		}
		same(t, "stored of many", good, 1)
	})
}

func TestRefreshGroupInfo(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		id := group("g1")
		w.create(id, "ann", "bob", "cid")
		refresh := object{"convoId": id, "action": "refreshGroupInfo"}
		out := w.call("bob", xrpc.UpdateConvo, refresh).fields()
		if out["requested"] != true || out["activeMembers"] != 3.0 || out["success"] != true {
			t.Errorf("got %v", out)
		}
		a := w.call("bob", xrpc.UpdateConvo, refresh)
		a.refused("429 RateLimited")
		if a.header.Get("Retry-After") != "30" {
			t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
		}
		w.call("cid", xrpc.UpdateConvo, refresh).fields()
		w.call("cid", xrpc.LeaveConvo, object{"convoId": id}).fields()
		w.later.Store((30 * time.Second).Milliseconds())
		if out := w.call("cid", xrpc.UpdateConvo, refresh).fields(); out["requested"] != true || out["activeMembers"] != nil {
			t.Errorf("who has left is told %v", out)
		}
		w.call("eve", xrpc.UpdateConvo, refresh).refused("403 NotMember")
		var asked []string
		for _, r := range w.records(ds.ConversationLog(ds.ConversationID(id))) {
			if r.Kind == ds.RequestEvent {
				asked = append(asked, string(r.Body))
			}
		}
		if len(asked) != 3 || !strings.Contains(asked[2], w.did("cid")) || !strings.Contains(asked[0], ds.WantsGroupInfo) {
			t.Errorf("asked: %v", asked)
		}
		if out := w.call("ann", xrpc.UpdateConvo, object{"convoId": id, "action": "getAdminStats"}).fields(); out["activeMembers"] != 2.0 {
			t.Errorf("stats %v", out)
		}
	}, func(s *setup) { must(t, s.limits.Set("group_info_requests=1/30s")) })
}

// leave returns the body that removes a person, with a handshake or without (nil).
func (w *world) leave(id, target string, handshake []byte) object {
	in := object{"convoId": id}
	if target != "" {
		in["targetDid"] = w.did(target)
	}
	if handshake != nil {
		in["commit"] = blob(handshake)
	}
	return in
}

// publicCommit is a commit that shows that leaf 1 removes a leaf.
func publicCommit(group string, epoch uint64, removes uint32) []byte {
	return wire.Marshal(&wire.Message{WireFormat: wire.PublicMessageFormat, Public: &wire.PublicMessage{
		Content: wire.FramedContent{GroupID: []byte(group), Epoch: epoch, Sender: wire.Sender{Type: wire.MemberSender, Index: 1},
			ContentType: wire.CommitContent,
			Commit:      &wire.Commit{Proposals: []wire.ProposalOrRef{{Proposal: &wire.Proposal{Type: wire.RemoveProposal, Remove: removes}}}}},
		Signature: []byte("s"), ConfirmationTag: []byte("t"), MembershipTag: []byte("m")}})
}

// TestLeaveConvo is a story in which every way out is tried.
func TestLeaveConvo(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		id := group("g1")
		everybody := []string{"ann", "bob", "cid", "dan", "fay", "gil", "hal"}
		w.create(id, everybody...)
		w.update("ann", id, w.role(id, "promoteModerator", "bob"))
		w.update("ann", id, w.role(id, "promoteAdmin", "fay"))
		commit := func(epoch uint64) []byte { return sealed("g1", epoch, wire.CommitContent) }
		proposal := sealed("g1", 1, wire.ProposalContent)
		other := object{"convoId": "none"}
		for _, step := range []struct {
			name, who string
			in        object
			want      string // a refusal, or "EPOCH ROLES" as hal sees them
		}{
			{"nobody", "", w.leave(id, "", nil), "401 AuthenticationRequired"},
			{"a stranger", "eve", w.leave(id, "", nil), "403 NotMember"},
			{"no such conversation", "ann", other, "403 NotMember"},
			{"a stranger takes somebody out", "eve", w.leave(id, "ann", commit(0)), "403 NotMember"},
			{"a member takes somebody out", "cid", w.leave(id, "dan", nil), "403 Unauthorized"},
			{"a member takes nobody out", "cid", w.leave(id, "eve", nil), "403 Unauthorized"},
			{"a moderator takes an admin out", "bob", w.leave(id, "fay", nil), "403 Unauthorized"},
			{"an admin takes the owner out", "fay", w.leave(id, "ann", nil), "403 Unauthorized"},
			{"who is not there", "ann", w.leave(id, "eve", nil), "404 TargetNotMember"},
			{"a target that is no DID", "ann", object{"convoId": id, "targetDid": "dan"}, "400 InvalidRequest"},
			{"a commit that is none", "ann", w.leave(id, "dan", []byte("commit")), "400 InvalidRequest"},
			{"a message for a commit", "ann", w.leave(id, "dan", sealed("g1", 0, wire.ApplicationContent)), "400 InvalidRequest"},
			{"a proposal for somebody else", "ann", w.leave(id, "dan", sealed("g1", 0, wire.ProposalContent)), "400 InvalidRequest"},
			{"a commit of another group", "ann", w.leave(id, "dan", sealed("g2", 0, wire.CommitContent)), "400 InvalidRequest"},
			{"a commit of another epoch", "ann", w.leave(id, "dan", commit(1)), "409 EpochConflict"},
			{"a commit that removes its committer", "bob", w.leave(id, "", publicCommit("g1", 0, 1)), "400 InvalidRequest"},
			{"a moderator takes a member out", "bob", w.leave(id, "dan", nil), "0 ann:a bob:m cid fay:a gil hal"},
			{"with a commit", "ann", w.leave(id, "gil", commit(0)), "1 ann:a bob:m cid fay:a hal"},
			{"with the commit again", "ann", w.leave(id, "gil", commit(0)), "1 ann:a bob:m cid fay:a hal"},
			{"a proposal of a lost epoch", "cid", w.leave(id, "", sealed("g1", 0, wire.ProposalContent)), "409 EpochConflict"},
			{"oneself, with a proposal", "cid", w.leave(id, "", proposal), "1 ann:a bob:m fay:a hal"},
			{"with the proposal again", "cid", w.leave(id, "cid", proposal), "1 ann:a bob:m fay:a hal"},
			{"again without", "cid", w.leave(id, "", nil), "403 NotMember"},
			{"the owner, with a commit that does something else", "ann", w.leave(id, "", commit(1)), "2 bob:m fay:a hal"},
			{"with that commit again", "ann", w.leave(id, "", commit(1)), "2 bob:m fay:a hal"},
			{"somebody else's commit", "eve", w.leave(id, "", commit(1)), "403 NotMember"},
			{"the owner without another admin", "fay", w.leave(id, "fay", nil), "2 bob:a hal"},
		} {
			a := w.call(step.who, xrpc.LeaveConvo, step.in)
			if strings.HasPrefix(step.want, "4") {
				if a.refused(step.want); t.Failed() {
					t.Fatal(step.name)
				}
				continue
			}
			var out xrpc.LeaveConvoOutput
			a.into(&out)
			if got := fmt.Sprintf("%d %s", out.NewEpoch, w.roles("hal", id, everybody...)); got != step.want || !out.Success {
				t.Errorf("%s: got %s, want %s", step.name, got, step.want)
			}
			if view := w.convo("hal", id); strings.Split(step.want, " ")[0] != fmt.Sprint(view.Epoch) {
				t.Errorf("%s: the epoch is %d", step.name, view.Epoch)
			}
		}
		w.call("bob", xrpc.LeaveConvo, w.leave(id, "", nil)).fields()
		w.call("hal", xrpc.LeaveConvo, w.leave(id, "", nil)).fields() // the last may leave
		if len(w.convos("hal").Conversations) != 0 {
			t.Error("hal is still there")
		}
		kinds := map[ds.Kind]int{}
		for _, r := range w.records(ds.ConversationLog(ds.ConversationID(id))) {
			kinds[r.Kind]++
		}
		if kinds[ds.Commit] != 2 || kinds[ds.Proposal] != 1 || kinds[ds.Membership] != 8 {
			t.Errorf("records %v", kinds)
		}
		w.call("hal", xrpc.CreateConvo, w.creation(id)).refused("409 ConvoAlreadyExists")
	})
}

// TestLeaveRace has everybody leave at once, with commits of one epoch: one of those
// wins, and there is always one owner.
func TestLeaveRace(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		id := group("g1")
		names := []string{"ann", "bob", "cid", "dan", "fay"}
		w.create(id, append(names, "hal")...)
		var wait sync.WaitGroup
		answers := make([]answer, len(names))
		for i, name := range names {
			commit := wire.Marshal(&wire.Message{WireFormat: wire.PrivateMessageFormat, Private: &wire.PrivateMessage{GroupID: []byte("g1"),
				ContentType: wire.CommitContent, EncryptedSenderData: []byte(name), Ciphertext: []byte("c")}})
			wait.Go(func() { answers[i] = w.callAs(lexicons.B, name, xrpc.LeaveConvo, w.leave(id, "", commit)) })
		}
		wait.Wait()
		good := 0
		for _, a := range answers {
			if a.status == http.StatusOK {
				good++
				continue
			}
			a.refused("409 EpochConflict")
		}
		same(t, "who left", good, 1)
		if roles := w.roles("hal", id, append(names, "hal")...); strings.Count(roles, ":a") != 1 || len(strings.Fields(roles)) != 5 {
			t.Errorf("roles %s", roles)
		}
	})
}
