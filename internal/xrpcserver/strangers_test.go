package xrpcserver

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/mls"
	"waxwing.im/waxwing/mls/wire"
)

// names holds the ids of ann's data, or ids that do not exist.
type names struct {
	convo, message, device, uuid, addition, claimed, ref, free, key, cursor string
	commit, welcome, info                                                   []byte
}

// strangers is a world in which ann has everything that there is, ben and cid are
// members with her, fay was one, and mallory has an account.
type strangers struct {
	*world
	ann, ben, fay *party
	mallory       *phone
	empty         string // a device of mallory's without packages
	real, made    names
}

func newStrangers(w *world) *strangers {
	s := &strangers{world: w, mallory: w.phone("mallory")}
	s.mallory.register(2, nil)
	s.empty = w.phone("mallory").register(1, nil)
	w.call("mallory", xrpc.PublishKeyPackages, object{"action": "sync", "deviceId": s.empty, "localHashes": []string{}}).fields()
	ann, ben, cid, fay := w.phone("ann"), w.phone("ben"), w.phone("cid"), w.phone("fay")
	device := ann.register(3, object{"deviceUUID": "uuid-of-ann", "pushToken": "token of ann"})
	s.ann = ann.start()
	joined := s.ann.add(ben, fay)
	s.ben, s.fay = joined[0], joined[1]
	pending, in := s.ann.adding([]string{w.did("cid")}, cid.published()) // whose Welcome waits
	in["idempotencyKey"] = "ann's key"
	s.ann.change("addMembers", in).fields()
	s.ann.g = pending.Group()
	s.ben.catchUp()
	w.call("ann", xrpc.SendMessage, message(s.ann.id, uuid(1), 2, 512)).fields()
	w.call("ann", xrpc.SendMessage, reaction(s.ann.id, "addReaction", "+", uuid(1))).fields()
	out := s.ann.commit(mls.CommitOptions{Remove: []uint32{s.fay.g.OwnLeaf().Index}})
	s.ann.change("removeMember", object{"memberDids": []string{w.did("fay")}, "commit": blob(out.Message()), "groupInfo": blob(out.GroupInfo())}).fields()
	s.ann.g = out.Group()
	w.phone("ben").register(2, object{"deviceUUID": "another of ben's"}) // an addition to claim, and one that is claimed:
	w.phone("ben").register(2, object{"deviceUUID": "a third of ben's"})
	additions := w.pending("ann")
	if len(additions) < 2 {
		w.t.Fatalf("%d additions", len(additions))
	}
	w.claim("ann", additions[1].ID).fields()
	commit := s.ann.commit(mls.CommitOptions{})
	s.real = names{convo: s.ann.id, message: uuid(1), device: device, uuid: "uuid-of-ann", addition: additions[0].ID, claimed: additions[1].ID,
		ref: w.fetch("ben", "ann")[0], key: "ann's key", cursor: formatCursor(ds.ConversationID(s.ann.id), 3, 0),
		commit: commit.Message(), welcome: pending.Welcome(), info: commit.GroupInfo()}
	free := ann.pack()
	w.publish("ann", nil, free)
	s.real.free = hex.EncodeToString(free.Ref())
	other := w.phone("ann").elsewhere()
	s.made = names{convo: strings.Repeat("ab", 16), message: uuid(9), device: "00000000-0000-4000-8000-000000000000", uuid: "uuid-of-nobody", addition: strings.Repeat("A", len(s.real.addition)),
		claimed: strings.Repeat("B", len(s.real.addition)), ref: strings.Repeat("cd", 32), free: strings.Repeat("ef", 32), key: "nobody's key",
		cursor: formatCursor("another", 3, 0), commit: other.Message(), welcome: pending.Welcome(), info: other.GroupInfo()}
	return s
}

// reaction is the body that changes a reaction.
func reaction(convo, action, emoji, target string) object {
	return object{"convoId": convo, "msgId": uuid(7), "ciphertext": blob(nil), "epoch": 0, "paddedSize": 0, "delivery": "ephemeral",
		"action": action, "reactionEmoji": emoji, "targetMessageId": target}
}

// elsewhere is a commit of a group that the service does not know.
func (p *phone) elsewhere() *mls.PendingCommit {
	g, err := mls.NewGroup(p.key.Suite(), []byte("elsewhere"), p.identity(), mls.GroupOptions{Now: p.w.now})
	must(p.w.t, err)
	pending, err := g.Commit(mls.CommitOptions{})
	must(p.w.t, err)
	return pending
}

// tries returns all calls that a stranger can make with the names of others.
func (s *strangers) tries(n names) map[string]goodCall {
	ann, ben := s.did("ann"), s.did("ben")
	all := map[string]goodCall{}
	post := func(name, nsid string, in object) { all[name] = goodCall{nsid, in} }
	get := func(name, nsid string, pairs ...string) { all[name] = goodCall{nsid, params(pairs...)} }

	post("claim an addition as of a device", xrpc.RegisterDevice, change(object{"action": "claimPendingAddition", "pendingAdditionId": n.addition}))
	post("claim a claimed addition as of a device", xrpc.RegisterDevice, change(object{"action": "claimPendingAddition", "pendingAdditionId": n.claimed}))
	post("complete an addition as of a device", xrpc.RegisterDevice, change(object{"action": "completePendingAddition", "pendingAdditionId": n.claimed}))
	post("token of a device by uuid", xrpc.RegisterDevice, change(object{"pushToken": "mine", "deviceUUID": n.uuid}))
	post("remove the token of a device by uuid", xrpc.RegisterDevice, change(object{"action": "removeToken", "deviceUUID": n.uuid}))
	post("delete a device by uuid", xrpc.RegisterDevice, change(object{"action": "delete", "deviceUUID": n.uuid}))
	get("additions of a conversation", xrpc.GetPendingDevices, "convoIds", n.convo)

	post("publish for a device", xrpc.PublishKeyPackages, object{"action": "publishBatch", "deviceId": n.device, "keyPackages": []object{s.item(s.mallory.pack())}})
	post("publish for a device by uuid", xrpc.PublishKeyPackages, object{"action": "publishBatch", "deviceId": n.uuid, "keyPackages": []object{s.item(s.mallory.pack())}})
	post("sync a device", xrpc.PublishKeyPackages, object{"action": "sync", "deviceId": n.device, "localHashes": []string{}})
	post("sync a device by its full name", xrpc.PublishKeyPackages, object{"action": "sync", "deviceId": ann + "#" + n.device, "localHashes": []string{}})
	post("sync packages", xrpc.PublishKeyPackages, object{"action": "sync", "deviceId": s.empty, "localHashes": []string{n.free}})
	post("count a device", xrpc.PublishKeyPackages, object{"action": "stats", "deviceId": n.device})
	post("replenish a conversation", xrpc.PublishKeyPackages, object{"action": "requestReplenish", "convoId": n.convo})
	post("replenish members of a conversation", xrpc.PublishKeyPackages, object{"action": "requestReplenish", "convoId": n.convo, "targetDids": []string{ann, ben}})
	get("what is left of packages", xrpc.GetKeyPackageStatus, "did", ann, "include", "stats,status,history")

	post("create with the packages of another as one's own", xrpc.CreateConvo, s.with(s.creation(group("m")), "welcomeMessage", blob(n.welcome),
		"keyPackageHashes", []object{{"did": s.did("mallory"), "hash": n.free}}))
	get("conversations of a device", xrpc.GetConvos, "deviceId", n.device, "filter", "expected")
	get("conversations from a cursor", xrpc.GetConvos, "cursor", convosCursor(viewOf(n.convo)))
	get("settings", xrpc.GetConvoSettings, "convoId", n.convo)
	for _, action := range []string{"promoteAdmin", "promoteModerator", "demoteAdmin", "demoteModerator", "refreshGroupInfo", "getAdminStats"} {
		post(action, xrpc.UpdateConvo, object{"convoId": n.convo, "action": action, "targetDid": ann})
		post(action+" oneself", xrpc.UpdateConvo, object{"convoId": n.convo, "action": action, "targetDid": s.did("mallory")})
	}
	post("change rules", xrpc.UpdateConvo, object{"convoId": n.convo, "action": "updatePolicy", "policy": object{"allowExternalCommits": true}})
	post("upload a GroupInfo", xrpc.UpdateConvo, object{"convoId": n.convo, "action": "updateGroupInfo", "groupInfo": blob(n.info), "epoch": epochIn(s.t, n.info)})
	post("leave", xrpc.LeaveConvo, object{"convoId": n.convo})
	post("leave with a commit", xrpc.LeaveConvo, object{"convoId": n.convo, "commit": blob(n.commit)})
	post("remove ann", xrpc.LeaveConvo, object{"convoId": n.convo, "targetDid": ann})
	post("remove ann with a commit", xrpc.LeaveConvo, object{"convoId": n.convo, "targetDid": ann, "commit": blob(n.commit)})

	post("send", xrpc.SendMessage, message(n.convo, uuid(5), 3, 512))
	post("send to a past epoch", xrpc.SendMessage, message(n.convo, uuid(5), 0, 512))
	post("send a message again", xrpc.SendMessage, message(n.convo, n.message, 2, 512))
	post("type", xrpc.SendMessage, s.with(message(n.convo, uuid(5), 0, 512), "delivery", "ephemeral"))
	post("react", xrpc.SendMessage, reaction(n.convo, "addReaction", "+", n.message))
	post("take a reaction back", xrpc.SendMessage, reaction(n.convo, "removeReaction", "+", n.message))
	post("send something that passes", xrpc.SendEphemeral, object{"convoId": n.convo, "ciphertext": blob([]byte("x")), "epoch": 0, "paddedSize": 1})
	for what, in := range map[string]object{"cursor": {"cursor": n.cursor}, "seq": {"cursor": "1"}, "ulid": {"cursor": ulid}, "message": {"messageId": n.message}, "everything": {"markRead": true}} {
		in["convoId"] = n.convo
		post("read up to a "+what, xrpc.UpdateCursor, in)
	}
	get("messages", xrpc.GetMessages, "convoId", n.convo)
	get("messages since a join", xrpc.GetMessages, "convoId", n.convo, "joinEpoch", "2", "type", "commit")
	get("where messages are", xrpc.GetDeliveryStatus, "convoId", n.convo, "messageIds", n.message)
	post("failover", xrpc.RequestFailover, object{"convoId": n.convo})
	post("ticket", xrpc.GetSubscriptionTicket, object{"convoIds": []string{n.convo}})

	for _, include := range []string{"", "epoch", "groupInfo", "welcome", "groupInfo,epoch,welcome"} {
		get("state "+include, xrpc.GetGroupState, "convoId", n.convo, "include", include)
	}
	get("the welcome for packages of another", xrpc.GetGroupState, "convoId", n.convo, "include", "welcome", "keyPackageHashes", n.ref, "deviceId", n.device)
	for action, more := range map[string]object{
		"addMembers": {"memberDids": []string{s.did("mallory")}, "commit": blob(n.commit), "welcome": blob(n.welcome)}, "removeMember": {"memberDids": []string{ann}, "commit": blob(n.commit)},
		"commit": {"commit": blob(n.commit)}, "readdition": {}, "updateGroupInfo": {"groupInfo": blob(n.info)}, "refreshGroupInfo": {}, "confirmWelcome": {},
		"invalidateWelcome": {"keyPackageHashes": []object{{"did": s.did("cid"), "hash": n.ref}}}, "listPending": {},
	} {
		more["convoId"], more["action"] = n.convo, action
		post("group: "+action, xrpc.CommitGroupChange, more)
	}
	post("group: a key of ann's", xrpc.CommitGroupChange, object{"convoId": n.convo, "action": "commit", "commit": blob(n.commit), "idempotencyKey": n.key})
	post("group: claim", xrpc.CommitGroupChange, object{"convoId": n.convo, "action": "claimPending", "pendingAdditionId": n.addition})
	post("group: claim without a conversation", xrpc.CommitGroupChange, object{"convoId": "", "action": "claimPending", "pendingAdditionId": n.claimed})
	post("group: complete", xrpc.CommitGroupChange, object{"convoId": "", "action": "completePending", "pendingAdditionId": n.claimed})
	return all
}

// viewOf is a conversation as far as a cursor names it.
func viewOf(convo string) *ds.View {
	return &ds.View{Conversation: ds.Conversation{ID: ds.ConversationID(convo)}, JoinedMS: 1}
}

func epochIn(t testing.TB, info []byte) uint64 {
	t.Helper()
	var m wire.Message
	must(t, wire.Unmarshal(info, &m))
	return m.GroupInfo.Context.Epoch
}

// TestStrangers: mallory tries with ann's names whatever there is to try. It changes
// nothing, and the answer is the same, letter by letter, as for names of nothing.
func TestStrangers(t *testing.T) {
	onBothStored(t, func(t *testing.T, w *world, stored *database) {
		s := newStrangers(w)
		real, made := s.tries(s.real), s.tries(s.made)
		if len(real) < 60 {
			t.Errorf("only %d tries", len(real))
		}
		before := stored.contents()
		for name, call := range real {
			a, b := w.do(w.request("mallory", call.nsid, call.in), call.nsid), w.do(w.request("mallory", made[name].nsid, made[name].in), call.nsid)
			if got, want := s.nameless(a), s.nameless(b); got != want {
				t.Errorf("%s: what is there is answered %s, what is not %s", name, got, want)
			}
			for _, secret := range []string{w.did("ann"), w.did("ben"), s.real.device, "phone"} {
				if strings.Contains(string(a.body), secret) && !strings.Contains(fmt.Sprint(call.in), secret) {
					t.Errorf("%s tells %s: %s", name, secret, a.body)
				}
			}
			if a.status == 200 && !harmless[name] {
				t.Errorf("%s: %s", name, a.body)
			}
		}
		stored.unchanged("mallory's tries", before)
	})
}

// harmless are the tries that are answered: with nothing but what is the caller's own.
var harmless = map[string]bool{"delete a device by uuid": true, "additions of a conversation": true, "sync packages": true, "count a device": true,
	"replenish a conversation": true, "replenish members of a conversation": true, "conversations of a device": true, "conversations from a cursor": true,
	"group: listPending": true, "complete an addition as of a device": true}

// nameless is an answer without the names that were asked for.
func (s *strangers) nameless(a answer) string {
	text := fmt.Sprintf("%d %s", a.status, a.body)
	for _, n := range []names{s.real, s.made} {
		for what, name := range map[string]string{"convo": n.convo, "message": n.message, "device": n.device, "uuid": n.uuid, "ref": n.ref, "free": n.free} {
			text = strings.ReplaceAll(text, name, what)
		}
	}
	return text
}

// own holds the calls that are answered to former members: about their time as members, the
// epoch, which they need to ask to be added again, and about their own key packages.
var own = map[string]bool{"send a message again": true, "state epoch": true, "state welcome": true, "state groupInfo,epoch,welcome": true,
	"the welcome for packages of another": true, "publish for a device": true, "publish for a device by uuid": true, "group: invalidateWelcome": true}

// TestFormerMembers: who was removed is refused all that a stranger is, but for what is
// its own. It gets no GroupInfo, by which it could come back.
func TestFormerMembers(t *testing.T) {
	onBothStored(t, func(t *testing.T, w *world, stored *database) {
		s := newStrangers(w)
		real, made := s.tries(s.real), s.tries(s.made)
		before := stored.contents()
		for name, call := range real {
			if strings.Contains(name, "refreshGroupInfo") || strings.Contains(name, "confirmWelcome") {
				continue // which they may ask for
			}
			a, b := w.do(w.request("fay", call.nsid, call.in), call.nsid), w.do(w.request("fay", made[name].nsid, made[name].in), call.nsid)
			if got, want := s.nameless(a), s.nameless(b); got != want && !own[name] && !strings.HasPrefix(name, "state ") {
				t.Errorf("%s: what is there is answered %s, what is not %s", name, got, want)
			}
			if a.status == 200 && !harmless[name] && !own[name] || strings.Contains(string(a.body), `"groupInfo":`) {
				t.Errorf("%s: %s", name, a.body)
			}
		}
		stored.unchanged("fay's tries", before)
	})
}
