package client

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"waxwing.im/waxwing/internal/testsize"
)

func (p *person) setName(name string) {
	p.w.t.Helper()
	if err := p.Contacts().SetName(p.w.ctx, name); err != nil {
		p.w.t.Fatal(err)
	}
}

func (p *person) setAlias(of *person, alias string) {
	p.w.t.Helper()
	if err := p.Contacts().SetAlias(p.w.ctx, of.did(), alias); err != nil {
		p.w.t.Fatal(err)
	}
}

// knows waits until p shows an account by this label.
func (p *person) knows(other *person, label string) {
	p.w.t.Helper()
	for p.Contacts().Get(other.did()).Label() != label {
		p.next("the name "+label, func(e Event) bool { return e.Type == EventName && e.From.Account == other.did() })
	}
}

// TestNames: two accounts with two devices each learn each other's names, and the devices of an
// account share the aliases that a person gives on one of them.
func TestNames(t *testing.T) {
	overBothDoors(t, func(t *testing.T, w *world) {
		all := w.people("ann", "bob")
		ann, bob := all[0], all[1]
		ann.setName("  Ann\u00a0 Lee ")
		dm := ann.dm(bob)
		ann.says(dm, "hello")
		name := bob.next("the first event of a member", func(e Event) bool { return e.Type == EventName || e.Type == EventMessage })
		if name.Type != EventName || name.Name != "Ann Lee" || name.Conversation != dm || name.From.Account != ann.did() || !name.From.Verified {
			t.Errorf("before the message comes %+v", name)
		}
		bob.setName("Bob")
		ann.knows(bob, "Bob")

		tablet, phone := ann.device("ann-tablet"), bob.device("bob-phone")
		for _, p := range []*person{tablet, phone} {
			p.open()
			p.nextType(EventJoined)
		}
		phone.knows(ann, "Ann Lee")
		phone.knows(bob, "Bob")
		tablet.knows(bob, "Bob")
		tablet.knows(ann, "Ann Lee")

		bob.setAlias(ann, "Anna")
		phone.knows(ann, "Anna")
		phone.setAlias(ann, "Annie")
		bob.knows(ann, "Annie")
		ann.setName("A.")
		for _, p := range []*person{bob, phone} {
			p.next("a name that is not shown", func(e Event) bool { return e.Type == EventName && e.Name == "A." })
			p.knows(ann, "Annie")
		}
		late := bob.device("bob-laptop")
		late.open()
		late.nextType(EventJoined)
		late.knows(ann, "Annie")
		for late.Contacts().Get(ann.did()).Name != "A." {
			late.nextType(EventName)
		}
		late.close()
		late.open()
		if got := late.Contacts().Get(ann.did()); got.Alias != "Annie" || got.Name != "A." {
			t.Errorf("after a restart: %+v", got)
		}
		bob.setAlias(ann, "")
		for _, p := range []*person{bob, phone, late} {
			p.knows(ann, "A.")
			if list, err := p.Conversations(w.ctx); err != nil || len(list) != 1 || list[0].Unread > 1 {
				t.Errorf("%s lists %+v, %v", p.options.DeviceID, list, err)
			}
			if own, err := p.OwnDevices(w.ctx); err != nil || len(own) != 3 || len(own[0].Conversations) != 1 {
				t.Errorf("%s has %+v, %v", p.options.DeviceID, own, err)
			}
			if got := p.transcript(dm); len(got) > 1 {
				t.Errorf("%s shows %q", p.options.DeviceID, got)
			}
		}
		for _, p := range []*person{ann, tablet, bob, phone, late} {
			if err := p.Flush(w.ctx); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestNamesInRooms: a newcomer learns the names of a small room by itself, and those of a large one
// with the next message of each member.
func TestNamesInRooms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t)
		var names []string
		for i := range introduceAccountsMax + 1 {
			names = append(names, fmt.Sprintf("p%d", i))
		}
		people := w.people(names...)
		for _, p := range people {
			p.setName("I am " + p.name)
		}
		last := len(people) - 1
		room := w.room(people[:last-1]...)
		sent := func() int64 {
			synctest.Wait()
			time.Sleep(time.Minute)
			synctest.Wait()
			return people[0].must(room).NextSeq
		}
		before := sent()
		join := func(p *person) {
			if err := people[0].Invite(w.ctx, room, p.did()); err != nil {
				t.Fatal(err)
			}
			p.nextType(EventJoined)
		}
		join(people[last-1])
		for _, p := range people[:last-1] {
			people[last-1].knows(p, "I am "+p.name)
			p.knows(people[last-1], "I am "+people[last-1].name)
		}
		if got := sent() - before; got != 1+introduceAccountsMax {
			t.Errorf("a newcomer to a small room causes %d messages", got)
		}
		before = sent()
		newcomer := people[last]
		join(newcomer)
		if got := sent() - before; got != 1 {
			t.Errorf("a newcomer to a large room causes %d messages", got)
		}
		people[3].tells(room, "hi", newcomer)
		newcomer.knows(people[3], "I am p3")
		if got := newcomer.Contacts().Get(people[4].did()); got.Name != "" {
			t.Errorf("a silent member is known as %q", got.Name)
		}
		before = sent()
		people[4].setName("new")
		newcomer.knows(people[4], "new")
		if got := sent() - before; got != 1 {
			t.Errorf("a new name causes %d messages", got)
		}
	})
}

// TestNamesOfHostiles: what a member claims costs little, is cut, and loses to nothing.
func TestNamesOfHostiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t)
		all := w.people("ann", "bob", "eve")
		ann, bob, eve := all[0], all[1], all[2]
		room := w.room(ann, bob, eve)
		bob.setName("Bob")
		ann.knows(bob, "Bob")
		at := time.Now().UnixMilli()
		claim := func(payload string) Contact {
			t.Helper()
			if err := eve.db.edit(w.ctx, room, func(tx *tx, conv *conversation) error {
				return eve.keeper.addContent(tx, conv, contentProfile, rawJSON(payload))
			}); err != nil {
				t.Fatal(err)
			}
			eve.wake(room)
			eve.tells(room, "now", ann)
			return ann.Contacts().Get(eve.did())
		}
		for _, test := range []struct{ name, claim, want string }{
			{"10 KiB", strings.Repeat("x", 10<<10), strings.Repeat("x", nameRunesMax)},
			{"many bytes", strings.Repeat("\U0001f600", 100), strings.Repeat("\U0001f600", nameRunesMax)},
			{"line breaks", `a\n\nb\u2028c\rd`, "a b c d"},
			{"control characters", `a\u001b[31mb\u0007\u0000\u009bc`, "a[31mbc"},
			{"overrides", `\u202eevil\u2066\u200f`, "evil"},
			{"no width", `B\u200bo\u00ad\u2060b\ufeff\u3164`, "Bob"},
			{"a DID", `\u200bdid:key:z6Mk`, ""},
			{"a short DID", `z6Mk…abcd`, "z6Mkabcd"},
			{"marks", "e" + strings.Repeat(`\u0316`, 50), "e\u0316\u0316"},
			{"nothing", ` \u200b `, ""},
		} {
			at++
			if got := claim(fmt.Sprintf(`{"name":"%s","at":%d}`, test.claim, at)); got.Name != test.want {
				t.Errorf("%s: %q", test.name, got.Name)
			}
		}
		at++
		if got := claim(fmt.Sprintf(`{"name":"Воb","at":%d}`, at)); got.Resembles != bob.did() {
			t.Errorf("a name in Cyrillic letters: %+v", got)
		}
		if got := ann.Contacts().Get(bob.did()); got.Resembles != eve.did() {
			t.Errorf("the other one: %+v", got)
		}
		ann.setAlias(bob, "Robert")
		if got := ann.Contacts().Get(eve.did()); got.Resembles != bob.did() {
			t.Errorf("a name that is not shown is not protected: %+v", got)
		}
		ann.setAlias(bob, "Bob")
		if got := ann.Contacts().Get(bob.did()); got.Resembles != "" {
			t.Errorf("an alias is marked: %+v", got)
		}
		for _, bad := range []string{
			fmt.Sprintf(`{"name":"old","at":%d}`, at-5), `{"name":"never","at":0}`, `{"name":"late","at":9007199254740993}`,
			`{"name":7,"at":1}`, `[]`, `"` + strings.Repeat("y", contentBytesMax-2) + `"`,
		} {
			if got := claim(bad); got.Name != "Воb" {
				t.Errorf("after %.40s: %q", bad, got.Name)
			}
		}
		at++
		if err := eve.db.edit(w.ctx, room, func(tx *tx, conv *conversation) error { // aliases are for own devices
			return eve.keeper.addContent(tx, conv, contentContacts, contacts{Aliases: []aliased{{bob.did(), "fool", at}}})
		}); err != nil {
			t.Fatal(err)
		}
		at++
		if got := claim(fmt.Sprintf(`{"name":"me","at":%d}`, at)); got.Resembles != ann.did() {
			t.Errorf("somebody is called me: %+v", got)
		}
		if got := ann.Contacts().Get(bob.did()).Label(); got != "Bob" {
			t.Errorf("another account gives the alias %q", got)
		}
		if s := ann.Stats(); s.Undecryptable > 0 {
			t.Errorf("%+v", s)
		}
	})
}

// rawJSON is a payload as it is.
type rawJSON string

func (r rawJSON) MarshalJSON() ([]byte, error) { return []byte(r), nil }

// TestSetName: what a person enters is taken, or refused with a sentence.
func TestSetName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t)
		ann := w.people("ann")[0]
		bob, eve := w.person("bob"), w.person("eve")
		for _, test := range []struct {
			name, text, want string
			err              error
		}{
			{"plain", "Ann", "Ann", nil},
			{"the longest", strings.Repeat("é", 64), strings.Repeat("é", 64), nil},
			{"an emoji", "Ann ❤️", "Ann ❤", nil},
			{"too long", strings.Repeat("x", 65), "Ann", ErrName},
			{"10 KiB", strings.Repeat("x", 10<<10), "Ann", ErrName},
			{"a line break", "A\nB", "Ann", ErrName},
			{"an override", "A\u202eB", "Ann", ErrName},
			{"not UTF-8", "A\xff", "Ann", ErrName},
			{"invisible", "\u200b", "Ann", ErrName},
			{"a DID", "did:web:x.example", "Ann", ErrName},
		} {
			ann.setName("Ann")
			ann.setAlias(bob, "Ann")
			nameErr, aliasErr := ann.Contacts().SetName(w.ctx, test.text), ann.Contacts().SetAlias(w.ctx, bob.did(), test.text)
			if !errors.Is(nameErr, test.err) || !errors.Is(aliasErr, test.err) {
				t.Errorf("%s: %v, %v", test.name, nameErr, aliasErr)
			}
			if got, other := ann.Contacts().Get(ann.did()).Name, ann.Contacts().Get(bob.did()).Alias; got != test.want || other != test.want {
				t.Errorf("%s: %q, %q", test.name, got, other)
			}
		}
		ann.setAlias(bob, "Bob")
		for _, collides := range []string{"Bob", " bob", "ВOВ"} {
			if err := ann.Contacts().SetAlias(w.ctx, eve.did(), collides); !errors.Is(err, ErrAliasTaken) || !strings.Contains(err.Error(), bob.did()) {
				t.Errorf("%q: %v", collides, err)
			}
		}
		for _, account := range []string{"", "bob", ann.did()} {
			if err := ann.Contacts().SetAlias(w.ctx, account, "x"); !errors.Is(err, ErrAccount) {
				t.Errorf("%q: %v", account, err)
			}
		}
		ann.setAlias(bob, "Bob") // again
		ann.setAlias(bob, "")
		ann.setAlias(eve, "Bob")
		if list := ann.Contacts().List(); len(list) != 2 || list[1].Account != eve.did() || list[1].Label() != "Bob" {
			t.Errorf("%+v", list)
		}
	})
}

// TestNamesAcrossCrashes sets a name and an alias, and stops the device at points between two
// writes until all is done: both arrive.
func TestNamesAcrossCrashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t)
		all := w.people("ann", "bob")
		ann, bob := all[0], all[1]
		dm := ann.dm(bob)
		ann.tells(dm, "hello", bob)
		tablet := ann.device("ann-tablet")
		tablet.open()
		tablet.nextType(EventJoined)
		tablet.tells(dm, "hi", ann, bob)
		step := testsize.Of(7, 2)
		for n, round := 1, 0; ; n, round = n+step, round+1 {
			name := fmt.Sprintf("Ann %d", n)
			ann.close()
			hook, hasCrashed := crashAt(n)
			errs := ann.tryOpen(hook)
			if errs != nil && !errors.Is(errs, errCrash) {
				t.Fatal(errs)
			}
			if errs == nil {
				errs = errors.Join(ann.Contacts().SetName(w.ctx, name), ann.Contacts().SetAlias(w.ctx, bob.did(), name), ann.Flush(w.ctx))
				time.Sleep(5 * time.Second)
				synctest.Wait()
				errs = errors.Join(errs, ann.Flush(w.ctx))
			}
			ann.close()
			ann.open()
			if errs != nil { // not all of it was accepted
				ann.setName(name)
				ann.setAlias(bob, name)
			}
			bob.knows(ann, name)
			tablet.knows(bob, name)
			if !hasCrashed.Load() {
				if round < 3 {
					t.Errorf("%d rounds are too few", round)
				}
				return
			}
			if list, err := tablet.Conversations(w.ctx); err != nil || len(list) != 1 {
				t.Errorf("%+v, %v", list, err)
			}
		}
	})
}
