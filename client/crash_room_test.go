package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"waxwing.im/waxwing/api/gateway"

	"waxwing.im/waxwing/internal/testsize"
)

// crashWorld is a room of three accounts, whose clients come back when they crash.
type crashWorld struct {
	*world
	t             *testing.T
	ann, bob, cid *churner
	room          string
	tablets       int
	blind         *middleman // lets no GroupInfo through
}

func newCrashWorld(t *testing.T) *crashWorld {
	w := &crashWorld{world: newWorld(t), t: t}
	w.ann, w.bob, w.cid = w.keep(w.person("ann")), w.keep(w.person("bob")), w.keep(w.person("cid"))
	w.room = w.world.room(w.ann.person, w.bob.person, w.cid.person)
	w.blind = newMiddleman(w.world)
	w.blind.answer = func(path string, body []byte) []byte {
		if path == "/v1/groupinfo" {
			return []byte("{}")
		}
		return body
	}
	return w
}

// keep opens the client of a person and brings it back whenever it crashes.
func (w *crashWorld) keep(p *person) *churner {
	out := &churner{person: p}
	w.start(out)
	return out
}

func (w *crashWorld) start(p *churner) {
	for {
		if err := p.tryOpen(p.crash); err == nil {
			break
		} else if !errors.Is(err, errCrash) {
			w.t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	var keeping sync.WaitGroup
	keeping.Go(func() { p.keep(ctx, w.t) })
	w.t.Cleanup(func() { stop(); keeping.Wait() })
}

// see is the conversation as somebody sees it, who may be crashing.
func (w *crashWorld) see(p *churner) (c Conversation) {
	w.t.Helper()
	err := p.with(w.ctx, func(client *Client) (err error) {
		c, err = client.Conversation(w.ctx, w.room)
		if err == ErrUnknownConversation {
			err = nil
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// isRoomOf says whether people are in the room, nobody else is, and they agree.
func (w *crashWorld) isRoomOf(people ...*churner) bool {
	var accounts, authenticators []string
	for _, p := range people {
		accounts = append(accounts, p.did())
	}
	slices.Sort(accounts)
	accounts = slices.Compact(accounts)
	for _, p := range people {
		c := w.see(p)
		var got []string
		for _, m := range c.Members {
			got = append(got, m.Account)
		}
		slices.Sort(got)
		var text string
		err := p.with(w.ctx, func(client *Client) error {
			authenticator, epoch, err := client.EpochAuthenticator(w.ctx, w.room)
			text = fmt.Sprintf("%d %x %v", epoch, authenticator, err == nil)
			return nil
		})
		if err != nil || c.Phase != Joined || len(c.Members) != len(people) || !slices.Equal(slices.Compact(got), accounts) || len(c.Removing)+len(c.Inviting) > 0 {
			return false
		}
		authenticators = append(authenticators, text)
	}
	return len(slices.Compact(authenticators)) == 1
}

func (w *crashWorld) invite(p *churner) {
	if err := w.ann.with(w.ctx, func(c *Client) error { return c.Invite(w.ctx, w.room, p.did()) }); err != nil {
		w.t.Fatal(err)
	}
	w.eventually("all three are back", func() bool { return w.isRoomOf(w.ann, w.bob, w.cid) })
}

// operation is something that one of them does, and that must happen once and whole
// wherever between two local writes the one who does it crashes.
type operation struct {
	name   string
	victim func(w *crashWorld) *churner
	do     func(w *crashWorld, c *Client) error
	done   func(w *crashWorld) bool
	undo   func(w *crashWorld)
}

var crashOperations = []operation{
	{"a refresh", func(w *crashWorld) *churner { return w.bob },
		func(w *crashWorld, c *Client) error { return c.Refresh(w.ctx, w.room) }, nil, nil},
	{"a removal", func(w *crashWorld) *churner { return w.ann },
		func(w *crashWorld, c *Client) error { return c.Remove(w.ctx, w.room, w.cid.did()) },
		func(w *crashWorld) bool { return w.isRoomOf(w.ann, w.bob) && w.see(w.cid).Phase == Removed },
		func(w *crashWorld) { w.invite(w.cid) }},
	{"a departure", func(w *crashWorld) *churner { return w.cid },
		func(w *crashWorld, c *Client) error { return c.Leave(w.ctx, w.room) },
		func(w *crashWorld) bool { return w.isRoomOf(w.ann, w.bob) && w.see(w.cid).Phase == Removed },
		func(w *crashWorld) { w.invite(w.cid) }},
	{"a removal pending", func(w *crashWorld) *churner { return w.ann },
		func(w *crashWorld, c *Client) error {
			return w.cid.gateway(w.cid.session()).call(w.ctx, "/v1/rooms/leave", gateway.LeaveRoom{ConvID: w.room}, &gateway.Status{})
		},
		func(w *crashWorld) bool { return w.isRoomOf(w.ann, w.bob) && w.see(w.cid).Phase == Removed },
		func(w *crashWorld) { w.invite(w.cid) }},
	{"an entry anew", func(w *crashWorld) *churner { return w.bob },
		func(w *crashWorld, c *Client) error { return c.Rejoin(w.ctx, w.room) }, nil, nil},
}

// TestCrashInOperations crashes whoever changes a room at each point between two local
// writes in turn, and looks whether the change is made once and everybody agrees.
func TestCrashInOperations(t *testing.T) {
	for _, op := range crashOperations {
		t.Run(op.name, func(t *testing.T) {
			t.Parallel()
			w := newCrashWorld(t)
			crashEach(w, op.name, func() *churner { return op.victim(w) }, func() {
				before := w.see(w.ann).Epoch
				victim := op.victim(w)
				if err := victim.with(w.ctx, func(c *Client) error { return op.do(w, c) }); err != nil {
					t.Fatal(err)
				}
				done := func() bool { return w.isRoomOf(w.ann, w.bob, w.cid) && w.see(w.ann).Epoch > before }
				if op.done != nil {
					done = func() bool { return op.done(w) }
				}
				w.eventually(op.name+" is done", done)
			}, func() {
				if op.undo != nil {
					op.undo(w)
				}
			})
		})
	}
}

// crashEach plays a step over and over, with a crash one point later each time, until
// it is over before the crash.
func crashEach(w *crashWorld, name string, victim func() *churner, play, undo func()) {
	step := testsize.Of[int64](7, 1)
	for n := int64(1); !w.t.Failed(); n += step {
		if n > 200 {
			w.t.Fatalf("%s: it is still writing after %d points", name, n-1)
		}
		w.limit(time.Minute) // for each
		p := victim()
		before := p.crashes.Load()
		p.left.Store(n)
		play()
		p.left.Store(0)
		if p.crashes.Load() == before {
			w.t.Logf("%s: %d points", name, n-1)
			if n < 4 {
				w.t.Errorf("%s: that are too few to be true", name)
			}
			return
		}
		undo()
	}
}

// TestCrashOfNewDevice crashes a new device at each point between two writes while it
// enters by itself, and while it is brought in by another one, which crashes as well.
func TestCrashOfNewDevice(t *testing.T) {
	for _, by := range []string{"itself", "another device"} {
		t.Run("by "+by, func(t *testing.T) {
			t.Parallel()
			w := newCrashWorld(t)
			var tablet *churner
			newTablet := func() *churner {
				w.tablets++
				p := w.bob.device(fmt.Sprintf("tablet-%d", w.tablets))
				p.options.KeyPackages = 1
				tablet = &churner{person: p}
				return tablet
			}
			victim, enter := newTablet, func() {}
			if by != "itself" {
				victim, enter = func() *churner { return w.bob }, func() {
					p := newTablet()
					p.options.Server = w.blind.server.URL
					w.start(p)
					w.eventually("it has published", func() bool {
						var published int64
						err := p.db.update(w.ctx, func(tx *tx) (err error) { published, err = tx.Counters.Get("published"); return err })
						return err == nil && published > 0
					})
					if err := w.bob.with(w.ctx, func(c *Client) error { return c.AddDevice(w.ctx, p.options.DeviceID) }); err != nil {
						t.Fatal(err)
					}
				}
			} else {
				enter = func() { w.start(tablet) }
			}
			crashEach(w, "a new device", victim, func() {
				enter()
				w.eventually("it is in", func() bool { return w.isRoomOf(w.ann, w.bob, w.cid, tablet) })
			}, func() {
				if err := w.bob.with(w.ctx, func(c *Client) error { return c.RemoveDevice(w.ctx, tablet.options.DeviceID) }); err != nil {
					t.Fatal(err)
				}
				w.eventually("it is out", func() bool { return w.isRoomOf(w.ann, w.bob, w.cid) })
			})
		})
	}
}

// TestRefreshBehindACommit: fresh keys that are asked for while a commit is on its way are
// newer than those of that commit.
func TestRefreshBehindACommit(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	bob := people[1]
	room := w.room(people...)
	before := bob.must(room)
	bob.net.setDown(true)
	w.eventually("bob is offline", func() bool { state, _ := bob.State(); return state.Link != Online })
	if err := bob.db.update(w.ctx, func(tx *tx) error {
		conv := tx.conversation(room)
		return bob.keeper.makeCommit(tx, conv)
	}); err != nil {
		t.Fatal(err)
	}
	if err := bob.Refresh(w.ctx, room); err != nil {
		t.Fatal(err)
	}
	bob.net.setDown(false)
	w.eventually("both commits are made", func() bool { return bob.must(room).Epoch == before.Epoch+2 })
	w.agree(room, people...)
}

// TestBackWithCommit: who leaves with a commit on its way and is let back in before the
// others have removed it goes on in the log where it was, and knows its commit there.
func TestBackWithCommit(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	bob := people[1]
	room := w.room(people...)
	bob.net.setDown(true)
	before := bob.must(room)
	if err := bob.db.update(w.ctx, func(tx *tx) error {
		conv := tx.conversation(room)
		if err := bob.keeper.makeCommit(tx, conv); err != nil {
			return err
		}
		p := conv.pending
		if err := bob.keeper.leave(tx, conv, bob.now(), "left"); err != nil {
			return err
		}
		bob.keeper.learnConversation(tx, room)
		epoch := int64(before.Epoch + 1)
		_, err := bob.keeper.applyMessage(tx, &logMessage{conversation: room, seq: before.NextSeq, id: p.MessageID, kind: kindCommit, epoch: &epoch,
			message: p.commit.Message()})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	conv, err := bob.snapshot(w.ctx, room)
	if err != nil || conv.phase != Joined || conv.epoch() != before.Epoch+1 || conv.pending != nil || conv.info.Rejoin != "" {
		t.Errorf("bob is %s in epoch %d, to enter anew: %q, %v", conv.phase, conv.epoch(), conv.info.Rejoin, err)
	}
}
