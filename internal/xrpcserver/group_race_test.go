package xrpcserver

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/lexicons"
	"waxwing.im/waxwing/mls"
)

// commitUntilWon commits again and again until one wins, catching up in between.
func (p *party) commitUntilWon(t *testing.T) {
	for range 100 {
		pending, err := p.g.Commit(mls.CommitOptions{})
		if err != nil {
			t.Error(err)
			return
		}
		a := p.change("commit", object{"commit": blob(pending.Message())})
		if a.status == http.StatusOK {
			p.g = pending.Group()
			return
		}
		a.refused("409 EpochConflict")
		p.catchUp()
	}
	t.Error("never won")
}

func epochs(list []xrpc.MessageView) []int64 {
	var out []int64
	for _, m := range list {
		out = append(out, m.Epoch)
	}
	return out
}

// TestManyCommitters: of those who commit at once one wins each epoch, and with retries
// all do, each once.
func TestManyCommitters(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		const n = 10
		ann := w.phone("ann").start()
		var others []*phone
		for i := range n {
			others = append(others, w.phone(fmt.Sprintf("m%d", i)))
		}
		parties := ann.add(others...)
		var done sync.WaitGroup
		for _, p := range parties {
			done.Go(func() { p.commitUntilWon(t) })
		}
		done.Wait()
		var want []int64
		for i := range int64(n + 1) {
			want = append(want, i+1)
		}
		if got := epochs(ann.messages("commits")); !slices.Equal(got, want) {
			t.Errorf("epochs of the commits: %v", got)
		}
		ann.catchUp()
		for _, p := range parties {
			p.catchUp()
			if string(p.g.EpochAuthenticator()) != string(ann.g.EpochAuthenticator()) {
				t.Errorf("%s is in another group", p.name)
			}
		}
		state := w.callAs(lexicons.B, "ann", xrpc.GetGroupState, params("convoId", ann.id, "include", "epoch")).fields()
		if state["epoch"] != float64(n+1) {
			t.Errorf("epoch %v", state["epoch"])
		}
	})
}

// TestCommitsAmongMessages: messages stand between the commits in the epoch that was
// current, and none in a later one.
func TestCommitsAmongMessages(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		ann, bob := w.phone("ann").start(), w.phone("bob")
		pb := ann.add(bob)[0]
		var done sync.WaitGroup
		done.Go(func() {
			for range 5 {
				pb.commitUntilWon(t)
			}
		})
		done.Go(func() {
			for i := range 5 {
				epoch := int64(1)
				for try := range 100 {
					a := w.call("ann", xrpc.SendMessage, object{"convoId": ann.id, "msgId": fmt.Sprintf("00000000-0000-4000-8000-%012d", i), "epoch": epoch,
						"ciphertext": blob(make([]byte, 512)), "paddedSize": 512})
					if a.status == http.StatusOK {
						break
					}
					a.refused("409 EpochMismatch")
					var state xrpc.GetGroupStateOutput
					w.callAs(lexicons.B, "ann", xrpc.GetGroupState, params("convoId", ann.id, "include", "epoch")).into(&state)
					if epoch = *state.Epoch; try == 99 {
						t.Error("never current")
					}
				}
			}
		})
		done.Wait()
		if got := epochs(ann.messages("commits")); !slices.Equal(got, []int64{1, 2, 3, 4, 5, 6}) {
			t.Errorf("epochs of the commits: %v", got)
		}
		all, last, apps := ann.messages("all"), int64(0), 0
		for _, m := range all {
			if m.MessageType == "app" {
				apps++
			}
			if m.Epoch < last || m.Epoch > 6 || m.MessageType == "app" && m.Epoch != last {
				t.Errorf("out of order: %v", epochs(all))
			}
			last = m.Epoch
		}
		same(t, "messages", apps, 5)
	})
}

// TestDoorsShareConversations: what comes by one door is read by the other.
func TestDoorsShareConversations(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		ann, bob := w.phone("ann").start(), w.phone("bob")
		pb := ann.add(bob)[0]
		device := ds.Caller{Account: ds.AccountID(w.did("bob")), Device: "laptop"}
		id := ds.ConversationID(ann.id)
		message, _, err := pb.g.Seal([]byte("from the gateway"), nil, mls.SealOptions{})
		must(t, err)
		_, err = w.core.Apply(ctx, device, core.Send{ConversationID: id, ID: "m1", Body: message, Encoding: ds.Base64})
		must(t, err)
		pending := pb.commit(mls.CommitOptions{})
		_, err = w.core.Apply(ctx, device, core.Bundle{ConversationID: id, ID: "c1", Commit: pending.Message(), GroupInfo: pending.GroupInfo(), Encoding: ds.Base64})
		must(t, err)
		list := ann.messages("all")
		if len(list) != 3 || string(list[1].Ciphertext) != string(message) || list[2].Epoch != 2 {
			t.Errorf("by XRPC: %+v", list)
		}
		same(t, "newEpoch", epochOf(pb.change("commit", object{"commit": blob((&party{bob, ann.id, pending.Group()}).commit(mls.CommitOptions{}).Message())})), 3)
		f := w.logs.NewFollower(device)
		defer f.Close()
		_, err = f.Follow(ctx, logs.Start{Conversation: id, From: logs.FromSeq(1)})
		must(t, err)
		var kinds []ds.Kind
		for page := (logs.Page{}); !page.CaughtUp; {
			page, err = f.Next(ctx)
			must(t, err)
			for _, r := range page.Records {
				if r.Kind.IsMessage() {
					kinds = append(kinds, r.Kind)
				}
			}
		}
		if !slices.Equal(kinds, []ds.Kind{ds.Commit, ds.App, ds.Commit, ds.Commit}) {
			t.Errorf("by the gateway: %v", kinds)
		}
	})
}

// TestAdditionsByGroupChange: a member's new device is listed, claimed by one, added and done,
// by either word for each step; a commit that adds the device completes it with itself.
func TestAdditionsByGroupChange(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		ann, bob, cid := w.phone("ann").start(), w.phone("bob"), w.phone("cid")
		pc := ann.add(bob, cid)[1]
		tablet := w.phone("bob")
		k := tablet.pack()
		in := tablet.registration(0, object{"deviceName": "tablet"})
		in["keyPackages"] = []object{w.item(k)}
		w.call("bob", xrpc.RegisterDevice, in).fields()
		pending := func(p *party, action string) []xrpc.PendingAddition {
			t.Helper()
			var out xrpc.CommitGroupChangeOutput
			w.call(p.name, xrpc.CommitGroupChange, object{"convoId": "", "action": action}).into(&out)
			return out.PendingAdditions
		}
		list := pending(ann, "listPending")
		if len(list) != 1 || list[0].UserDID != w.did("bob") || list[0].DeviceName != "tablet" || list[0].Status != "pending" || list[0].ConvoID != ann.id {
			t.Fatalf("pending: %+v", list)
		}
		id := object{"pendingAdditionId": list[0].ID}
		pb := &party{bob, ann.id, nil}
		pb.change("claimPending", id).refused("403 Unauthorized") // its own
		(&party{w.phone("sue"), ann.id, nil}).change("claimPending", id).refused("404 PendingAdditionNotFound")
		ann.change("completePending", id).refused("403 Unauthorized") // it is not claimed
		var out xrpc.CommitGroupChangeOutput
		w.call("ann", xrpc.CommitGroupChange, object{"convoId": "", "action": "claimPending", "pendingAdditionId": list[0].ID}).into(&out)
		same(t, "claimed by", out.ClaimedAddition.ClaimedBy, w.did("ann"))
		pc.change("claimPendingDeviceAddition", id).refused("409 PendingAdditionAlreadyClaimed")
		_, adding := ann.adding([]string{w.did("bob")}, k)
		same(t, "newEpoch", epochOf(ann.change("addMembers", adding)), 2)
		same(t, "pending afterwards", len(pending(pc, "getPendingDeviceAdditions")), 0)
		ann.change("completePendingDeviceAddition", id).fields()
		ann.change("completePending", id).fields()
		_, err := mls.Join(tablet.welcome(ann.id, k), k, mls.JoinOptions{Now: w.now})
		must(t, err)
		// The package is used up: it is not handed out again.
		var got xrpc.GetKeyPackagesOutput
		w.callAs(lexicons.B, "cid", xrpc.GetKeyPackages, params("dids", w.did("bob"))).into(&got)
		for _, p := range got.KeyPackages {
			if string(p.KeyPackage.Data) == string(bare(k)) {
				t.Error("a used key package is handed out")
			}
		}
	})
}

// TestConfirmationTag: the tag of a commit is that of its epoch, until the next one.
func TestConfirmationTag(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		ann := w.phone("ann").start()
		send := func(n int, epoch int64, tag []byte) answer {
			return w.call("ann", xrpc.SendMessage, object{"convoId": ann.id, "msgId": fmt.Sprintf("00000000-0000-4000-8000-%012d", n), "epoch": epoch,
				"ciphertext": blob(make([]byte, 512)), "paddedSize": 512, "confirmationTag": blob(tag)})
		}
		pending := ann.commit(mls.CommitOptions{})
		in := object{"commit": blob(pending.Message()), "confirmationTag": blob([]byte("tag one"))}
		for range 2 {
			var out xrpc.CommitGroupChangeOutput
			w.callAs(lexicons.B, "ann", xrpc.CommitGroupChange, ann.body("commit", in)).into(&out)
			if string(out.ConfirmationTag) != "tag one" || *out.NewEpoch != 1 {
				t.Errorf("answer: %+v", out)
			}
		}
		ann.g = pending.Group()
		send(1, 1, []byte("tag two")).refused("409 TreeStateDiverged")
		send(2, 1, []byte("tag one")).fields()
		same(t, "newEpoch", epochOf(ann.change("commit", object{"commit": blob(ann.commit(mls.CommitOptions{}).Message())})), 2)
		send(3, 2, []byte("tag two")).fields()
	})
}

// TestReadditionsAreBounded: who asks again and again fills no log.
func TestReadditionsAreBounded(t *testing.T) {
	w := newWorld(t, func(s *setup) { must(t, s.limits.Set("readditions=2/1h")) })
	ann := w.phone("ann").start()
	for range 2 {
		ann.change("readdition", nil).fields()
	}
	a := ann.change("readdition", nil)
	if a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" {
		t.Errorf("the third: %d %s", a.status, a.body)
	}
}

// TestEveryWordForAnAction: each word of the lexicons is understood.
func TestEveryWordForAnAction(t *testing.T) {
	w := newWorld(t)
	for _, set := range []lexicons.Set{lexicons.A, lexicons.B} {
		file, err := lexicons.File(set, xrpc.CommitGroupChange)
		must(t, err)
		var lexicon struct {
			Defs struct {
				Main struct {
					Input struct {
						Schema struct {
							Properties struct {
								Action struct{ KnownValues []string }
							}
						}
					}
				}
			}
		}
		must(t, json.Unmarshal(file, &lexicon))
		words := lexicon.Defs.Main.Input.Schema.Properties.Action.KnownValues
		same(t, "words", len(words), 17)
		for _, word := range words {
			a := w.call("ann", xrpc.CommitGroupChange, object{"convoId": "ab", "action": word})
			if strings.Contains(string(a.body), "InvalidAction") {
				t.Errorf("%s: %s", word, a.body)
			}
		}
	}
}

// TestReceipts: a receipt is of what was stored, however often and with what it is asked
// for again.
func TestReceipts(t *testing.T) {
	key, err := identity.LoadOrCreateServiceKey(t.TempDir() + "/key.pem")
	must(t, err)
	public, err := atcrypto.ParsePublicMultibase(key.PublicKeyMultibase())
	must(t, err)
	onBoth(t, func(t *testing.T, w *world) {
		ann := w.phone("ann").start()
		first, other := ann.commit(mls.CommitOptions{}).Message(), ann.commit(mls.CommitOptions{}).Message()
		hash := sha256.Sum256(first)
		for i, body := range [][]byte{first, first, other} {
			var out xrpc.CommitGroupChangeOutput
			w.call("ann", xrpc.CommitGroupChange, ann.body("commit", object{"commit": blob(body), "idempotencyKey": "k"})).into(&out)
			r := out.Receipt
			if r == nil || string(r.CommitHash) != string(hash[:]) || r.Epoch != 1 || r.SequencerTerm != 1 || r.ConvoID != ann.id || r.SequencerDID != testDID ||
				r.IssuedAt != testTime.Unix() {
				t.Fatalf("receipt %d: %+v", i, r)
			}
			must(t, public.HashAndVerify(r.SignedContent(), r.Signature))
			w.later.Add(60_000)
		}
		var out xrpc.CommitGroupChangeOutput
		w.call("ann", xrpc.CommitGroupChange, ann.body("commit", object{"commit": text(first), "idempotencyKey": "k"})).into(&out)
		if out.Receipt != nil {
			t.Error("generation A has no receipts")
		}
	}, func(s *setup) { s.door.Sign = key.Sign })
}
