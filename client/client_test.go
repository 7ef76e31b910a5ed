package client

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

func TestDirectMessage(t *testing.T) {
	w := newWorld(t)
	ann := w.people("ann")[0]
	bob := w.person("bob")
	dm := ann.dm(bob)
	ann.says(dm, "are you there?") // bob has never been: the message waits
	w.eventually("ann founds the group", func() bool {
		c, err := ann.Conversation(w.ctx, dm)
		return err == nil && c.Phase == Founding
	})
	bob.open()
	joined := bob.nextType(EventJoined)
	if joined.Conversation != dm || len(joined.Members) != 2 {
		t.Errorf("bob joins %+v", joined)
	}
	for _, m := range joined.Members {
		if !m.Verified || m.Device == "" {
			t.Errorf("member is not verified: %+v", m)
		}
	}
	e := bob.reads("are you there?")
	if e.From.Account != ann.did() || e.From.Device != "ann-device" || !e.From.Verified || e.Own {
		t.Errorf("bob reads from %+v", e)
	}
	bob.says(dm, "now I am")
	if e := ann.reads("now I am"); e.From.Account != bob.did() {
		t.Errorf("ann reads from %+v", e)
	}
	own := bob.reads("now I am")
	if !own.Own || own.From.Account != bob.did() {
		t.Errorf("bob sees his own message as %+v", own)
	}
	w.agree(dm, ann, bob)
	if err := ann.Flush(w.ctx); err != nil {
		t.Error(err)
	}
	c, err := bob.Conversation(w.ctx, dm)
	if err != nil || c.Kind != DM || c.Peer != ann.did() || c.Phase != Joined || c.Problem != "" {
		t.Errorf("bob's conversation is %+v, %v", c, err)
	}
	known, err := bob.Devices(w.ctx, ann.did())
	if err != nil || len(known) != 1 || known[0].Member != ann.Self() {
		t.Errorf("bob knows ann as %+v, %v", known, err)
	}
}

func TestBothStartAtOnce(t *testing.T) {
	w := newWorld(t)
	for _, pair := range [][2]string{{"ann", "bob"}, {"cid", "dee"}, {"eva", "flo"}} {
		two := w.people(pair[:]...)
		a, b := two[0], two[1]
		start := make(chan struct{})
		ids := make(chan string, 2)
		for _, who := range [][2]*person{{a, b}, {b, a}} {
			go func() {
				<-start
				id, err := who[0].StartDM(w.ctx, who[1].did())
				if err == nil {
					_, err = who[0].Send(w.ctx, id, []byte("from "+who[0].name))
				}
				if err != nil {
					t.Error(err)
				}
				ids <- id
			}()
		}
		close(start)
		id := <-ids
		if other := <-ids; id != other {
			t.Fatalf("two conversations: %s and %s", id, other)
		}
		a.reads("from " + b.name)
		b.reads("from " + a.name)
		for _, p := range two {
			if err := p.Flush(w.ctx); err != nil {
				t.Fatal(err)
			}
		}
		w.agree(id, a, b)
		w.eventually("both have both messages", func() bool {
			return len(a.transcript(id)) == 2 && slices.Equal(a.transcript(id), b.transcript(id))
		})
	}
}

func TestRoom(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob", "cid")
	ann, bob, cid := people[0], people[1], people[2]
	for _, p := range people {
		if err := p.WaitOnline(w.ctx); err != nil {
			t.Fatal(err)
		}
	}
	room, err := ann.CreateRoom(w.ctx, bob.did())
	if err != nil {
		t.Fatal(err)
	}
	ann.says(room, "welcome")
	bob.nextType(EventJoined)
	bob.says(room, "thanks")
	ann.reads("thanks")
	if err := ann.Invite(w.ctx, room, cid.did()); err != nil {
		t.Fatal(err)
	}
	cid.nextType(EventJoined)
	if e := bob.nextType(EventMembers); len(e.Members) != 1 || e.Members[0].Account != cid.did() {
		t.Errorf("bob sees %+v", e)
	}
	cid.says(room, "hello all")
	for _, p := range people {
		p.reads("hello all")
	}
	w.agree(room, people...)
	// A plain member may not invite: the server says so and nothing breaks.
	dee := w.people("dee")[0]
	if err := bob.Invite(w.ctx, room, dee.did()); err != nil {
		t.Fatal(err)
	}
	var refusal *Refusal
	if e := bob.nextType(EventProblem); !errors.As(e.Err(), &refusal) || refusal.Code != codeForbidden {
		t.Errorf("bob is told %+v", e)
	}
	bob.says(room, "I tried")
	cid.reads("I tried")
	w.agree(room, people...)
	if c, err := bob.Conversation(w.ctx, room); err != nil || len(c.Inviting) != 0 {
		t.Errorf("bob still invites: %+v, %v", c, err)
	}
}

func TestInviteSomebodyWithoutKeyPackages(t *testing.T) {
	w := newWorld(t)
	ann := w.people("ann")[0]
	bob := w.person("bob")
	room, err := ann.CreateRoom(w.ctx, bob.did())
	if err != nil {
		t.Fatal(err)
	}
	ann.says(room, "alone")
	ann.reads("alone") // the room stands with its founder alone
	bob.open()
	bob.nextType(EventJoined)
	ann.says(room, "together")
	bob.reads("together")
	w.agree(room, ann, bob)
}

func TestRestartOfEverything(t *testing.T) {
	w := newWorld(t)
	two := w.people("ann", "bob")
	ann, bob := two[0], two[1]
	dm := ann.dm(bob)
	ann.says(dm, "1")
	bob.reads("1")
	w.stopServer()
	bob.says(dm, "2")
	bob.close()
	w.startServer()
	bob.open()
	ann.reads("2")
	ann.close()
	bob.says(dm, "3")
	bob.reads("3")
	ann.open()
	ann.reads("3")
	want := []string{"1", "2", "3"}
	if got := ann.transcript(dm); !slices.Equal(got, want) {
		t.Errorf("ann has %q", got)
	}
	if got := bob.transcript(dm); !slices.Equal(got, want) {
		t.Errorf("bob has %q", got)
	}
	w.agree(dm, ann, bob)
}

func TestEventsAreReadOnce(t *testing.T) {
	w := newWorld(t)
	two := w.people("ann", "bob")
	ann, bob := two[0], two[1]
	dm := ann.dm(bob)
	for _, text := range []string{"1", "2", "3"} {
		ann.says(dm, text)
	}
	bob.reads("3")
	read := func(p *person, until string) (texts []string, last int64) {
		for {
			e, err := p.Next(w.ctx)
			if err != nil {
				t.Fatal(err)
			}
			if e.Type != EventMessage {
				continue
			}
			texts = append(texts, string(e.Text))
			if string(e.Text) == until {
				return texts, e.ID
			}
		}
	}
	_, id := read(bob, "1")
	if err := bob.Ack(w.ctx, id); err != nil {
		t.Fatal(err)
	}
	read(bob, "2") // read and not acknowledged: it comes again after a restart
	bob.close()
	bob.open()
	if texts, _ := read(bob, "3"); !slices.Equal(texts, []string{"2", "3"}) {
		t.Errorf("after a restart bob reads %q", texts)
	}
	if got := bob.transcript(dm); !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Errorf("bob's history is %q", got)
	}
	if page, err := bob.History(w.ctx, dm, bob.must(dm).NextSeq-1, 1); err != nil || len(page) != 1 || string(page[0].Text) != "2" {
		t.Errorf("a page of bob's history is %+v, %v", page, err)
	}
}

func (p *person) must(conversation string) Conversation {
	p.w.t.Helper()
	c, err := p.Conversation(p.w.ctx, conversation)
	if err != nil {
		p.w.t.Fatal(err)
	}
	return c
}

func TestOpen(t *testing.T) {
	w := newWorld(t)
	ann := w.people("ann")[0]
	if err := ann.tryOpen(nil); !errors.Is(err, ErrInUse) {
		t.Errorf("a second client: %v", err)
	}
	ann.close()
	wrong := *ann
	wrong.options.StorageKey = bytes.Repeat([]byte{2}, StorageKeyBytes)
	if err := wrong.tryOpen(nil); !errors.Is(err, ErrStorageKey) {
		t.Errorf("a wrong storage key: %v", err)
	}
	wrong.options = ann.options
	wrong.options.Account = testAccount(t, "bob")
	if err := wrong.tryOpen(nil); !errors.Is(err, ErrHome) {
		t.Errorf("another account: %v", err)
	}
	wrong.options = ann.options
	wrong.options.DeviceID = "another"
	if err := wrong.tryOpen(nil); !errors.Is(err, ErrHome) {
		t.Errorf("another device: %v", err)
	}
	wrong.options = ann.options
	wrong.options.Server = "chat.example"
	if err := wrong.tryOpen(nil); err == nil {
		t.Error("a server that is no URL is taken")
	}
	ann.options.DeviceID = "" // keeps the one that the home has
	ann.open()
	if ann.DeviceID() != "ann-device" {
		t.Errorf("the device is now %s", ann.DeviceID())
	}
	ann.close()
	if _, err := ann.options.Account.sign(nil); err != nil {
		t.Error(err)
	}
}

func TestClosed(t *testing.T) {
	w := newWorld(t)
	ann := w.people("ann")[0]
	c := ann.Client
	ann.close()
	if _, err := c.Next(w.ctx); !errors.Is(err, ErrClosed) {
		t.Errorf("Next: %v", err)
	}
	if _, err := c.Send(w.ctx, "x", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Send: %v", err)
	}
	if err := c.WaitOnline(w.ctx); !errors.Is(err, ErrClosed) {
		t.Errorf("WaitOnline: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
}

func TestNothingReadableAtRest(t *testing.T) {
	w := newWorld(t)
	two := w.people("ann", "bob")
	ann, bob := two[0], two[1]
	const secret = "the cat sleeps in the piano"
	dm := ann.dm(bob)
	ann.says(dm, secret)
	bob.reads(secret)
	bob.says(dm, secret) // and one that stays in the outbox
	w.stopServer()
	ann.says(dm, secret)
	for _, p := range two {
		var kept tokens
		if err := p.db.update(w.ctx, func(tx *tx) error {
			_, err := tx.Settings.Get("tokens", &kept)
			return err
		}); err != nil || kept.Resume == "" {
			t.Fatalf("tokens: %v", err)
		}
		key, err := p.identity.Key.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(p.options.Dir, "*"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no files: %v", err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for name, part := range map[string][]byte{"text": []byte(secret), "own DID": []byte(ann.did()), "peer's DID": []byte(bob.did()),
				"token": []byte(kept.Resume), "signature key": key[len(key)-32:]} {
				if bytes.Contains(content, part) {
					t.Errorf("%s shows a %s", filepath.Base(file), name)
				}
			}
			if info, err := os.Stat(file); err != nil || info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has mode %v, %v", filepath.Base(file), info.Mode(), err)
			}
		}
	}
}

func TestOffline(t *testing.T) {
	w := newWorld(t)
	ann := w.person("ann")
	ann.net.setDown(true)
	ann.open()
	ctx, cancel := context.WithTimeout(w.ctx, 50*time.Millisecond)
	defer cancel()
	if err := ann.WaitOnline(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("online without a network: %v", err)
	}
	bob := w.people("bob")[0]
	dm := ann.dm(bob)
	ann.says(dm, "written in the train")
	if n, err := ann.Pending(w.ctx); n != 1 || err != nil {
		t.Errorf("%d pending, %v", n, err)
	}
	ann.close()
	ann.net.setDown(false)
	ann.open()
	bob.reads("written in the train")
	if err := ann.Flush(w.ctx); err != nil {
		t.Error(err)
	}
}

func TestSendIsChecked(t *testing.T) {
	w := newWorld(t)
	ann := w.people("ann")[0]
	if _, err := ann.Send(w.ctx, "nowhere", []byte("x")); !errors.Is(err, ErrUnknownConversation) {
		t.Errorf("unknown conversation: %v", err)
	}
	room, err := ann.CreateRoom(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ann.Send(w.ctx, room, make([]byte, TextBytesMax+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	largest := bytes.Repeat([]byte("x"), TextBytesMax)
	if _, err := ann.Send(w.ctx, room, largest); err != nil {
		t.Error(err)
	}
	ann.reads(string(largest))
	for _, did := range []string{"", ann.did(), "did:key:z0", "a\x00b"} {
		if _, err := ann.StartDM(w.ctx, did); err == nil {
			t.Errorf("a direct conversation with %q starts", did)
		}
	}
}

// TestTwoDevicesFoundOneConversation: two devices of an account start the same
// direct conversation. The group of one is bound to it; the other device steps back
// and waits to be invited.
func TestTwoDevicesFoundOneConversation(t *testing.T) {
	w := newWorld(t)
	bob := w.people("bob")[0]
	if err := bob.WaitOnline(w.ctx); err != nil {
		t.Fatal(err)
	}
	first, second := w.person("ann"), w.person("ann")
	second.options.DeviceID = "ann-tablet"
	middle := newMiddleman(w) // holds the second device's packages back, so that both found
	var open atomic.Bool
	middle.answer = func(path string, body []byte) []byte {
		if path == "/v1/keypackages/fetch" && !open.Load() {
			return []byte(`{"items":[],"served_by":"","user_home_gateway":""}`)
		}
		return body
	}
	second.options.Server = middle.server.URL
	second.open()
	dm := second.dm(bob)
	w.eventually("the second device founds", func() bool { return second.must(dm).Phase == Founding })
	first.open()
	first.dm(bob)
	first.says(dm, "from the first")
	bob.reads("from the first")
	open.Store(true)
	second.nextType(EventProblem)
	if c := second.must(dm); c.Phase != Waiting || len(c.Members) != 0 {
		t.Errorf("the second device is at %+v", c)
	}
	bob.says(dm, "still there")
	first.reads("still there")
	w.agree(dm, first, bob)
}
