package xrpcserver

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/mls"
)

// together makes calls of people at once, and says how many of each answer there were.
func (w *world) together(n int, call func(i int) answer) map[string]int {
	w.t.Helper()
	var running sync.WaitGroup
	answers := make([]answer, n)
	for i := range n {
		running.Go(func() { answers[i] = call(i) })
	}
	running.Wait()
	counts := map[string]int{}
	for _, a := range answers {
		name := fmt.Sprint(a.status)
		if a.status != 200 {
			name += " " + a.name()
		}
		counts[name]++
	}
	return counts
}

// TestTogether: of many requests at once for what is there once, one has it, also where
// each first looks and then writes.
func TestTogether(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		const n = 8
		s := newStrangers(w)
		id := s.ann.id
		of := func(what string, got map[string]int, want string) {
			t.Helper()
			if text := fmt.Sprint(got); text != want {
				t.Errorf("%s: %s, want %s", what, text, want)
			}
		}
		same := func(name, nsid string, in any) map[string]int {
			return w.together(n, func(int) answer { return w.do(w.request(name, nsid, in), nsid) })
		}
		of("claims of two members", w.together(n, func(i int) answer {
			name := []string{"ann", "cid"}[i%2]
			return w.call(name, xrpc.CommitGroupChange, object{"convoId": "", "action": "claimPending", "pendingAdditionId": s.real.addition})
		}), "map[200:4 409 PendingAdditionAlreadyClaimed:4]")
		of("completions", same("ann", xrpc.CommitGroupChange, object{"convoId": "", "action": "completePending", "pendingAdditionId": s.real.claimed}), "map[200:8]")
		of("confirmations of one Welcome", same("cid", xrpc.CommitGroupChange, object{"convoId": id, "action": "confirmWelcome"}), "map[200:1 404 NotFound:7]")
		of("promotions", same("ann", xrpc.UpdateConvo, object{"convoId": id, "action": "promoteModerator", "targetDid": w.did("ben")}), "map[200:1 409 AlreadyDone:7]")
		of("demotions", same("ann", xrpc.UpdateConvo, object{"convoId": id, "action": "demoteModerator", "targetDid": w.did("ben")}), "map[200:1 400 InvalidRequest:7]")
		of("reactions", same("ann", xrpc.SendMessage, reaction(id, "addReaction", "!", uuid(1))), "map[200:1 409 ReactionExists:7]")
		of("reactions taken back", same("ann", xrpc.SendMessage, reaction(id, "removeReaction", "!", uuid(1))), "map[200:1 404 ReactionNotFound:7]")

		bare := s.ann.commit(mls.CommitOptions{})
		in := object{"commit": blob(bare.Message())}
		of("one commit", w.together(n, func(int) answer { return s.ann.change("commit", in) }), "map[200:8]")
		s.ann.g = bare.Group()
		rivals := make([]*mls.PendingCommit, n)
		for i := range rivals {
			rivals[i] = s.ann.commit(mls.CommitOptions{})
		}
		of("commits of one epoch", w.together(n, func(i int) answer {
			return s.ann.change("commit", object{"commit": blob(rivals[i].Message()), "idempotencyKey": fmt.Sprint(i)})
		}), "map[200:1 409 EpochConflict:7]")
		list := s.ann.messages("commits")
		for _, rival := range rivals {
			if bytes.Equal(rival.Message(), list[len(list)-1].Ciphertext) {
				s.ann.g = rival.Group()
			}
		}
		info := object{"convoId": id, "action": "updateGroupInfo", "groupInfo": blob(s.ann.info()), "epoch": s.ann.g.Epoch()}
		of("GroupInfos of one epoch", same("ann", xrpc.UpdateConvo, info), "map[200:1 409 EpochConflict:7]")

		phone := w.phone("dan")
		first := phone.registration(1, object{"deviceUUID": "of dan"})
		of("registrations of one device", same("dan", xrpc.RegisterDevice, first), "map[200:8]")
		if list := w.devices("dan"); len(list) != 1 || list[0].KeyPackageCount != 1 {
			t.Errorf("dan's devices: %+v", list)
		}
		k := phone.pack()
		of("publications of one package", same("dan", xrpc.PublishKeyPackages, object{"action": "publishBatch", "keyPackages": []object{w.item(k)}}), "map[200:8]")
		if list := w.devices("dan"); list[0].KeyPackageCount != 2 {
			t.Errorf("dan's devices: %+v", list)
		}
		one := w.devices("dan")[0].DeviceID
		var mu sync.Mutex
		deleted := 0
		w.together(n, func(int) answer {
			a := w.call("dan", xrpc.RegisterDevice, change(object{"action": "delete", "deviceId": one}))
			mu.Lock()
			defer mu.Unlock()
			if a.fields()["deleted"] == true {
				deleted++
			}
			return a
		})
		if deleted != 1 {
			t.Errorf("a device was deleted %d times", deleted)
		}
		token := w.request("ben", xrpc.GetConvos, params()).Header.Get("Authorization")
		of("one token", w.together(n, func(int) answer {
			r := w.request("", xrpc.GetConvos, params())
			r.Header.Set("Authorization", token)
			return w.do(r, xrpc.GetConvos)
		}), "map[200:1 401 Replay detected:7]")
		of("leaving", same("ben", xrpc.LeaveConvo, object{"convoId": id}), "map[200:1 403 NotMember:7]")
	})
}
