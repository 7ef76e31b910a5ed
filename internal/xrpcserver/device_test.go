package xrpcserver

import (
	"bytes"
	"context"
	"crypto/rand"
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
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/lexicons"
	"waxwing.im/waxwing/mls"
)

const suiteName = "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519"

// phone is a device of a person with the key that it signs with.
type phone struct {
	w    *world
	name string
	key  mls.SignatureKey
}

func (w *world) phone(name string) *phone {
	key, err := mls.NewSignatureKey(mls.X25519_AES128GCM_SHA256_Ed25519)
	must(w.t, err)
	return &phone{w, name, key}
}

// pack makes a key package that is good for an hour.
func (p *phone) pack() *mls.KeyPackage { return p.packOf(p.w.did(p.name), false, time.Hour) }

func (p *phone) packOf(identity string, isLast bool, lifetime time.Duration) *mls.KeyPackage {
	k, err := mls.NewKeyPackage(p.key.Suite(), mls.Identity{Credential: []byte(identity), Key: p.key},
		mls.KeyPackageOptions{NotBefore: p.w.now().Add(-2 * time.Hour), NotAfter: p.w.now().Add(lifetime), LastResort: isLast})
	must(p.w.t, err)
	return k
}

// bare is a key package as most clients of this API send it: without a message around it.
func bare(k *mls.KeyPackage) []byte { return k.Message()[4:] }

// item is a key package to publish, as generation B does.
func (w *world) item(k *mls.KeyPackage) object { return w.itemOf(blob(bare(k))) }

func (w *world) itemOf(keyPackage any) object {
	return object{"keyPackage": keyPackage, "cipherSuite": suiteName, "expires": w.now().Add(time.Hour)}
}

// registration is the body that registers the phone with n packages.
func (p *phone) registration(n int, more object) object {
	items := []object{}
	for range n {
		items = append(items, p.w.item(p.pack()))
	}
	in := object{"deviceName": p.name + "'s phone", "keyPackages": items, "signaturePublicKey": blob(p.key.Public())}
	for k, v := range more {
		in[k] = v
	}
	return in
}

// register registers the phone and returns the device's id.
func (p *phone) register(n int, more object) string {
	var out xrpc.RegisterDeviceOutput
	p.w.call(p.name, xrpc.RegisterDevice, p.registration(n, more)).into(&out)
	return out.DeviceID
}

func (w *world) devices(name string) []xrpc.DeviceInfo {
	var out xrpc.ListDevicesOutput
	w.call(name, xrpc.ListDevices, params()).into(&out)
	return out.Devices
}

func same[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestRegisterDevice(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		ann := w.phone("ann")
		spoilt := bare(ann.pack())
		spoilt[len(spoilt)-1] ^= 1
		w.conversation("c1", "ann", "bob")
		in := ann.registration(1, object{"deviceUUID": "uuid-1", "pushToken": "secret-token", "deviceName": "\u200bAnn's\x07 phone\ufeff "})
		in["keyPackages"] = append(in["keyPackages"].([]object), w.itemOf(blob(spoilt)), object{"keyPackage": 7}, w.item(w.phone("bob").pack()), w.itemOf(text(ann.pack().Message())))
		var out xrpc.RegisterDeviceOutput
		w.call("ann", xrpc.RegisterDevice, in).into(&out)
		same(t, "mlsDid", out.MLSDID, w.did("ann")+"#"+out.DeviceID)
		same(t, "conversations", fmt.Sprint(out.AutoJoinedConvos), "[c1]")
		if len(out.DeviceID) != 36 {
			t.Errorf("device id %q", out.DeviceID)
		}
		answer := w.call("ann", xrpc.ListDevices, params("deviceId", "ignored"))
		if bytes.Contains(answer.body, []byte("secret-token")) {
			t.Error("the push token is shown")
		}
		d := w.devices("ann")[0]
		same(t, "name", d.DeviceName, "Ann's phone")
		same(t, "uuid", d.DeviceUUID, "uuid-1")
		same(t, "packages", d.KeyPackageCount, 2)
		same(t, "token", *d.PushTokenRegistered, true)
		same(t, "credential", d.CredentialDID, out.MLSDID)

		ids := map[string]bool{out.DeviceID: true}
		for i := range 3 { // black-box checks 9 and 10
			id := w.phone("ann").register(1, object{"deviceUuid": fmt.Sprintf("other-%d", i)})
			if ids[id] {
				t.Error("two devices with one id")
			}
			ids[id] = true
		}
		same(t, "devices of somebody else", len(w.devices("bob")), 0)
	})
}

func TestRegisterDeviceRefuses(t *testing.T) {
	w := newWorld(t)
	ann := w.phone("ann")
	many := make([]object, 201)
	for i := range many {
		many[i] = w.item(ann.pack())
	}
	for name, row := range map[string]struct {
		change object
		want   string
	}{
		"blank name":           {object{"deviceName": " \u200b\ufeff\t"}, "400 InvalidDeviceName"},
		"long name":            {object{"deviceName": strings.Repeat("ä", 101)}, "400 InvalidDeviceName"},
		"short key":            {object{"signaturePublicKey": blob(make([]byte, 31))}, "400 InvalidSignatureKey"},
		"no key":               {object{"signaturePublicKey": blob(nil)}, "400 InvalidSignatureKey"},
		"no packages":          {object{"keyPackages": []object{}, "action": "register"}, "400 InvalidKeyPackages"},
		"no packages and key":  {object{"keyPackages": []object{}}, "400 InvalidKeyPackages"},
		"too many packages":    {object{"keyPackages": many}, "400 InvalidKeyPackages"},
		"no good package":      {object{"keyPackages": []object{w.item(w.phone("bob").pack())}}, "400 InvalidKeyPackages"},
		"packages that are no": {object{"keyPackages": "x"}, "400 InvalidRequest"},
		"unknown action":       {object{"action": "explode"}, "400 InvalidRequest"},
		"long token":           {object{"pushToken": strings.Repeat("x", 513)}, "400 InvalidRequest"},
		"long uuid":            {object{"deviceUUID": strings.Repeat("x", 65)}, "400 InvalidRequest"},
		"no claim":             {object{"action": "claimPendingAddition"}, "400 InvalidRequest"},
		"no completion":        {object{"action": "completePendingAddition"}, "400 InvalidRequest"},
		"delete nothing":       {object{"action": "delete"}, "400 InvalidRequest"},
		"token without token":  {object{"action": "updateToken"}, "400 InvalidRequest"},
	} {
		a := w.call("ann", xrpc.RegisterDevice, ann.registration(1, row.change))
		if a.refused(row.want); t.Failed() {
			t.Fatal(name)
		}
	}
	w.call("", xrpc.RegisterDevice, object{}).refused("401 AuthenticationRequired")
	same(t, "devices", len(w.devices("ann")), 0)
	ann.register(1, object{"deviceName": strings.Repeat("ä", 100)})
}

func TestRegisterDeviceAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		ann := w.phone("ann")
		kept := ann.pack()
		first := ann.registration(3, object{"deviceUUID": "uuid-1", "pushToken": "token"})
		first["keyPackages"] = append(first["keyPackages"].([]object), w.item(kept))
		var out xrpc.RegisterDeviceOutput
		w.call("ann", xrpc.RegisterDevice, first).into(&out)
		id := out.DeviceID
		same(t, "packages", w.devices("ann")[0].KeyPackageCount, 4)

		w.later.Add(1000)
		renewed := w.phone("ann") // a new key
		again := renewed.registration(1, object{"deviceUuid": "uuid-1", "deviceName": "new name"})
		again["keyPackages"] = append(again["keyPackages"].([]object), w.item(kept))
		w.call("ann", xrpc.RegisterDevice, again).into(&out)
		same(t, "id by uuid", out.DeviceID, id)
		d := w.devices("ann")
		same(t, "devices", len(d), 1)
		same(t, "name", d[0].DeviceName, "new name")
		same(t, "packages after", d[0].KeyPackageCount, 2)
		same(t, "token is kept", *d[0].PushTokenRegistered, true)
		if !d[0].LastSeenAt.After(d[0].RegisteredAt.Time) {
			t.Error("it was not seen")
		}
		same(t, "id by key", renewed.register(1, nil), id)
		same(t, "id by key with a new uuid", renewed.register(1, object{"deviceUUID": "uuid-2"}), id)

		other := w.phone("ann").register(1, object{"deviceUUID": "uuid-3"})
		if other == id {
			t.Error("another device has the id of the first")
		}
		w.call("ann", xrpc.RegisterDevice, renewed.registration(1, object{"deviceUUID": "uuid-3"})).refused("409 DeviceAlreadyRegistered")
		if w.phone("bob").register(1, object{"deviceUUID": "uuid-1"}) == id {
			t.Error("a uuid means the same for two accounts")
		}
	})
}

func TestTooManyDevices(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		phones := make([]*phone, 16)
		answers := make([]answer, len(phones))
		requests := make([]*http.Request, len(phones))
		for i := range phones {
			phones[i] = w.phone("ann")
			requests[i] = w.request("ann", xrpc.RegisterDevice, phones[i].registration(1, nil))
		}
		var all sync.WaitGroup
		for i, r := range requests {
			all.Go(func() { answers[i] = w.do(r, xrpc.RegisterDevice, lexicons.A, lexicons.B) })
		}
		all.Wait()
		made := 0
		for i, a := range answers {
			if a.status == 200 {
				made++
				if i == 0 {
					continue
				}
			} else {
				a.refused("429 TooManyDevices")
			}
		}
		same(t, "devices made at once", made, 10)
		same(t, "devices", len(w.devices("ann")), 10)
		for i, a := range answers {
			if a.status == 200 {
				phones[i].register(1, nil) // again is always allowed
				w.call("ann", xrpc.RegisterDevice, object{"action": "delete", "deviceId": w.devices("ann")[0].DeviceID, "deviceName": "", "keyPackages": []any{}, "signaturePublicKey": blob(nil)})
				break
			}
		}
		w.phone("ann").register(1, nil)
	})
}

// change is the body of a call that registers nothing.
func change(more object) object {
	in := object{"deviceName": "", "keyPackages": []object{}, "signaturePublicKey": blob(nil)}
	for k, v := range more {
		in[k] = v
	}
	return in
}

func TestPushTokens(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		id := w.phone("ann").register(1, object{"deviceUUID": "u1", "deviceName": "one"})
		isSet := func(device string) bool {
			for _, d := range w.devices("ann") {
				if d.DeviceID == device {
					return *d.PushTokenRegistered
				}
			}
			t.Fatalf("no device %s", device)
			return false
		}
		w.call("ann", xrpc.RegisterDevice, change(nil)).fields() // the only one is meant
		for _, names := range []object{nil, {"deviceName": "one"}, {"deviceUUID": "u1"}, {"deviceUuid": "u1"}, {"deviceId": id},
			{"deviceId": w.did("ann") + "#" + id}, {"action": "updateToken", "deviceId": id}} {
			in := change(names)
			in["pushToken"] = "token"
			var out xrpc.RegisterDeviceOutput
			w.call("ann", xrpc.RegisterDevice, in).into(&out)
			same(t, fmt.Sprint("device of ", names), out.DeviceID, id)
			same(t, "success", *out.Success, true)
			same(t, fmt.Sprint("token by ", names), isSet(id), true)
			delete(in, "pushToken")
			delete(in, "action")
			w.call("ann", xrpc.RegisterDevice, in).into(&out)
			same(t, "success", *out.Success, true)
			same(t, fmt.Sprint("no token by ", names), isSet(id), false)
		}
		w.later.Add(1000)
		second := w.phone("ann").register(1, object{"deviceName": "two"})
		w.call("ann", xrpc.RegisterDevice, change(object{"pushToken": "t", "deviceName": "one"})).fields()
		same(t, "by name", isSet(id) && !isSet(second), true)
		w.later.Add(1000)
		w.call("ann", xrpc.RegisterDevice, change(object{"pushToken": "t", "deviceId": second})).fields()
		w.call("ann", xrpc.RegisterDevice, change(object{"action": "removeToken", "pushToken": "ignored", "deviceId": second})).fields()
		same(t, "removed by its name", isSet(second), false)
		w.call("ann", xrpc.RegisterDevice, change(nil)).refused("404 NotFound") // which of the two?
		w.call("ann", xrpc.RegisterDevice, change(object{"pushToken": "t", "deviceUUID": "nobody's"})).refused("404 NotFound")
		w.call("bob", xrpc.RegisterDevice, change(object{"pushToken": "t"})).refused("404 NotFound")
		w.call("bob", xrpc.RegisterDevice, change(object{"pushToken": "t", "deviceId": id})).refused("403 Forbidden")
		w.call("bob", xrpc.RegisterDevice, change(object{"action": "removeToken", "deviceId": id})).refused("403 Forbidden")
		same(t, "foreign token", isSet(id), true)
	})
}

func TestDeleteDevice(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.conversation("c1", "ann", "bob")
		ann := w.phone("ann")
		claimed := ann.pack()
		in := ann.registration(0, nil)
		in["keyPackages"] = []object{w.item(claimed), w.item(ann.pack()), w.item(ann.pack())}
		var out xrpc.RegisterDeviceOutput
		w.call("ann", xrpc.RegisterDevice, in).into(&out)
		id := out.DeviceID
		same(t, "handed out", w.fetch("bob", "ann")[0], fmt.Sprintf("%x", claimed.Ref()))
		same(t, "additions", len(w.pending("bob")), 1)

		w.call("bob", xrpc.RegisterDevice, change(object{"action": "delete", "deviceId": id})).refused("403 Forbidden")
		w.call("ann", xrpc.RegisterDevice, change(object{"action": "delete", "deviceId": "nobody's"})).into(&out)
		same(t, "deleted nobody's", *out.Deleted, false)
		w.call("ann", xrpc.RegisterDevice, change(object{"action": "delete", "deviceId": id})).into(&out)
		same(t, "deleted", *out.Deleted, true)
		same(t, "packages deleted", *out.KeyPackagesDeleted, 2)
		same(t, "conversations left", *out.ConversationsLeft, 0)
		same(t, "devices", len(w.devices("ann")), 0)
		same(t, "packages", len(w.fetch("bob", "ann")), 0)
		same(t, "additions", len(w.pending("bob")), 0)
		w.call("ann", xrpc.RegisterDevice, change(object{"action": "delete", "deviceId": id})).into(&out)
		same(t, "deleted again", *out.Deleted, false)

		in["keyPackages"] = []object{w.item(claimed)} // it was handed out once
		w.call("ann", xrpc.RegisterDevice, in).into(&out)
		if out.DeviceID == id {
			t.Error("a deleted device has come back")
		}
		same(t, "handed out again", len(w.fetch("bob", "ann")), 0)
	})
}

// conversation opens a conversation of people, the first its owner.
func (w *world) conversation(id string, names ...string) {
	w.t.Helper()
	var members []ds.AccountID
	for _, name := range names[1:] {
		members = append(members, ds.AccountID(w.did(name)))
	}
	must(w.t, w.apply(ds.Caller{Account: ds.AccountID(w.did(names[0]))}, core.Create{ConversationID: ds.ConversationID(id), Accounts: members}))
}

func (w *world) pending(name string, pairs ...string) []xrpc.PendingDevice {
	w.t.Helper()
	var out xrpc.GetPendingDevicesOutput
	w.call(name, xrpc.GetPendingDevices, params(pairs...)).into(&out)
	return out.PendingAdditions
}

// claim claims an addition as a client of generation B.
func (w *world) claim(name, id string) answer {
	return w.callAs(lexicons.B, name, xrpc.RegisterDevice, change(object{"action": "claimPendingAddition", "pendingAdditionId": id}))
}

// announced lists the additions that a conversation's log tells of.
func (w *world) announced(id string) []ds.Addition {
	w.t.Helper()
	var list []ds.Addition
	for _, r := range w.records(ds.ConversationLog(ds.ConversationID(id))) {
		if r.Kind == ds.DeviceAddition {
			var a ds.Addition
			must(w.t, json.Unmarshal(r.Body, &a))
			list = append(list, a)
		}
	}
	return list
}

func (w *world) records(log ds.LogID) (list []ds.Record) {
	w.t.Helper()
	must(w.t, w.store.View(context.Background(), func(tx *store.Tx) error {
		var err error
		list, err = tx.Logs.RecordsAfter(log, 0, 1000, 1<<20)
		return err
	}))
	return list
}

func TestPendingAdditions(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.conversation("c1", "ann", "bob", "dan")
		w.conversation("c2", "bob", "ann")
		w.conversation("c3", "bob", "carl")
		device := w.phone("bob").register(5, object{"deviceUUID": "u"})
		list := w.pending("ann")
		same(t, "pending", len(list), 2)
		a := list[slices.IndexFunc(list, func(p xrpc.PendingDevice) bool { return p.ConvoID == "c1" })]
		credential := w.did("bob") + "#" + device
		if a.DeviceID != device || a.NewDeviceID != device || a.NewDeviceCredentialDID != credential || a.UserDID != w.did("bob") ||
			a.Status != "pending" || a.DeviceName != "bob's phone" || a.ClaimedBy != "" {
			t.Errorf("got %+v", a)
		}
		same(t, "in c2", len(w.pending("ann", "convoIds", "c2")), 1)
		same(t, "in c1 and c2", len(w.pending("ann", "convoIds", "c2", "convoIds", "c1")), 2)
		same(t, "in c3", len(w.pending("ann", "convoIds", "c3")), 0)
		same(t, "in none", len(w.pending("ann", "convoIds", "none")), 0)
		same(t, "limit", len(w.pending("ann", "limit", "1")), 1)
		same(t, "bob's own", len(w.pending("bob")), 0)
		same(t, "a stranger's", len(w.pending("eve")), 0)
		for _, limit := range []string{"0", "101", "x"} {
			w.call("ann", xrpc.GetPendingDevices, params("limit", limit)).refused("400 InvalidRequest")
		}
		if told := w.announced("c1"); len(told) != 1 || told[0].ID != a.ID || string(told[0].Device.ID) != device || told[0].Name != "bob's phone" {
			t.Errorf("the log tells of %+v", told)
		}
		same(t, "c3 was told", len(w.announced("c3")), 1)

		claim := func(name, id string) answer { return w.claim(name, id) }
		claimed := func(name, id string) (out xrpc.RegisterDeviceOutput) {
			claim(name, id).into(&out)
			return out
		}
		complete := func(name, id string) (out xrpc.RegisterDeviceOutput) {
			w.call(name, xrpc.RegisterDevice, change(object{"action": "completePendingAddition", "pendingAdditionId": id})).into(&out)
			return out
		}
		claim("bob", a.ID).refused("403 Forbidden")
		for _, name := range []string{"carl", "eve"} {
			claim(name, a.ID).refused("404 NotFound")
		}
		claim("ann", "unknown").refused("404 NotFound")
		same(t, "completed unclaimed", *complete("ann", a.ID).Success, false)
		out := claimed("ann", a.ID)
		if !*out.Claimed || out.ConvoID != "c1" || out.DeviceCredentialDID != credential || out.ClaimedBy != w.did("ann") || out.KeyPackage == nil || out.KeyPackage.DID != w.did("bob") {
			t.Errorf("claimed %+v", out)
		}
		again := claimed("ann", a.ID)
		same(t, "the same package again", again.KeyPackage.KeyPackageHash, out.KeyPackage.KeyPackageHash)
		again = claimed("dan", a.ID)
		if *again.Claimed || again.ClaimedBy != w.did("ann") || again.KeyPackage != nil {
			t.Errorf("claimed twice: %+v", again)
		}
		same(t, "status", w.pending("dan")[0].Status+w.pending("dan")[0].ClaimedBy, "in_progress"+w.did("ann"))
		for _, name := range []string{"dan", "eve"} {
			if done := complete(name, a.ID); *done.Success || done.Error == "" {
				t.Errorf("%s completed it: %+v", name, done)
			}
		}
		w.later.Add((5 * time.Minute).Milliseconds())
		same(t, "status of a claim that ran out", w.pending("dan")[0].Status+w.pending("dan")[0].ClaimedBy, "pending")
		again = claimed("dan", a.ID)
		if !*again.Claimed || again.KeyPackage == nil || again.KeyPackage.KeyPackageHash == out.KeyPackage.KeyPackageHash {
			t.Errorf("the next claimant: %+v", again)
		}
		same(t, "completed by the former", *complete("ann", a.ID).Success, false)
		same(t, "completed", *complete("dan", a.ID).Success, true)
		same(t, "completed again", *complete("dan", a.ID).Success, true)
		same(t, "pending", len(w.pending("dan")), 0)
		claim("dan", a.ID).refused("404 NotFound")
	})
}

// A device that registers again waits again where it is not in the group yet, and members
// receive another event only where one of them had begun to add it.
func TestAdditionsOfADeviceThatComesAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		for _, id := range []string{"c1", "c2", "c3"} {
			w.conversation(id, "ann", "bob")
		}
		bob := w.phone("bob")
		bob.register(5, nil)
		for _, a := range w.pending("ann") {
			if a.ConvoID == "c1" {
				continue
			}
			w.claim("ann", a.ID).fields()
			if a.ConvoID == "c3" {
				w.call("ann", xrpc.RegisterDevice, change(object{"action": "completePendingAddition", "pendingAdditionId": a.ID})).fields()
			}
		}
		w.conversation("c4", "ann", "bob")
		bob.register(1, nil)
		status := map[string]string{}
		for _, a := range w.pending("ann") {
			status[a.ConvoID] = a.Status
		}
		same(t, "waits in", fmt.Sprint(status), "map[c1:pending c2:pending c4:pending]")
		for id, want := range map[string]int{"c1": 1, "c2": 2, "c3": 1, "c4": 1} {
			same(t, "told in "+id, len(w.announced(id)), want)
		}
		must(t, w.apply(ds.Caller{Account: ds.AccountID(w.did("bob"))}, core.Leave{ConversationID: "c1"}))
		same(t, "after leaving c1", len(w.pending("ann")), 2)
		must(t, w.apply(ds.Caller{Account: ds.AccountID(w.did("ann"))}, core.Remove{ConversationID: "c2", Accounts: []ds.AccountID{ds.AccountID(w.did("bob"))}}))
		same(t, "after being removed from c2", len(w.pending("ann")), 1)
	})
}

// Black-box check 20: a hundred people register and publish at once.
func TestManyRegisterAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		const people = 40 // a running server is asked by 100
		var all sync.WaitGroup
		for i := range people {
			name := fmt.Sprintf("person-%d", i)
			p := w.phone(name)
			first := w.request(name, xrpc.RegisterDevice, p.registration(1, object{"deviceUUID": rand.Text()}))
			second := w.request(name, xrpc.PublishKeyPackages, object{"action": "publishBatch", "keyPackages": []object{w.item(p.pack()), w.item(p.pack())}})
			all.Go(func() {
				for nsid, r := range map[string]*http.Request{xrpc.RegisterDevice: first, xrpc.PublishKeyPackages: second} {
					if a := w.do(r, nsid, lexicons.A, lexicons.B); a.status != 200 {
						t.Errorf("%s: %d %s", nsid, a.status, a.body)
					}
				}
			})
		}
		all.Wait()
		for _, name := range []string{"person-0", "person-39"} {
			same(t, "packages", w.stats(name).Available, 3)
		}
	})
}

func TestRememberedGeneration(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		fetch := func(set lexicons.Set, name string) {
			w.callAs(set, name, xrpc.GetKeyPackages, params("dids", w.did("bob"))).fields()
		}
		bob := w.phone("bob")
		bob.register(5, nil)
		fetch(lexicons.B, "ann") // nothing is known
		ann := w.phone("ann")
		in := ann.registration(0, nil)
		in["keyPackages"] = []object{w.itemOf(text(bare(ann.pack())))}
		w.call("ann", xrpc.RegisterDevice, in).fields()
		fetch(lexicons.A, "ann")
		w.call("ann", xrpc.PublishKeyPackages, object{"action": "publish", "keyPackages": []object{w.item(ann.pack())}}).fields()
		fetch(lexicons.B, "ann")
		in["keyPackages"] = []object{w.itemOf(text(bare(ann.pack())))}
		w.call("ann", xrpc.RegisterDevice, in).fields()
		fetch(lexicons.B, "ann") // there is no way back
		w.call("ann", xrpc.RegisterDevice, change(object{"action": "delete", "deviceId": w.devices("ann")[0].DeviceID})).fields()
		w.call("ann", xrpc.RegisterDevice, in).fields()
		fetch(lexicons.A, "ann")
	})
}
