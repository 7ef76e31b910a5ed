package client

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/mls"
)

// forgedPackage is a key package in did's name whose private keys a server has.
func forgedPackage(t *testing.T, did string, certificate func(leafKey []byte) []byte) gateway.DeviceKeyPackage {
	t.Helper()
	key, err := mls.NewSignatureKey(groupSuite)
	if err != nil {
		t.Fatal(err)
	}
	identity := mls.Identity{Credential: []byte(did), Key: key}
	if certificate != nil {
		identity.Extensions = []mls.Extension{{Type: CertificateExtension, Data: certificate(key.Public())}}
	}
	p, err := mls.NewKeyPackage(groupSuite, identity, mls.KeyPackageOptions{
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return gateway.DeviceKeyPackage{DeviceID: "bob-device", KeyPackageRef: hex.EncodeToString(p.Ref()),
		KeyPackage: base64.StdEncoding.EncodeToString(p.Message())}
}

// TestSwappedKeyPackage: a delivery service that hands out a key package of its own
// in place of the peer's is refused, whatever it puts into it.
func TestSwappedKeyPackage(t *testing.T) {
	bob, eve := testAccount(t, "bob"), testAccount(t, "eve")
	issue := func(a *Account, device string, notAfter time.Time) func([]byte) []byte {
		return func(leafKey []byte) []byte {
			data, err := issueCertificate(a, device, leafKey, notAfter)
			if err != nil {
				t.Fatal(err)
			}
			return data
		}
	}
	inAnHour := time.Now().Add(time.Hour)
	stolen := issue(bob, "bob-device", inAnHour)([]byte("the leaf key of bob's own package"))
	for _, test := range []struct {
		name    string
		forged  gateway.DeviceKeyPackage
		wantErr error
	}{
		{"without a certificate", forgedPackage(t, bob.DID(), nil), ErrUncertified},
		{"with a certificate by the server", forgedPackage(t, bob.DID(), issue(eve, "bob-device", inAnHour)), ErrCertificate},
		{"with bob's certificate for another key", forgedPackage(t, bob.DID(), func([]byte) []byte { return stolen }), ErrCertificate},
		{"with an expired certificate", forgedPackage(t, bob.DID(), issue(bob, "bob-device", time.Now().Add(-time.Hour))), ErrCertificate},
		{"with another device's certificate", forgedPackage(t, bob.DID(), issue(bob, "phone", inAnHour)), ErrCertificate},
		{"of another account", forgedPackage(t, eve.DID(), issue(eve, "bob-device", inAnHour)), ErrKeyPackage},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.people("bob")
			middle := newMiddleman(w)
			var fetched atomic.Int64
			middle.answer = func(path string, body []byte) []byte {
				if path != "/v1/keypackages/fetch" {
					return body
				}
				var answer gateway.DeviceKeyPackages
				if err := json.Unmarshal(body, &answer); err != nil {
					t.Error(err)
				}
				fetched.Add(1)
				answer.Items = []gateway.DeviceKeyPackage{test.forged}
				body, _ = json.Marshal(answer)
				return body
			}
			ann := w.person("ann")
			ann.options.Server = middle.server.URL
			ann.open()
			dm, err := ann.StartDM(w.ctx, bob.DID())
			if err != nil {
				t.Fatal(err)
			}
			ann.says(dm, "for bob's eyes only")
			e := ann.nextType(EventProblem)
			if err := e.Err(); !errors.Is(err, test.wantErr) {
				t.Errorf("ann is told %v, want %v", err, test.wantErr)
			}
			w.eventually("ann asks again", func() bool { return fetched.Load() > 1 })
			c := ann.must(dm)
			if c.Phase != Founding || len(c.Members) != 1 || c.Problem == "" {
				t.Errorf("the conversation went on: %+v", c)
			}
			if n, err := ann.Pending(w.ctx); n != 1 || err != nil {
				t.Errorf("the message did not stay in the outbox: %d, %v", n, err)
			}
		})
	}
}

// TestForeignDevices: with AllowUnverified a device that nobody vouches for comes in,
// marked as such; a wrong certificate still does not.
func TestForeignDevices(t *testing.T) {
	bob, eve := testAccount(t, "bob"), testAccount(t, "eve")
	w := newWorld(t)
	ann := w.person("ann")
	ann.options.AllowUnverified = true
	ann.open()
	p, err := ann.errands.checkKeyPackage(bob.DID(), offered(t, bob.DID(), nil))
	if err != nil || p.Device != "bob-device" {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := ann.errands.checkKeyPackage("did:web:bob.example", offered(t, "did:web:bob.example", nil)); err != nil {
		t.Error(err)
	}
	_, err = ann.errands.checkKeyPackage(bob.DID(), offered(t, bob.DID(), func(leafKey []byte) []byte {
		data, err := issueCertificate(eve, "bob-device", leafKey, time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}))
	if !errors.Is(err, ErrKeyPackage) || !errors.Is(err, ErrCertificate) {
		t.Errorf("a wrong certificate: %v", err)
	}
}

// TestForgedWelcome: a delivery service cannot answer a direct conversation with a
// group of its own in the peer's name.
func TestForgedWelcome(t *testing.T) {
	w := newWorld(t)
	bob := testAccount(t, "bob")
	ann := w.people("ann")[0]
	if err := ann.WaitOnline(w.ctx); err != nil {
		t.Fatal(err)
	}
	// The server makes a group as "bob" and adds a real package of ann's.
	var messages []string
	var ref string
	w.eventually("ann has published", func() bool {
		for _, p := range ann.packages() {
			if p.IsPublished && !p.LastResort {
				ref, messages = p.Ref, []string{string(ann.message(p))}
			}
		}
		return messages != nil
	})
	key, err := mls.NewSignatureKey(groupSuite)
	if err != nil {
		t.Fatal(err)
	}
	group, err := mls.NewGroup(groupSuite, []byte("a group of the server's"), mls.Identity{Credential: []byte(bob.DID()), Key: key}, mls.GroupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	commit, err := group.Commit(mls.CommitOptions{Add: [][]byte{[]byte(messages[0])}})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, conversation string
		wantErr            error
	}{
		{"as the peer", dmID(ann.did(), bob.DID()), ErrUncertified},
		{"into a room", "a room", ErrUncertified},
	} {
		welcome := &welcome{Pos: 1000, Conversation: test.conversation, KeyPackageRef: ref, NextSeq: 2, Message: commit.Welcome()}
		if err := ann.db.update(w.ctx, func(tx *tx) error { return ann.keeper.applyWelcome(tx, welcome) }); err != nil {
			t.Fatal(err)
		}
		if e := ann.nextType(EventProblem); !errors.Is(e.Err(), test.wantErr) {
			t.Errorf("%s: ann is told %+v", test.name, e)
		}
		if _, err := ann.Conversation(w.ctx, test.conversation); !errors.Is(err, ErrUnknownConversation) {
			t.Errorf("%s: ann is in it: %v", test.name, err)
		}
	}
}

// TestGap: a server, or what stands between, that loses an event is asked for it
// again, and nothing is skipped.
func TestGap(t *testing.T) {
	w := newWorld(t)
	ann := w.people("ann")[0]
	middle := newMiddleman(w)
	var armed atomic.Bool
	middle.toClient = func(frame gateway.Frame) bool {
		return frame.Type != gateway.TypeEvent || !armed.CompareAndSwap(true, false)
	}
	bob := w.person("bob")
	bob.options.Server = middle.server.URL
	bob.open()
	dm := ann.dm(bob)
	ann.says(dm, "1")
	bob.reads("1")
	for _, text := range []string{"2", "3", "4", "5"} {
		armed.Store(true) // the next event is lost
		ann.says(dm, text)
		w.eventually("it is lost", func() bool { return !armed.Load() })
		ann.says(dm, text+"'")
		bob.reads(text + "'")
	}
	want := []string{"1", "2", "2'", "3", "3'", "4", "4'", "5", "5'"}
	got := bob.transcript(dm)
	for i := range want {
		if len(got) != len(want) || got[i] != want[i] {
			t.Fatalf("bob has %q, want %q", got, want)
		}
	}
	if stats := bob.Stats(); stats.Gaps == 0 || stats.Undecryptable != 0 {
		t.Errorf("%+v", stats)
	}
	w.agree(dm, ann, bob)
}

// TestForeignMessages: what a log may hold that is not a good message of another
// member is dropped or recorded, and what comes behind it is read.
func TestForeignMessages(t *testing.T) {
	w := newWorld(t)
	two := w.people("ann", "bob")
	ann, bob := two[0], two[1]
	dm := ann.dm(bob)
	ann.says(dm, "1")
	bob.reads("1")
	next := func() int64 { return bob.must(dm).NextSeq }
	take := func(e gateway.Event) (what outcome) {
		t.Helper()
		if err := bob.db.update(w.ctx, func(tx *tx) (err error) {
			what, err = bob.keeper.applyMessage(tx, &logMessage{conversation: e.ConvID, seq: e.Seq, id: e.MsgID, kind: e.Kind, message: decoded(e.Env)})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return what
	}
	before := next()
	if what := take(gateway.Event{ConvID: dm, Seq: before - 2, Env: "AAAA"}); what != outcomeDuplicate {
		t.Errorf("an event of the past: %v", what)
	}
	if what := take(gateway.Event{ConvID: dm, Seq: before + 1, Env: "AAAA"}); what != outcomeGap {
		t.Errorf("an event of the future: %v", what)
	}
	if what := take(gateway.Event{ConvID: "elsewhere", Seq: 1}); what != outcomeIgnored {
		t.Errorf("an event of an unknown conversation: %v", what)
	}
	if next() != before {
		t.Errorf("the cursor moved from %d to %d", before, next())
	}
	// A message of the group's that says it is a commit, the same one twice, and noise.
	message := func(text string) string {
		var out []byte
		if err := ann.db.update(w.ctx, func(tx *tx) error {
			conv := tx.conversation(dm)
			message, next, err := conv.group.Seal([]byte(text), nil, mls.SealOptions{})
			out = message
			conv.setGroup(next)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(out)
	}
	good := message("good")
	for _, test := range []struct {
		name, env, kind string
		want            EventType
	}{
		{"announced as a commit", good, gateway.KindCommit, EventUndecryptable},
		{"as it is", good, gateway.KindApp, EventMessage},
		{"again", good, gateway.KindApp, EventUndecryptable},
		{"noise", "AAECAw==", gateway.KindApp, EventUndecryptable},
		{"not base64", "hello!", gateway.KindApp, EventUndecryptable},
		{"after all that", message("fine"), gateway.KindApp, EventMessage},
	} {
		seq := next()
		if what := take(gateway.Event{ConvID: dm, Seq: seq, MsgID: test.name, Env: test.env, Kind: test.kind}); what != outcomeApplied {
			t.Errorf("%s: %v", test.name, what)
		}
		e := bob.next(test.name, func(e Event) bool { return e.Seq == seq })
		if e.Type != test.want {
			t.Errorf("%s: got %+v, want %s", test.name, e, test.want)
		}
	}
	// Somebody else's message under the msg_id of one of ours: ours goes out again.
	bob.net.setDown(true)
	bob.says(dm, "mine")
	var wire string
	if err := bob.db.update(w.ctx, func(tx *tx) error {
		o, err := tx.Outbox.Next(dm, 0)
		wire = o.Wire
		return err
	}); err != nil {
		t.Fatal(err)
	}
	take(gateway.Event{ConvID: dm, Seq: next(), MsgID: wire, Env: message("theirs"), Kind: gateway.KindApp})
	if e := bob.reads("theirs"); e.Own {
		t.Errorf("taken for an own message: %+v", e)
	}
	if n, err := bob.Pending(w.ctx); n != 1 || err != nil {
		t.Errorf("%d pending, %v", n, err)
	}
}

// TestRemovedGoesOn: who was removed still has the keys of past epochs, and a server
// that goes on delivering for them is of no use.
func TestRemovedGoesOn(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob", "cid")
	ann, bob, cid := people[0], people[1], people[2]
	room := w.room(people...)
	bobs, err := bob.snapshot(w.ctx, room)
	if err != nil {
		t.Fatal(err)
	}
	late, next, err := bobs.group.Seal([]byte("on its way"), nil, mls.SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	later, _, err := next.Seal([]byte("i am still here"), nil, mls.SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	take := func(p *person, message []byte) {
		t.Helper()
		if err := p.db.update(w.ctx, func(tx *tx) error {
			conv := tx.conversation(room)
			_, err = p.keeper.applyMessage(tx, &logMessage{conversation: room, seq: conv.nextSeq, id: randomID(), kind: kindApp,
				message: message})
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	// In an epoch that is over, by somebody who is still there: it was on its way.
	if err := ann.Refresh(w.ctx, room); err != nil {
		t.Fatal(err)
	}
	w.eventually("cid is further", func() bool { return cid.must(room).Epoch > bobs.epoch() })
	w.agree(room, people...)
	take(cid, late)
	cid.reads("on its way")
	if err := ann.Remove(w.ctx, room, bob.did()); err != nil {
		t.Fatal(err)
	}
	bob.nextType(EventRemoved)
	w.eventually("ann knows", func() bool { return len(ann.must(room).Members) == 2 })
	take(ann, later)
	if e := ann.nextType(EventUndecryptable); !strings.Contains(e.Problem, "no longer in the group") || e.From.Account != bob.did() {
		t.Errorf("ann is told %+v", e)
	}
	if slices.Contains(ann.transcript(room), "i am still here") {
		t.Error("ann has it in her history")
	}
}

// TestWithheldCommits: a server that says it is further, and does not show how it came
// there, is not waited for forever.
func TestWithheldCommits(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann := people[0]
	room := w.room(people...)
	conv, err := ann.snapshot(w.ctx, room)
	if err != nil {
		t.Fatal(err)
	}
	s := newSession(ann.Client, nil, nil)
	sub := s.sub(room)
	if s.isStalled(conv, sub) {
		t.Error("stalled without a reason")
	}
	sub.hold(conv.epoch() + 3)
	if s.isStalled(conv, sub) {
		t.Error("stalled at once")
	}
	sub.heldAt = sub.heldAt.Add(-answerTimeout - time.Second)
	if !s.isStalled(conv, sub) {
		t.Error("not stalled after a long time")
	}
	sub.hold(conv.epoch())
	if s.isStalled(conv, sub) {
		t.Error("stalled twice")
	}
}

// offered is forgedPackage as the session has it from the server.
func offered(t *testing.T, credential string, certify func(leafKey []byte) []byte) offeredPackage {
	item := forgedPackage(t, credential, certify)
	return offeredPackage{item.DeviceID, item.KeyPackageRef, decoded(item.KeyPackage)}
}
