package xrpcserver

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/mls"
	"waxwing.im/waxwing/mls/wire"
)

// faults are those of the API's reference server that best show over HTTP, by their
// numbers; docs/xrpc-faults.md says where the others are tested.
var faults = []struct {
	number, name string
	test         func(t *testing.T, w *world)
}{
	{"F-1", "sub is somebody else", subOfAnother},
	{"F-2", "aud is another service", audienceOfAnother},
	{"F-3", "a token is used again while it is good", usedLater},
	{"F-5", "a group that is there is created by a stranger", createdByAStranger},
	{"F-6", "packages are drained", drained},
	{"F-17", "epochs beyond 32 bits", largeEpochs},
	{"F-19", "bodies without a bound", largeBodies},
	{"F-20", "an idempotency key is everybody's", keysOfOthers},
	{"F-28", "a token without a key", keylessTokens},
	{"F-29", "a commit that was handed in before ends no membership", leavingByAKnownCommit},
	{"F-30", "a failed creation leaves half a conversation", halfCreated},
	{"F-31", "a push token is shown", shownPushToken},
	{"F-34", "times tell when, answers tell who", exactTimes},
	{"0", "answers without the headers that they need", headers},
	{"F-37", "packages go before they expire", agedPackages},
}

func TestFaults(t *testing.T) {
	for _, fault := range faults {
		t.Run(fault.number+" "+fault.name, func(t *testing.T) { onBoth(t, fault.test) })
	}
}

// signed makes a token of claims, which its caller may have changed.
func (w *world) signed(name, nsid string, change func(header, claims object)) string {
	w.t.Helper()
	key := w.key(name)
	header := object{"alg": "ES256", "typ": "JWT"}
	claims := object{"iss": key.DID(), "aud": testDID, "lxm": nsid, "jti": fmt.Sprint(time.Now().UnixNano()), "iat": w.now().Unix(), "exp": w.now().Add(time.Minute).Unix()}
	change(header, claims)
	content := encoded(w.t, header) + "." + encoded(w.t, claims)
	signature, err := key.Sign([]byte(content))
	must(w.t, err)
	return content + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func encoded(t testing.TB, o object) string {
	t.Helper()
	text, err := json.Marshal(o)
	must(t, err)
	return base64.RawURLEncoding.EncodeToString(text)
}

// callWith makes a call with that token.
func (w *world) callWith(token, nsid string, in any) answer {
	w.t.Helper()
	r := w.request("", nsid, in)
	r.Header.Set("Authorization", "Bearer "+token)
	return w.do(r, nsid)
}

func subOfAnother(t *testing.T, w *world) {
	w.create(group("g"), "ann")
	for _, sub := range []any{w.did("ann"), w.did("ann") + "#phone", "", nil, 7, []string{w.did("eve")}} {
		a := w.callWith(w.signed("eve", xrpc.GetConvos, func(_, claims object) { claims["sub"] = sub }), xrpc.GetConvos, params())
		a.refused("401 BadJwtIss")
	}
	a := w.callWith(w.signed("ann", xrpc.GetConvos, func(_, claims object) { claims["sub"] = w.did("ann") }), xrpc.GetConvos, params())
	same(t, "conversations of ann", len(a.fields()["conversations"].([]any)), 1)
}

func audienceOfAnother(t *testing.T, w *world) {
	for aud, want := range map[string]string{testDID: "200", testDID + "#atproto_mls": "200", testDID + "#another": "401", testDID + ".evil.example": "401",
		"did:web:another.example#atproto_mls": "401", "": "401"} {
		a := w.callWith(w.signed("ann", xrpc.GetConvos, func(_, claims object) { claims["aud"] = aud }), xrpc.GetConvos, params())
		if fmt.Sprint(a.status) != want {
			t.Errorf("%q: %d %s", aud, a.status, a.body)
		}
	}
}

func usedLater(t *testing.T, w *world) {
	token := w.signed("ann", xrpc.GetConvos, func(_, claims object) { claims["exp"] = w.now().Add(5 * time.Minute).Unix() })
	w.callWith(token, xrpc.GetConvos, params()).fields()
	for range 5 {
		w.later.Add(time.Minute.Milliseconds())
		must(t, w.store.Update(context.Background(), func(tx *store.Tx) error { // as housekeeping does, which is more patient
			_, err := tx.Sessions.DeleteNonces(w.now().UnixMilli(), 1000)
			return err
		}))
		w.callWith(token, xrpc.GetConvos, params()).refused("401 Replay detected")
	}
	w.later.Add(time.Minute.Milliseconds())
	w.callWith(token, xrpc.GetConvos, params()).refused("401 JwtExpired")
	lasting := w.signed("ann", xrpc.GetConvos, func(_, claims object) { claims["exp"] = w.now().Add(time.Hour).Unix() })
	w.callWith(lasting, xrpc.GetConvos, params()).refused("401 BadJwt")
}

func createdByAStranger(t *testing.T, w *world) {
	id := group("g")
	w.call("ann", xrpc.CreateConvo, w.with(w.creation(id, "ben"), "currentEpoch", 3)).fields()
	a := w.call("eve", xrpc.CreateConvo, w.creation(id, "eve"))
	a.refused("409 ConvoAlreadyExists")
	if strings.Contains(string(a.body), "did:") || w.convo("eve", id) != nil {
		t.Errorf("a stranger is told %s", a.body)
	}
	var out xrpc.CreateConvoOutput
	w.call("ben", xrpc.CreateConvo, w.creation(id)).into(&out)
	if out.Creator != w.did("ann") || out.Epoch != 3 {
		t.Errorf("a member is answered creator %s, epoch %d", out.Creator, out.Epoch)
	}
}

func drained(t *testing.T, w *world) {
	p := w.phone("ann")
	p.register(2, nil)
	last := p.packOf(w.did("ann"), true, time.Hour)
	w.publish("ann", nil, last)
	got := map[string]int{}
	for range 6 {
		for _, hash := range w.fetch("eve", "ann") {
			got[hash]++
		}
	}
	if got[hex.EncodeToString(last.Ref())] != 4 || len(got) != 3 {
		t.Errorf("handed out %v", got)
	}
}

func largeEpochs(t *testing.T, w *world) {
	const epoch = 1<<32 + 5
	p := w.phone("ann")
	id := group("g")
	w.call(p.name, xrpc.CreateConvo, w.with(w.creation(id), "currentEpoch", epoch)).fields()
	w.call("ann", xrpc.SendMessage, w.with(message(id, uuid(1), 5, 512), "epoch", 5)).refused("409 EpochMismatch")
	same(t, "epoch", epochOf(w.call("ann", xrpc.CommitGroupChange, object{"convoId": id, "action": "commit", "commit": blob(sealed("g", epoch, wire.CommitContent))})), epoch+1)
	w.call("ann", xrpc.SendMessage, w.with(message(id, uuid(1), 0, 512), "epoch", epoch+1)).fields()
	page := w.messages("ann", id, "type", "commit", "fromEpoch", fmt.Sprint(epoch+1))
	if len(page.Messages) != 1 || page.Messages[0].Epoch != epoch+1 {
		t.Errorf("commits %+v", page.Messages)
	}
}

func largeBodies(t *testing.T, w *world) {
	for nsid, verb := range w.server.methods {
		if verb != "POST" {
			continue
		}
		body := `{"x":"` + strings.Repeat("y", int(xrpc.BodyMax(nsid))) + `"}`
		w.call("ann", nsid, body).refused("413 PayloadTooLarge")
		if most := int64(16 << 20); xrpc.BodyMax(nsid) > most {
			t.Errorf("%s takes %d bytes", nsid, xrpc.BodyMax(nsid))
		}
	}
}

// TestManyCalls: limits hold over XRPC too (F-19).
func TestManyCalls(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		most := int(limits.Default()[limits.CallCreates].Count)
		w.later.Add(250) // so that limits do not end with a second
		for i := range most {
			a := w.call("ann", xrpc.CreateConvo, w.creation(group(fmt.Sprint(i))))
			a.fields()
			if left := a.header.Get("RateLimit-Remaining"); left != fmt.Sprint(most-1-i) || a.header.Get("RateLimit-Limit") != fmt.Sprint(most) ||
				a.header.Get("RateLimit-Policy") != fmt.Sprintf("%d;w=60", most) || !strings.HasPrefix(a.header.Get("RateLimit"), `"xrpc_creates";r=`+left+";t=") {
				t.Errorf("call %d: %v", i, a.header)
			}
			if reset, err := strconv.ParseInt(a.header.Get("RateLimit-Reset"), 10, 64); err != nil || reset < w.now().Unix() || reset > w.now().Unix()+61 {
				t.Errorf("call %d: it is reset at %v, now is %d", i, a.header["Ratelimit-Reset"], w.now().Unix())
			}
		}
		a := w.call("ann", xrpc.CreateConvo, w.creation(group("more")))
		a.refused("429 RateLimited")
		if a.header.Get("Retry-After") == "" || a.header.Get("RateLimit-Remaining") != "0" {
			t.Error("nobody says when to come again")
		}
		// A client that waits until RateLimit-Reset gets an answer.
		reset, err := strconv.ParseInt(a.header.Get("RateLimit-Reset"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		w.later.Add(time.Unix(reset, 0).Sub(w.now()).Milliseconds())
		w.call("ann", xrpc.CreateConvo, w.creation(group("later"))).fields()
		w.call("ben", xrpc.CreateConvo, w.creation(group("of ben"))).fields()
	}, func(s *setup) { s.limits = limits.Default() })
}

func keysOfOthers(t *testing.T, w *world) {
	ann, ben := w.phone("ann").start(), w.phone("ben").start()
	of := func(p *party) object {
		return object{"commit": blob(p.commit(mls.CommitOptions{}).Message()), "idempotencyKey": "one key"}
	}
	same(t, "epoch", epochOf(ann.change("commit", of(ann))), 1)
	same(t, "epoch of another's", epochOf(ben.change("commit", of(ben))), 1)
	a := w.call("ann", xrpc.SendMessage, w.with(message(ann.id, uuid(1), 1, 512), "idempotencyKey", "k"))
	b := w.call("ben", xrpc.SendMessage, w.with(message(ben.id, uuid(2), 1, 512), "idempotencyKey", "k"))
	if a.fields()["messageId"] != uuid(1) || b.fields()["messageId"] != uuid(2) {
		t.Errorf("answers %s and %s", a.body, b.body)
	}
	again := of(ann) // another commit under the key is the first one again
	same(t, "epoch again", epochOf(ann.change("commit", again)), 1)
	same(t, "commits", len(ann.messages("commits")), 1)
}

func keylessTokens(t *testing.T, w *world) {
	for name, change := range map[string]func(header, claims object){
		"none":       func(h, _ object) { h["alg"] = "none" },
		"HS256":      func(h, _ object) { h["alg"] = "HS256" },
		"crit":       func(h, _ object) { h["crit"] = []string{"exp"} },
		"no lxm":     func(_, c object) { delete(c, "lxm") },
		"other lxm":  func(_, c object) { c["lxm"] = xrpc.SendMessage },
		"no jti":     func(_, c object) { delete(c, "jti") },
		"no exp":     func(_, c object) { delete(c, "exp") },
		"no aud":     func(_, c object) { delete(c, "aud") },
		"iss of ann": func(_, c object) { c["iss"] = w.did("ann") },
		"iss of NUL": func(_, c object) { c["iss"] = w.did("eve") + "\x00" },
	} {
		a := w.callWith(w.signed("eve", xrpc.GetConvos, change), xrpc.GetConvos, params())
		if a.status != 401 || a.header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	for _, token := range []string{"", "x", "a.b", "a.b.c", "a.b.c.d", strings.Repeat("e", 9<<10), encoded(t, object{"alg": "none"}) + "." + encoded(t, object{"iss": w.did("ann")}) + "."} {
		if a := w.callWith(token, xrpc.GetConvos, params()); a.status != 401 {
			t.Errorf("%.20s: %d %s", token, a.status, a.body)
		}
	}
	w.callWith(w.signed("eve", xrpc.GetConvos, func(_, c object) { c["jti"] = "\x00\xff'" }), xrpc.GetConvos, params()).fields()
}

func leavingByAKnownCommit(t *testing.T, w *world) {
	ann := w.phone("ann").start()
	ann.add(w.phone("ben"), w.phone("cid"))
	commit := ann.commit(mls.CommitOptions{}).Message()
	same(t, "epoch", epochOf(ann.change("commit", object{"commit": blob(commit)})), 2)
	for _, target := range []string{"ben", "ann"} {
		for range 2 {
			out := w.call("ann", xrpc.LeaveConvo, w.leave(ann.id, target, commit)).fields()
			if out["newEpoch"] != 2.0 || w.convo(target, ann.id) != nil {
				t.Errorf("%s has left: %v, and is there still: %v", target, out, w.convo(target, ann.id) != nil)
			}
		}
	}
	if got := w.roles("cid", ann.id, "cid"); got != "cid:a" {
		t.Errorf("left behind: %s", got)
	}
}

func halfCreated(t *testing.T, w *world) {
	id := group("g")
	wrong := w.with(w.creation(id, "ben"), "welcomeMessage", blob([]byte("w")), "keyPackageHashes", []object{{"did": w.did("ben"), "hash": strings.Repeat("ab", 32)}})
	for range 2 {
		w.call("ann", xrpc.CreateConvo, wrong).refused("400 KeyPackageNotFound")
	}
	if w.convo("ann", id) != nil || w.convo("ben", id) != nil {
		t.Error("half a conversation is there")
	}
	w.call("eve", xrpc.CreateConvo, w.with(w.creation(id), "metadata", object{"name": "n", "description": "of the group"})).fields()
	if got := w.convo("eve", id).Metadata; got == nil || got.Description != "of the group" {
		t.Errorf("metadata %+v", got)
	}
}

func shownPushToken(t *testing.T, w *world) {
	p := w.phone("ann")
	a := w.call("ann", xrpc.RegisterDevice, p.registration(1, object{"pushToken": "a token to push with"}))
	b := w.call("ann", xrpc.ListDevices, params())
	if text := string(a.body) + string(b.body); strings.Contains(text, "to push with") || !strings.Contains(text, `"pushTokenRegistered":true`) {
		t.Errorf("answers %s", text)
	}
	w.call("eve", xrpc.GetKeyPackageStatus, params("did", w.did("ann"))).refused("403 Unauthorized")
}

func exactTimes(t *testing.T, w *world) {
	w.later.Store(1_777)
	w.create(group("g"), "ann", "ben")
	sent := w.call("ann", xrpc.SendMessage, message(group("g"), uuid(1), 0, 512)).body
	read := w.call("ben", xrpc.UpdateCursor, object{"convoId": group("g"), "messageId": uuid(1)}).fields()["readAt"]
	passing := w.call("ann", xrpc.SendMessage, w.with(message(group("g"), uuid(2), 0, 512), "delivery", "ephemeral")).body
	page := w.call("ben", xrpc.GetMessages, params("convoId", group("g"))).body
	for what, text := range map[string]string{"sent": string(sent), "read": fmt.Sprint(read), "passing": string(passing), "page": string(page)} {
		if !strings.Contains(text, ":00.000Z") || strings.Contains(text, ".9") || strings.Contains(text, w.did("ann")) {
			t.Errorf("%s: %s", what, text)
		}
	}
	w.call("eve", xrpc.SendMessage, reaction(group("g"), "addReaction", "+", uuid(1))).refused("403 NotMember")
}

func headers(t *testing.T, w *world) {
	for name, a := range map[string]answer{"good": w.call("ann", xrpc.GetConvos, params()), "refused": w.call("ann", xrpc.GetConvoSettings, params("convoId", "none")),
		"no token": w.call("", xrpc.GetConvos, params()), "unknown": w.call("ann", "com.example.nothing", object{})} {
		h := a.header
		if h.Get("Cache-Control") != "no-store" || h.Get("Content-Type") != "application/json" || h.Get("Access-Control-Allow-Origin") != "*" || h["Access-Control-Allow-Credentials"] != nil ||
			(h.Get("WWW-Authenticate") == "Bearer") != (a.status == 401) || h.Get("Server") != "" {
			t.Errorf("%s: %v", name, h)
		}
	}
	response, err := http.Get(w.http.URL + "/xrpc/" + xrpc.SendMessage)
	must(t, err)
	response.Body.Close()
	if response.StatusCode != http.StatusMethodNotAllowed || response.Header.Get("Allow") != "POST" {
		t.Errorf("by the wrong verb: %d %v", response.StatusCode, response.Header)
	}
}

func agedPackages(t *testing.T, w *world) {
	p := w.phone("ann")
	device := p.register(1, nil)
	w.fetch("eve", "ann")
	k := p.packOf(w.did("ann"), false, 80*24*time.Hour)
	in := w.item(k)
	in["expires"] = w.now().Add(80 * 24 * time.Hour)
	w.call("ann", xrpc.PublishKeyPackages, object{"action": "publish", "keyPackages": []object{in}, "deviceId": device}).fields()
	w.later.Add((79 * 24 * time.Hour).Milliseconds())
	must(t, w.store.Update(context.Background(), func(tx *store.Tx) error { return tx.Packages.Sweep() }))
	if got := w.fetch("eve", "ann"); len(got) != 1 || got[0] != hex.EncodeToString(k.Ref()) {
		t.Errorf("after 79 days: %v", got)
	}
}
