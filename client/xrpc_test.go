package client

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/testsize"
	"waxwing.im/waxwing/mls"
)

// newXRPCWorld is a world in which the people of these names use XRPC; without names,
// everybody.
func newXRPCWorld(t testing.TB, names ...string) *world {
	w := newWorld(t)
	w.overXRPC = func(name string) bool {
		return len(names) == 0 || slices.ContainsFunc(names, func(n string) bool { return name == n || strings.HasPrefix(name, n+"-") })
	}
	return w
}

// TestXRPCSameConversation: two who start the direct conversation with each other at the
// same moment, through different doors, come out in one; and a room under its name is
// none.
func TestXRPCSameConversation(t *testing.T) {
	w := newXRPCWorld(t, "xara", "xeno")
	for _, names := range [][2]string{{"ann", "xara"}, {"bob", "xeno"}} {
		people := w.people(names[:]...)
		var starting sync.WaitGroup
		ids := make([]string, 2)
		for i, p := range people {
			starting.Go(func() {
				var err error
				if ids[i], err = p.StartDM(w.ctx, people[1-i].did()); err != nil {
					t.Error(err)
				}
			})
		}
		starting.Wait()
		if ids[0] != ids[1] {
			t.Fatalf("they are in %q", ids)
		}
		for i, p := range people {
			p.says(ids[0], "from "+p.name)
			people[1-i].reads("from " + p.name)
		}
		w.agree(ids[0], people...)
	}
	// Somebody makes a room of the name that two others would use, to be told what one
	// of them says to the other.
	people := w.people("cid", "xeno-2", "dee")
	cid, xeno, dee := people[0], people[1], people[2]
	for _, victim := range []*person{cid, xeno} {
		if err := victim.WaitOnline(w.ctx); err != nil {
			t.Fatal(err)
		}
		id := dmID(victim.did(), testAccount(t, "eve").DID())
		if err := dee.db.update(w.ctx, func(tx *tx) error {
			return dee.keeper.want(tx.addConversation(id, Creating, conversationInfo{Kind: Room}, dee.now()), []string{victim.did()})
		}); err != nil {
			t.Fatal(err)
		}
		dee.wake(id)
		victim.joins(id)
		if c := victim.must(id); c.Kind != Room {
			t.Errorf("%s takes it for %+v", victim.name, c)
		}
		if _, err := victim.StartDM(w.ctx, testAccount(t, "eve").DID()); !errors.Is(err, ErrTaken) {
			t.Errorf("%s talks to eve in it: %v", victim.name, err)
		}
		// Who has started it before is not let into anything else.
		id = dmID(victim.did(), testAccount(t, "flo").DID())
		if _, err := victim.StartDM(w.ctx, testAccount(t, "flo").DID()); err != nil {
			t.Fatal(err)
		}
		if err := victim.db.update(w.ctx, func(tx *tx) error {
			conv := tx.conversation(id)
			if _, _, err := victim.keeper.kindOf(id, mustGroup(t, victim, dee, id), conv); err == nil {
				t.Errorf("%s would take a group with dee for the conversation with flo", victim.name)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// mustGroup is a group of that name with a member called like other in it.
func mustGroup(t *testing.T, one, other *person, id string) *mls.Group {
	t.Helper()
	name, err := hex.DecodeString(id)
	if err != nil {
		t.Fatal(err)
	}
	group, err := mls.NewGroup(groupSuite, name, one.identity, mls.GroupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := mls.NewKeyPackage(groupSuite, other.identity, mls.KeyPackageOptions{NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	commit, err := group.Commit(mls.CommitOptions{Add: [][]byte{p.Message()}})
	if err != nil {
		t.Fatal(err)
	}
	next, err := commit.Apply(commit.Base())
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// TestXRPCRace: commits through both doors at the same moment: one wins each epoch, and
// what the others were for is done all the same.
func TestXRPCRace(t *testing.T) {
	w := newXRPCWorld(t, "xara", "xeno")
	people := w.people("ann", "xara", "bob", "xeno")
	room := w.room(people...)
	guests := w.people("dee", "xeno-2")
	for _, p := range guests {
		if err := p.WaitOnline(w.ctx); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 5 {
		var racing sync.WaitGroup
		for _, p := range people {
			racing.Go(func() {
				p.says(room, fmt.Sprint(p.name, round))
				if err := p.Refresh(w.ctx, room); err != nil {
					t.Error(err)
				}
			})
		}
		if round == 2 {
			if err := people[0].Invite(w.ctx, room, dids(guests...)...); err != nil {
				t.Fatal(err)
			}
		}
		racing.Wait()
		for _, p := range people {
			w.eventually(p.name+" has fresh keys", func() bool {
				conv, err := p.snapshot(w.ctx, room)
				return err == nil && !conv.info.Refresh
			})
			if err := p.Flush(w.ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.settles(room, slices.Concat(people, guests)...)
	var lost int64
	for _, p := range people {
		for _, other := range people {
			w.eventually(p.name+" has all of "+other.name, func() bool {
				count := 0
				for _, text := range p.transcript(room) {
					if strings.HasPrefix(text, other.name) {
						count++
					}
				}
				return count == 5
			})
		}
		s := p.Stats()
		lost += s.LostRaces
		if s.Undecryptable+s.Rejoins+s.Rewinds != 0 || s.Commits < 5 {
			t.Errorf("%s: %+v", p.name, s)
		}
	}
	if lost == 0 {
		t.Error("nobody has lost a race")
	}
}

// TestXRPCCrash: a client over XRPC loses its power at every point between two writes of
// a first conversation, with a peer at the one door and at the other.
func TestXRPCCrash(t *testing.T) {
	for i, row := range []struct{ victim, over string }{
		{"founder", "founder"}, {"joiner", "joiner"}, {"founder", ""}, {"joiner", ""}, {"joiner", "founder"},
	} {
		t.Run(row.victim+" over "+row.over, func(t *testing.T) {
			w := newWorld(t)
			w.overXRPC = func(name string) bool { return strings.Contains(name, "-"+row.over) }
			first, step := testsize.Of(1+6*i, 1), testsize.Of(30, 1) // each row has other points
			for n := first; ; n += step {
				w.limit(time.Minute) // for each
				if !crashScript(w, row.victim, n) {
					t.Logf("%d points", n-1)
					if n < 20 {
						t.Error("that are too few to be true")
					}
					return
				}
				if t.Failed() {
					return
				}
			}
		})
	}
}

// TestXRPCCuts: connections break and the server restarts while all talk. Everybody has
// everything once, in one order.
func TestXRPCCuts(t *testing.T) {
	w := newXRPCWorld(t, "xara", "xeno")
	people := w.people("ann", "xara", "xeno")
	room := w.room(people...)
	stop := w.cutting(100*time.Millisecond, 5, people...)
	count := 40
	if raceDetector {
		count = 15
	}
	var talking sync.WaitGroup
	for _, p := range people {
		talking.Go(func() {
			for i := range count {
				p.says(room, fmt.Sprintf("%s %03d", p.name, i))
				if i%10 == 0 {
					if err := p.Refresh(w.ctx, room); err != nil {
						t.Error(err)
					}
				}
				pause(w.ctx, 20*time.Millisecond)
			}
		})
	}
	talking.Wait()
	stop()
	for _, p := range people {
		if err := p.Flush(w.ctx); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range people {
		w.eventually(p.name+" has everything", func() bool { return len(p.transcript(room)) == count*len(people) })
		if got, want := p.transcript(room), people[0].transcript(room); !slices.Equal(got, want) {
			t.Errorf("%s has %q, ann %q", p.name, got, want)
		}
		if s := p.Stats(); s.Undecryptable+s.Rewinds+s.Rejoins != 0 {
			t.Errorf("%s: %+v", p.name, s)
		}
	}
	for _, p := range people {
		own := slices.DeleteFunc(p.transcript(room), func(text string) bool { return !strings.HasPrefix(text, p.name+" ") })
		if !slices.IsSorted(own) || len(own) != count {
			t.Errorf("%s has said %q", p.name, own)
		}
	}
	w.agree(room, people...)
}

// TestXRPCAway: what happens while a client over XRPC is away is there when it is back:
// messages, invitations, and that it was removed and invited again.
func TestXRPCAway(t *testing.T) {
	w := newXRPCWorld(t, "xara")
	people := w.people("ann", "xara", "bob")
	ann, xara, bob := people[0], people[1], people[2]
	room := w.room(people...)
	xara.says(room, "good night")
	ann.reads("good night")
	xara.close()
	for i := range 120 { // more than a page
		ann.says(room, fmt.Sprint("meanwhile ", i))
	}
	second, err := ann.CreateRoom(w.ctx, xara.did())
	if err != nil {
		t.Fatal(err)
	}
	ann.joins(second)
	ann.says(second, "in the other room")
	if err := ann.Flush(w.ctx); err != nil {
		t.Fatal(err)
	}
	xara.open()
	xara.joins(second)
	w.eventually("xara has read everything", func() bool {
		return len(xara.transcript(room)) == 121 && slices.Contains(xara.transcript(second), "in the other room")
	})
	xara.close()
	w.takesOut(room, ann, xara)
	if err := ann.Invite(w.ctx, room, xara.did()); err != nil {
		t.Fatal(err)
	}
	w.eventually("xara is in the group again", func() bool { return slices.Contains(ann.members(room), xara.did()) })
	ann.says(room, "welcome back")
	xara.open()
	xara.reads("welcome back")
	w.settles(room, ann, bob, xara)
	xara.says(room, "thank you")
	bob.reads("thank you")
	w.takesOut(room, ann, xara)
	xara.next("to be removed", func(e Event) bool { return e.Type == EventRemoved && e.Conversation == room })
	w.settles(room, ann, bob)
	if err := ann.Invite(w.ctx, room, xara.did()); err != nil {
		t.Fatal(err)
	}
	w.settles(room, ann, bob, xara)
}

// takesOut lets one remove another, and waits until it is done.
func (w *world) takesOut(room string, one, other *person) {
	w.t.Helper()
	if err := one.Remove(w.ctx, room, other.did()); err != nil {
		w.t.Fatal(err)
	}
	w.eventually(other.name+" is out", func() bool { return !slices.Contains(one.members(room), other.did()) })
}

// TestXRPCDevices: a second device comes in by itself, whichever door it uses, and goes
// when it is declared lost.
func TestXRPCDevices(t *testing.T) {
	w := newXRPCWorld(t, "xara")
	people := w.people("ann", "xara")
	ann, xara := people[0], people[1]
	room := w.room(ann, xara)
	dm := xara.dm(ann)
	xara.says(dm, "hello")
	ann.reads("hello")
	tablet := xara.device("tablet")
	tablet.open()
	for range 2 {
		tablet.nextType(EventJoined)
	}
	phone := ann.device("phone")
	phone.options.useXRPC = true
	phone.open()
	for range 2 {
		phone.nextType(EventJoined)
	}
	for _, id := range []string{room, dm} {
		w.agree(id, ann, xara, tablet, phone)
	}
	third, err := ann.CreateRoom(w.ctx, xara.did())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*person{ann, xara, tablet, phone} {
		p.joins(third)
	}
	w.agree(third, ann, xara, tablet, phone)
	if err := xara.RemoveDevice(w.ctx, "tablet"); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{room, dm, third} {
		w.eventually("the tablet is out", func() bool { return slices.Equal(ann.devicesOf(id, xara), []string{"xara-device"}) })
	}
	// The server is told beside that, in its own time.
	w.eventually("the tablet is revoked", func() bool {
		var left []string
		err := xara.db.update(w.ctx, func(tx *tx) error { _, err := tx.Settings.Get("revoke", &left); return err })
		return err == nil && len(left) == 0
	})
	if packages, refused, err := ann.errands.fetchKeyPackages(w.ctx, ann.calls(), xara.did()); err != nil || refused != nil || len(packages) != 1 {
		t.Errorf("of xara's devices there are %d packages: %v, %v", len(packages), refused, err)
	}
}

// devicesOf are the devices of somebody in the person's view of a group.
func (p *person) devicesOf(conversation string, of *person) []string {
	p.w.t.Helper()
	var out []string
	for _, m := range p.must(conversation).Members {
		if m.Account == of.did() {
			out = append(out, m.Device)
		}
	}
	return out
}

// TestXRPCKeyPackages: the pool is filled again when others have taken from it, by either
// door.
func TestXRPCKeyPackages(t *testing.T) {
	w := newXRPCWorld(t, "xara", "xeno")
	people := w.people("ann", "xeno", "xara")
	xara := people[2]
	for i := range 10 { // of 4 packages
		room, err := people[i%2].CreateRoom(w.ctx, xara.did())
		if err != nil {
			t.Fatal(err)
		}
		xara.joins(room)
	}
	w.eventually("the pool is full again", func() bool {
		available, err := xara.xrpcDoor().upload(w.ctx, nil)
		return err == nil && available >= 3
	})
	var used int
	for _, k := range xara.packages() {
		if k.LastResort {
			used++
		}
	}
	if used != 1 {
		t.Errorf("%d packages of last resort", used)
	}
}
