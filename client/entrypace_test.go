package client

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/testsize"
)

// callCounter counts the calls of a client, by minute.
type callCounter struct {
	inner http.RoundTripper
	mu    sync.Mutex
	began time.Time
	calls map[int]int    // by minute; guarded by mu
	paths map[string]int // guarded by mu
}

func (c *callCounter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	minute := int(time.Since(c.began) / time.Minute)
	c.calls[minute]++
	c.paths[r.URL.Path]++
	c.mu.Unlock()
	return c.inner.RoundTrip(r)
}

// most is the greatest number of calls in one of the minutes from the given one on.
func (c *callCounter) most(from int) (most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for minute, n := range c.calls {
		if minute >= from {
			most = max(most, n)
		}
	}
	return most
}

// String lists the calls by path.
func (c *callCounter) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprint(c.paths)
}

func (c *callCounter) all() (sum int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.calls {
		sum += n
	}
	return sum
}

// counted makes a person whose calls are counted.
func (w *world) counted(name string) (*person, *callCounter) {
	p := w.person(name)
	inner := &http.Transport{DialContext: w.dial}
	w.t.Cleanup(inner.CloseIdleConnections)
	c := &callCounter{inner: inner, began: time.Now(), calls: map[int]int{}, paths: map[string]int{}}
	p.options.HTTPClient = &http.Client{Transport: c}
	return p, c
}

// makesRooms makes rooms with another account in them, and no group.
func (p *person) makesRooms(n int, with *person) (ids []string) {
	p.w.t.Helper()
	var kept tokens
	if err := p.db.update(p.w.ctx, func(tx *tx) error { _, err := tx.Settings.Get("tokens", &kept); return err }); err != nil {
		p.w.t.Fatal(err)
	}
	for range n {
		raw := make([]byte, groupIDBytes)
		rand.Read(raw)
		id := hex.EncodeToString(raw)
		if err := p.call(p.w.ctx, kept.Session, "/v1/rooms/create", gateway.RoomMembers{ConvID: id, Members: []string{with.did()}}, &gateway.Status{}); err != nil {
			p.w.t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// TestRoomsOfStrangers: what a stranger's rooms without a group cost who is in them is
// bounded in each minute, whatever their number. A room that an honest account makes
// meanwhile is entered at once, and a device that is new comes in by itself.
func TestRoomsOfStrangers(t *testing.T) {
	for _, door := range []string{"gateway", "xrpc"} {
		t.Run(door, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newBubble(t)
				w.overXRPC = func(name string) bool { return door == "xrpc" && name == "ann" }
				ann, calls := w.counted("ann")
				ann.open()
				people := w.people("mal", "bob")
				mal, bob := people[0], people[1]
				time.Sleep(10 * time.Second) // all are connected and have published their packages
				// Each room asked for once in a minute would exceed the bounds below.
				rooms := testsize.Of(160, 300)
				mal.makesRooms(rooms, ann)
				time.Sleep(time.Until(calls.began.Add(testsize.Of[time.Duration](4, 10) * time.Minute)))
				perMinute := calls.most(0)
				t.Logf("%d rooms cost at most %d calls in a minute: %v", rooms, perMinute, calls)
				if bound := map[string]int{"gateway": 100, "xrpc": 300}[door]; perMinute > bound {
					t.Errorf("%d calls in a minute", perMinute)
				}
				// bob's room is entered at once.
				began := time.Now()
				room, err := bob.CreateRoom(w.ctx, ann.did())
				if err != nil {
					t.Fatal(err)
				}
				bob.says(room, "hello ann")
				ann.reads("hello ann")
				if took := time.Since(began); took > 10*time.Second {
					t.Errorf("bob's room was entered after %v", took)
				}
				// So it is by a device that is new, although nobody invites it.
				tablet := w.person("ann")
				tablet.options.DeviceID = "tablet"
				tablet.open()
				began = time.Now()
				tablet.next("bob's room", func(e Event) bool { return e.Type == EventJoined && e.Conversation == room })
				if took := time.Since(began); took > 30*time.Second {
					t.Errorf("the tablet entered after %v", took)
				}
				tablet.close()
				for _, p := range []*person{ann, mal, bob} {
					p.close()
				}
				w.stopServer()
			})
		})
	}
}

// TestUnfinishedRooms: a conversation without a group is asked for less and less, and given
// up after a day; by hand, or by an invitation, it goes on.
func TestUnfinishedRooms(t *testing.T) {
	for _, door := range []string{"gateway", "xrpc"} {
		t.Run(door, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newBubble(t)
				w.overXRPC = func(name string) bool { return door == "xrpc" && name == "ann" }
				ann, calls := w.counted("ann")
				ann.open()
				mal := w.people("mal")[0]
				time.Sleep(10 * time.Second)
				ids := mal.makesRooms(3, ann)
				time.Sleep(testsize.Of[time.Duration](3, 12) * time.Hour)
				// A restart begins neither the waits nor the day anew.
				ann.close()
				before := calls.all()
				ann.open()
				time.Sleep(5 * time.Minute)
				if n := calls.all() - before; n > 25 {
					t.Errorf("%d calls after a restart: %v", n, calls)
				}
				if !testsize.IsFull() { // hours online take seconds
					for _, id := range ids {
						if err := ann.change(w.ctx, id, func(_ *tx, conv *conversation) error {
							conv.editInfo().Waiting.WaitedMS += (18 * time.Hour).Milliseconds()
							return nil
						}); err != nil {
							t.Fatal(err)
						}
					}
				}
				time.Sleep(testsize.Of[time.Duration](4, 16) * time.Hour)
				for _, id := range ids {
					c, err := ann.Conversation(w.ctx, id)
					if err != nil || !c.GaveUp || c.Phase != Waiting || c.Problem != ErrUnfinished.Error() {
						t.Errorf("after a day: %+v, %v", c, err)
					}
				}
				t.Logf("%d calls in a day: %v", calls.all(), calls)
				quiet := calls.all()
				time.Sleep(time.Hour)
				if n := calls.all() - quiet; n > 10 {
					t.Errorf("%d calls in an hour after that: %v", n, calls)
				}
				if err := ann.Retry(w.ctx, ids[0]); err != nil {
					t.Fatal(err)
				}
				quiet = calls.all()
				time.Sleep(time.Minute)
				if c, err := ann.Conversation(w.ctx, ids[0]); err != nil || c.GaveUp || c.Problem != "" || calls.all() < quiet+3 {
					t.Errorf("after Retry: %+v, %v, %d calls", c, err, calls.all()-quiet)
				}
				ann.close()
				mal.close()
				w.stopServer()
			})
		})
	}
}

// TestEntriesOfBusyConversations: a conversation that is busy with something else when its
// turn comes, because an invitation was faster, takes no place of those that are asked for.
func TestEntriesOfBusyConversations(t *testing.T) {
	w := newWorld(t)
	ann := w.people("ann")[0]
	w.stopServer()
	ctx, cancel := context.WithCancel(t.Context())
	s := newSession(ann.Client, nil, nil)
	defer s.tasks.Wait()
	defer cancel()
	for i := range entriesMax + 1 {
		id := fmt.Sprint("busy", i)
		s.jobs[id], s.entries[id] = true, entry{}
	}
	s.startEntries(ctx)
	if s.entering != 0 || len(s.entries) != 0 {
		t.Errorf("%d are asked for and %d wait", s.entering, len(s.entries))
	}
	s.entries["idle"] = entry{}
	s.startEntries(ctx)
	if !s.jobs["idle"] || s.entering != 1 {
		t.Error("the one that is not busy is not asked for")
	}
}
