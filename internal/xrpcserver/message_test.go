package xrpcserver

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/lexicons"
	"waxwing.im/waxwing/mls/wire"
)

// talk makes a conversation of people, owned by the first.
func (w *world) talk(id string, names ...string) {
	w.t.Helper()
	var others []ds.AccountID
	for _, name := range names[1:] {
		others = append(others, ds.AccountID(w.did(name)))
	}
	must(w.t, w.apply(w.caller(names[0]), core.Create{ConversationID: ds.ConversationID(id), Accounts: others}))
}

func (w *world) caller(name string) ds.Caller { return ds.Caller{Account: ds.AccountID(w.did(name))} }

// message is the body of a sendMessage that is as it should be.
func message(convo, id string, epoch int, bytes int) object {
	return object{"convoId": convo, "msgId": id, "ciphertext": blob(filled(bytes)), "epoch": epoch, "paddedSize": bytes}
}

// with is o with fields set otherwise; nil takes one out.
func (w *world) with(o object, pairs ...any) object {
	for i := 0; i < len(pairs); i += 2 {
		if o[pairs[i].(string)] = pairs[i+1]; pairs[i+1] == nil {
			delete(o, pairs[i].(string))
		}
	}
	return o
}

func filled(n int) []byte { return bytes.Repeat([]byte{0xee}, n) }

// uuid is the nth UUID of a test.
func uuid(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

const ulid = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

// sealed is an MLS message of a group as it shows itself to a server.
func sealed(group string, epoch uint64, content wire.ContentType) []byte {
	return wire.Marshal(&wire.Message{WireFormat: wire.PrivateMessageFormat, Private: &wire.PrivateMessage{
		GroupID: []byte(group), Epoch: epoch, ContentType: content, EncryptedSenderData: []byte("s"), Ciphertext: make([]byte, 600)}})
}

// TestSendMessageRefusals has a row for each refusal of sendMessage.
func TestSendMessageRefusals(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.talk("c1", "ann", "bob")
		must(t, w.bindTo("c1", "ann", "group-1", 0)) // and so in epoch 1
		good := func() object { return message("c1", uuid(1), 1, 512) }
		tests := []struct {
			name, who string
			in        any
			want      string
		}{
			{"nobody", "", good(), "401 AuthenticationRequired"},
			{"a stranger", "eve", good(), "403 NotMember"},
			{"no such conversation", "ann", w.with(good(), "convoId", "c2"), "403 NotMember"},
			{"a conversation without a name", "ann", w.with(good(), "convoId", ""), "400 InvalidRequest"},
			{"a conversation with too long a name", "ann", w.with(good(), "convoId", strings.Repeat("a", 129)), "400 InvalidRequest"},
			{"no msgId", "ann", w.with(good(), "msgId", nil), "400 InvalidRequest"},
			{"a msgId that is too short", "ann", w.with(good(), "msgId", ulid[:25]), "400 InvalidRequest"},
			{"a msgId of other characters", "ann", w.with(good(), "msgId", ulid[:25]+"_"), "400 InvalidRequest"},
			{"a msgId that is nearly a UUID", "ann", w.with(good(), "msgId", uuid(1)[:35]+"g"), "400 InvalidRequest"},
			{"no ciphertext", "ann", w.with(good(), "ciphertext", nil), "400 InvalidRequest"},
			{"an empty ciphertext", "ann", w.with(good(), "ciphertext", blob(nil), "paddedSize", 0), "400 InvalidRequest"},
			{"a ciphertext that is text", "ann", w.with(good(), "ciphertext", text(filled(512))), "400 InvalidRequest"},
			{"a ciphertext with something beside it", "ann", w.with(good(), "ciphertext", object{"$bytes": text(filled(512)), "x": 1}), "400 InvalidRequest"},
			{"another paddedSize", "ann", w.with(good(), "paddedSize", 1024), "400 InvalidRequest"},
			{"no padding", "ann", message("c1", uuid(1), 1, 513), "400 InvalidRequest"},
			{"a bucket of nobody", "ann", message("c1", uuid(1), 1, 8192+4096), "400 InvalidRequest"},
			{"a negative epoch", "ann", w.with(good(), "epoch", -1), "400 InvalidRequest"},
			{"an epoch of another size", "ann", w.with(good(), "epoch", 1.5), "400 InvalidRequest"},
			{"a stale epoch", "ann", w.with(good(), "epoch", 0), "409 EpochMismatch"},
			{"an epoch to come", "ann", w.with(good(), "epoch", 2), "409 EpochMismatch"},
			{"an epoch beyond 32 bits", "ann", w.with(good(), "epoch", int64(1)<<32+1), "409 EpochMismatch"},
			{"another delivery", "ann", w.with(good(), "delivery", "pigeon"), "400 InvalidRequest"},
			{"too long a tag", "ann", w.with(good(), "confirmationTag", blob(filled(65))), "400 InvalidRequest"},
			{"a paddedSize beyond everything", "ann", w.with(good(), "paddedSize", 10<<20+8192), "400 MessageTooLarge"},
			{"a commit", "ann", w.sealedMessage("c1", uuid(2), "group-1", 1, wire.CommitContent), "400 InvalidRequest"},
			{"a proposal", "ann", w.sealedMessage("c1", uuid(2), "group-1", 1, wire.ProposalContent), "400 InvalidRequest"},
			{"a message of another group", "ann", w.sealedMessage("c1", uuid(2), "group-2", 1, wire.ApplicationContent), "400 InvalidRequest"},
			{"a message of another epoch than it says", "ann", w.with(w.sealedMessage("c1", uuid(2), "group-1", 0, wire.ApplicationContent), "epoch", 1), "400 InvalidRequest"},
			{"a body that is cut off", "ann", `{"convoId":"c1"`, "400 InvalidRequest"},
			{"a body that is no object", "ann", `[]`, "400 InvalidRequest"},
		}
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				a := w.call(test.who, xrpc.SendMessage, test.in)
				a.t = t
				a.refused(test.want)
			})
		}
		if got := len(w.messages("bob", "c1").Messages); got != 1 { // the commit that bound it
			t.Errorf("%d messages are there after nothing but refusals and a commit", got)
		}
	})
}

// bindTo binds a conversation to a group with a commit out of an epoch.
func (w *world) bindTo(convo, name, group string, epoch uint64) error {
	_, err := w.core.Apply(context.Background(), w.caller(name), core.Send{ConversationID: ds.ConversationID(convo),
		ID: ds.MessageID(fmt.Sprint("commit-", epoch)), Body: sealed(group, epoch, wire.CommitContent), Encoding: ds.Binary})
	return err
}

// sealedMessage is a sendMessage of an MLS message. Those are never of the size of a
// bucket by themselves, so this one's ciphertext is filled up.
func (w *world) sealedMessage(convo, id, group string, epoch uint64, content wire.ContentType) object {
	short := wire.Marshal(&wire.Message{WireFormat: wire.PrivateMessageFormat, Private: &wire.PrivateMessage{
		GroupID: []byte(group), Epoch: epoch, ContentType: content, EncryptedSenderData: []byte("s"), Ciphertext: make([]byte, 500)}})
	body := wire.Marshal(&wire.Message{WireFormat: wire.PrivateMessageFormat, Private: &wire.PrivateMessage{
		GroupID: []byte(group), Epoch: epoch, ContentType: content, EncryptedSenderData: []byte("s"), Ciphertext: make([]byte, 500+1024-len(short))}})
	if len(body) != 1024 {
		w.t.Fatalf("the message has %d bytes", len(body))
	}
	return object{"convoId": convo, "msgId": id, "ciphertext": blob(body), "epoch": epoch, "paddedSize": len(body)}
}

func (w *world) messages(name, convo string, pairs ...string) xrpc.GetMessagesOutput {
	w.t.Helper()
	var out xrpc.GetMessagesOutput
	w.call(name, xrpc.GetMessages, params(append([]string{"convoId", convo}, pairs...)...)).into(&out)
	return out
}

func (w *world) send(name string, in any) xrpc.SendMessageOutput {
	w.t.Helper()
	var out xrpc.SendMessageOutput
	w.call(name, xrpc.SendMessage, in).into(&out)
	return out
}

func TestSendMessage(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.talk("c1", "ann", "bob")
		w.talk("c2", "ann", "eve")
		first := w.send("ann", message("c1", uuid(1), 0, 512))
		if first.MessageID != uuid(1) || first.Seq != 1 || first.Epoch != 0 {
			t.Errorf("the first message: %+v", first)
		}
		if got := first.ReceivedAt.UnixMilli(); got != 1_800_000_000_000 {
			t.Errorf("received at %d, which is not rounded to two seconds", got)
		}
		if got := w.send("bob", message("c1", ulid, 0, 81_920)); got.Seq != 2 { // black-box check 15
			t.Errorf("a large one: %+v", got)
		}
		// Black-box check 12: the same id in another conversation is another message.
		if got := w.send("ann", message("c2", uuid(1), 0, 1024)); got.Seq != 1 {
			t.Errorf("in another conversation: %+v", got)
		}
		page := w.messages("bob", "c1")
		if len(page.Messages) != 2 || *page.LastSeq != 2 {
			t.Fatalf("%+v", page)
		}
		one := page.Messages[1]
		if one.ID != ulid || one.ConvoID != "c1" || one.MessageType != "app" || !bytes.Equal(one.Ciphertext, filled(81_920)) || one.CreatedAt.UnixMilli() != 1_800_000_000_000 {
			t.Errorf("the message is shown as %s %s %s %d bytes %v", one.ID, one.ConvoID, one.MessageType, len(one.Ciphertext), one.CreatedAt)
		}
		body := w.call("bob", xrpc.GetMessages, params("convoId", "c1")).body
		if bytes.Contains(body, []byte(w.did("ann"))) || bytes.Contains(body, []byte("sender")) {
			t.Error("getMessages names a sender")
		}
	})
}

// TestSendMessageAgain: a retry has the first answer, whatever happened since (F-20).
func TestSendMessageAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.talk("c1", "ann", "bob")
		must(t, w.bindTo("c1", "ann", "group-1", 0))
		first := w.send("bob", message("c1", uuid(1), 1, 512))
		must(t, w.bindTo("c1", "ann", "group-1", 1))
		w.later.Add(10_000)
		again := message("c1", uuid(1), 1, 512)
		for name, in := range map[string]object{
			"as it was":            again,
			"base64 of URLs":       w.with(message("c1", uuid(1), 1, 512), "ciphertext", object{"$bytes": base64.RawURLEncoding.EncodeToString(filled(512))}),
			"in the epoch of now":  message("c1", uuid(1), 2, 512),
			"another body even":    message("c1", uuid(1), 1, 1024),
			"with a key of A":      w.with(message("c1", uuid(1), 1, 512), "idempotencyKey", "k"),
			"with a wrong tag yet": w.with(message("c1", uuid(1), 1, 512), "confirmationTag", blob([]byte("other"))),
		} {
			if got := w.send("bob", in); got != first {
				t.Errorf("%s: %+v, at first it was %+v", name, got, first)
			}
		}
		// Another member's retry of a stranger's id is no oracle of more than that.
		w.call("eve", xrpc.SendMessage, again).refused("403 NotMember")
		// An id that stands for something else is refused.
		must(t, w.apply(w.caller("ann"), core.Create{ConversationID: "c3", Accounts: nil}))
		_, err := w.core.Apply(context.Background(), w.caller("ann"), core.Send{ConversationID: "c3", ID: ds.MessageID(uuid(9)), Body: sealed("group-3", 0, wire.CommitContent), Encoding: ds.Binary})
		must(t, err)
		w.call("ann", xrpc.SendMessage, message("c3", uuid(9), 1, 512)).refused("400 InvalidRequest")
		if got := w.messages("ann", "c1", "type", "app"); len(got.Messages) != 1 {
			t.Errorf("%d messages of one", len(got.Messages))
		}
	})
}

// TestConcurrentSends are black-box checks 17, 18 and 31: nothing fails, no seq is given
// twice, everybody sees everything.
func TestConcurrentSends(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		const people, each = 10, 10
		var names []string
		for i := range people {
			names = append(names, fmt.Sprint("p", i))
		}
		w.talk("c1", names...)
		var wait sync.WaitGroup
		var mu sync.Mutex // guards seqs
		seqs := map[int64]bool{}
		for i := range people {
			for j := range each {
				wait.Go(func() {
					var out xrpc.SendMessageOutput
					w.call(names[i], xrpc.SendMessage, message("c1", uuid(i*each+j), 0, 512)).into(&out)
					mu.Lock()
					defer mu.Unlock()
					if seqs[out.Seq] || out.Seq < 1 || out.Seq > people*each {
						t.Errorf("seq %d was given twice or never should", out.Seq)
					}
					seqs[out.Seq] = true
				})
			}
		}
		wait.Wait()
		for _, name := range names {
			wait.Go(func() {
				if got := w.all(name, "c1", 100); got != people*each {
					t.Errorf("%s sees %d messages", name, got)
				}
			})
		}
		wait.Wait()
	})
}

// all pages through a conversation as clients do (black-box checks 16 and 21) and counts.
func (w *world) all(name, convo string, limit int) int {
	count, since := 0, int64(0)
	for {
		page := w.messages(name, convo, "limit", strconv.Itoa(limit), "sinceSeq", strconv.FormatInt(since, 10))
		if len(page.Messages) == 0 {
			return count
		}
		for _, m := range page.Messages {
			if m.Seq != since+1 {
				w.t.Errorf("seq %d follows %d", m.Seq, since)
			}
			since = m.Seq
		}
		if *page.LastSeq != since {
			w.t.Errorf("lastSeq %d, the last is %d", *page.LastSeq, since)
		}
		count += len(page.Messages)
	}
}

func TestGetMessages(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.talk("c1", "ann", "bob")
		w.talk("c2", "ann")
		if got := w.messages("ann", "c2"); got.Messages == nil || len(got.Messages) != 0 || got.LastSeq != nil { // black-box check 14
			t.Errorf("an empty conversation: %+v", got)
		}
		// 1 a, 2 commit (epoch 1), 3 b, 4 proposal, 5 commit (2), 6 c, 7 commit (3), 8 d
		group := "group-1"
		w.send("ann", message("c1", uuid(1), 0, 512))
		must(t, w.bindTo("c1", "ann", group, 0))
		w.send("bob", message("c1", uuid(3), 1, 512))
		_, err := w.core.Apply(context.Background(), w.caller("bob"), core.Send{ConversationID: "c1", ID: "proposal", Body: sealed(group, 1, wire.ProposalContent), Encoding: ds.Base64})
		must(t, err)
		must(t, w.bindTo("c1", "ann", group, 1))
		w.send("bob", message("c1", uuid(6), 2, 512))
		must(t, w.bindTo("c1", "ann", group, 2))
		w.send("bob", message("c1", uuid(8), 3, 512))
		w.call("bob", xrpc.SendMessage, w.reaction("c1", uuid(8), "addReaction", "👍")).fields()

		tests := []struct {
			query, want string
			suppressed  int64
		}{
			{"", "1app0 2commit1 3app1 4app1 5commit2 6app2 7commit3 8app3", -1},
			{"type=all&limit=100", "1app0 2commit1 3app1 4app1 5commit2 6app2 7commit3 8app3", -1},
			{"type=app", "1app0 3app1 6app2 8app3", -1},
			{"type=commit", "2commit1 5commit2 7commit3", -1},
			{"type=commits&sinceSeq=2", "5commit2 7commit3", -1},
			{"type=commit&limit=1&sinceSeq=2", "5commit2", -1},
			{"type=app&limit=2&sinceSeq=1", "3app1 6app2", -1},
			{"limit=3&sinceSeq=0", "1app0 2commit1 3app1", -1},
			{"sinceSeq=8", "", -1},
			{"sinceSeq=1000", "", -1},
			{"sinceSeq=9223372036854775806", "", -1},
			{"type=commit&fromEpoch=2", "5commit2 7commit3", -1},
			{"type=commit&toEpoch=2", "2commit1 5commit2", -1},
			{"type=commit&fromEpoch=2&toEpoch=2", "5commit2", -1},
			{"fromEpoch=3&type=all", "1app0 3app1 4app1 6app2 7commit3 8app3", -1},
			{"joinEpoch=0", "1app0 2commit1 3app1 4app1 5commit2 6app2 7commit3 8app3", 0},
			{"joinEpoch=2", "5commit2 6app2 7commit3 8app3", 4},
			{"joinEpoch=2&sinceSeq=3", "5commit2 6app2 7commit3 8app3", 1},
			{"joinEpoch=2&sinceSeq=6", "7commit3 8app3", 0},
			{"joinEpoch=2&type=commit", "5commit2 7commit3", 1},
			{"joinEpoch=2&type=app", "6app2 8app3", 3},
			{"joinEpoch=4", "", 8},
		}
		for _, test := range tests {
			query, err := url.ParseQuery(test.query)
			must(t, err)
			query.Set("convoId", "c1")
			var out xrpc.GetMessagesOutput
			w.call("ann", xrpc.GetMessages, query).into(&out)
			var got []string
			for _, m := range out.Messages {
				got = append(got, fmt.Sprint(m.Seq, m.MessageType, m.Epoch))
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("%s: %v, want %s", test.query, got, test.want)
			}
			suppressed := int64(-1)
			if out.SuppressedBeforeJoin != nil {
				suppressed = *out.SuppressedBeforeJoin
			}
			if suppressed != test.suppressed {
				t.Errorf("%s: %d suppressed, want %d", test.query, suppressed, test.suppressed)
			}
			if out.GapInfo == nil || out.GapInfo.HasGaps || out.GapInfo.TotalMessages != 8 {
				t.Errorf("%s: %+v", test.query, out.GapInfo)
			}
		}
		for _, test := range []struct{ who, query, want string }{
			{"ann", "", "400 InvalidRequest"},
			{"eve", "convoId=c1", "403 NotMember"},
			{"ann", "convoId=c9", "403 NotMember"},
			{"ann", "convoId=c1&limit=0", "400 InvalidRequest"},
			{"ann", "convoId=c1&limit=101", "400 InvalidRequest"},
			{"ann", "convoId=c1&limit=9223372036854775807", "400 InvalidRequest"},
			{"ann", "convoId=c1&sinceSeq=-1", "400 InvalidRequest"},
			{"ann", "convoId=c1&sinceSeq=9223372036854775807", "400 InvalidRequest"},
			{"ann", "convoId=c1&sinceSeq=x", "400 InvalidRequest"},
			{"ann", "convoId=c1&type=votes", "400 InvalidRequest"},
			{"ann", "convoId=c1&fromEpoch=3&toEpoch=2", "400 InvalidRequest"},
		} {
			query, err := url.ParseQuery(test.query)
			must(t, err)
			w.call(test.who, xrpc.GetMessages, query).refused(test.want)
		}
	})
}

// TestLeftMembersReadNothing: who has left is refused, and who comes back sees all.
func TestLeftMembersReadNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.talk("c1", "ann", "bob")
		w.send("ann", message("c1", uuid(1), 0, 512))
		must(t, w.apply(w.caller("bob"), core.Leave{ConversationID: "c1"}))
		w.call("bob", xrpc.GetMessages, params("convoId", "c1")).refused("403 NotMember")
		w.call("bob", xrpc.SendMessage, message("c1", uuid(2), 0, 512)).refused("403 NotMember")
		w.send("ann", message("c1", uuid(3), 0, 512))
		must(t, w.apply(w.caller("ann"), core.Invite{ConversationID: "c1", Accounts: []ds.AccountID{ds.AccountID(w.did("bob"))}}))
		if got := len(w.messages("bob", "c1").Messages); got != 2 {
			t.Errorf("%d messages are seen after coming back", got)
		}
	})
}

func (w *world) reaction(convo, target, action, emoji string) object {
	return object{"convoId": convo, "msgId": uuid(77), "ciphertext": blob(nil), "epoch": 0, "paddedSize": 0,
		"delivery": "ephemeral", "action": action, "reactionEmoji": emoji, "targetMessageId": target}
}

func TestReactions(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.talk("c1", "ann", "bob")
		w.talk("c2", "eve")
		w.send("ann", message("c1", uuid(1), 0, 512))
		must(t, w.bindTo("c1", "ann", "group-1", 0))
		emoji := "👩‍👩‍👧" // of 18 bytes
		for _, step := range []struct{ name, who, convo, target, action, emoji, want string }{
			{"the first", "bob", "c1", uuid(1), "addReaction", "👍", "200 "},
			{"again", "bob", "c1", uuid(1), "addReaction", "👍", "409 ReactionExists"},
			{"another of the same", "bob", "c1", uuid(1), "addReaction", "👎", "200 "},
			{"the same of another", "ann", "c1", uuid(1), "addReaction", "👍", "200 "},
			{"taking it back", "bob", "c1", uuid(1), "removeReaction", "👍", "200 "},
			{"and again", "bob", "c1", uuid(1), "removeReaction", "👍", "404 ReactionNotFound"},
			{"once more", "bob", "c1", uuid(1), "addReaction", "👍", "200 "},
			{"taking back what was not said", "ann", "c1", uuid(1), "removeReaction", "👎", "404 ReactionNotFound"},
			{"to nothing", "bob", "c1", uuid(2), "addReaction", "👍", "404 MessageNotFound"},
			{"to a commit", "bob", "c1", "commit-0", "addReaction", "👍", "404 MessageNotFound"},
			{"from outside", "eve", "c1", uuid(1), "addReaction", "👍", "403 NotMember"},
			{"in another conversation", "eve", "c2", uuid(1), "addReaction", "👍", "404 MessageNotFound"},
			{"of nothing", "bob", "c1", uuid(1), "addReaction", "", "400 InvalidReaction"},
			{"of 16 bytes", "bob", "c1", uuid(1), "addReaction", strings.Repeat("👍", 4), "200 "},
			{"of more", "bob", "c1", uuid(1), "addReaction", emoji, "400 InvalidReaction"},
			{"of control characters", "bob", "c1", uuid(1), "addReaction", "a\x01", "400 InvalidReaction"},
			{"of another kind", "bob", "c1", uuid(1), "likeReaction", "👍", "400 InvalidRequest"},
			{"without a target", "bob", "c1", "", "addReaction", "👍", "400 InvalidRequest"},
		} {
			t.Run(step.name, func(t *testing.T) {
				a := w.call(step.who, xrpc.SendMessage, w.reaction(step.convo, step.target, step.action, step.emoji))
				a.t = t
				if a.status != 200 {
					a.refused(step.want)
					return
				}
				var out xrpc.SendMessageOutput
				a.into(&out)
				if step.want != "200 " || out.MessageID != uuid(77) || out.Seq != 0 || out.Epoch != 1 || out.ReceivedAt.UnixMilli() != 1_800_000_000_000 || out.Success == nil || !*out.Success {
					t.Errorf("%s, want %s", a.body, step.want)
				}
			})
		}
		// A member with reactions of its own kind cannot fill the table.
		for i := range 40 {
			a := w.call("ann", xrpc.SendMessage, w.reaction("c1", uuid(1), "addReaction", fmt.Sprint("x", i)))
			if want := i < 31; (a.status == 200) != want { // one stands already
				t.Fatalf("reaction %d of one account: %d %s", i, a.status, a.body)
			}
		}
	})
}

// TestConcurrentReactions: of the same reactions at once one comes, and one goes.
func TestConcurrentReactions(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.talk("c1", "ann")
		w.send("ann", message("c1", uuid(1), 0, 512))
		for _, action := range []string{"addReaction", "removeReaction", "addReaction"} {
			var mu sync.Mutex // guards good
			good := 0
			var wait sync.WaitGroup
			for range 8 {
				wait.Go(func() {
					if a := w.call("ann", xrpc.SendMessage, w.reaction("c1", uuid(1), action, "👍")); a.status == 200 {
						mu.Lock()
						good++
						mu.Unlock()
					}
				})
			}
			wait.Wait()
			if good != 1 {
				t.Errorf("%s: %d of 8 at once succeeded", action, good)
			}
		}
	})
}

// TestPassingMessages: what is not kept needs no epoch and no padding, and is answered
// like everything else.
func TestPassingMessages(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.talk("c1", "ann", "bob")
		must(t, w.bindTo("c1", "ann", "group-1", 0))
		for name, body := range map[string][]byte{"no-op": {1}, "nothing": nil, "a message": sealed("group-1", 0, wire.ApplicationContent)} {
			out := w.send("ann", w.with(message("c1", uuid(1), 0, 0), "ciphertext", blob(body), "paddedSize", 7, "delivery", "ephemeral"))
			if out.MessageID != uuid(1) || out.Seq != 0 || out.Epoch != 0 || out.ReceivedAt.UnixMilli() != 1_800_000_000_000 {
				t.Errorf("%s: %+v", name, out)
			}
		}
		w.call("eve", xrpc.SendMessage, w.with(message("c1", uuid(1), 0, 512), "delivery", "ephemeral")).refused("403 NotMember")

		ephemeral := func(convo string, bytes, padded int) object {
			return object{"convoId": convo, "ciphertext": blob(filled(bytes)), "epoch": 0, "paddedSize": padded}
		}
		var out xrpc.SendEphemeralOutput
		w.callAs(lexicons.A, "ann", xrpc.SendEphemeral, ephemeral("c1", 99, 99)).into(&out)
		if _, _, ok := parseCursor("c1", out.Cursor); !ok {
			t.Errorf("cursor %q", out.Cursor)
		}
		for _, test := range []struct {
			who  string
			in   object
			want string
		}{
			{"eve", ephemeral("c1", 99, 99), "403 NotMember"},
			{"ann", ephemeral("c9", 99, 99), "403 NotMember"},
			{"ann", ephemeral("c1", 99, 98), "400 InvalidPadding"},
			{"ann", ephemeral("c1", 0, 0), "400 InvalidRequest"},
		} {
			w.callAs(lexicons.A, test.who, xrpc.SendEphemeral, test.in).refused(test.want)
		}
		if got := len(w.messages("bob", "c1").Messages); got != 1 {
			t.Errorf("%d messages were kept besides the commit", got-1)
		}
	})
}
