package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/testsize"
)

// churnEpochs returns how many epochs the churn goes through: WAXWING_CHURN_EPOCHS if set.
func churnEpochs(t *testing.T) uint64 {
	if text := os.Getenv("WAXWING_CHURN_EPOCHS"); text != "" {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return testsize.Of[uint64](25, 200)
}

// churner is a client that is crashed again and again, and the home that it lives on in.
type churner struct {
	*person
	mu      sync.RWMutex // guards Client and state
	account int          // whose device it is
	risk    atomic.Int64 // of a crash at each write, in 1/100 000
	left    atomic.Int64 // how many points between writes until a crash that is planned; 0 for none
	crashes atomic.Int64
}

// with runs fn on the living client. A crash meanwhile is tried again.
func (p *churner) with(ctx context.Context, fn func(c *Client) error) error {
	for {
		p.mu.RLock()
		err := fn(p.Client)
		p.mu.RUnlock()
		if !errors.Is(err, errCrash) && !errors.Is(err, ErrClosed) || ctx.Err() != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (p *churner) crash(string) error {
	if rand.Int64N(100_000) < p.risk.Load() || p.left.Load() > 0 && p.left.Add(-1) == 0 {
		p.crashes.Add(1)
		return errCrash
	}
	return nil
}

// keep brings the client back whenever it has crashed.
func (p *churner) keep(ctx context.Context, t *testing.T) {
	for {
		p.mu.RLock()
		ended := p.closed
		p.mu.RUnlock()
		select {
		case <-ended:
		case <-ctx.Done():
			return
		}
		p.mu.Lock()
		p.Client.Close()
		for ctx.Err() == nil {
			if err := p.tryOpen(p.crash); err == nil {
				break
			} else if !errors.Is(err, errCrash) {
				t.Errorf("%s does not come back: %v", p.name, err)
				p.mu.Unlock()
				return
			}
		}
		p.mu.Unlock()
	}
}

// witness watches the groups of everybody: one authenticator for each epoch, and nobody
// in an epoch whose commit the log has not shown to them.
type witness struct {
	mu    sync.Mutex
	t     *testing.T
	seen  map[string]uint64 // the highest epoch that the log has shown, by person
	epoch map[uint64]string // authenticators
	lost  map[uint64]bool   // epochs in which somebody lost a race
	last  uint64
}

func (w *witness) watch(name string) func(string, string, uint64, []byte) {
	return func(what, _ string, number uint64, authenticator []byte) {
		w.mu.Lock()
		defer w.mu.Unlock()
		switch what {
		case "seen":
			w.seen[name] = max(w.seen[name], number)
		case "lost":
			w.lost[number] = true
		case "entered":
			if w.seen[name] < number {
				w.t.Errorf("%s is in epoch %d and has seen the log up to epoch %d", name, number, w.seen[name])
			}
			w.note(name, number, authenticator)
		case "joined":
			w.note(name, number, authenticator)
		}
	}
}

func (w *witness) note(name string, epoch uint64, authenticator []byte) {
	w.last = max(w.last, epoch)
	text := fmt.Sprintf("%x", authenticator)
	if known, ok := w.epoch[epoch]; ok && known != text {
		w.t.Errorf("a fork: %s has another authenticator in epoch %d", name, epoch)
	}
	w.epoch[epoch] = text
}

func (w *witness) head() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// TestChurn: clients, three accounts in four with one device, in one room over a real
// server. They come and go, are removed and invited, renew their keys at the same
// moment, talk, lose their connections and their power. No group forks, nobody applies
// a commit before the log shows it, and in the end all who are in it agree.
func TestChurn(t *testing.T) {
	churn(t, newWorld(t), churnSize{accounts: testsize.Of(9, 24), devices: testsize.Of(12, 32), epochs: churnEpochs(t)})
}

// TestChurnBothDoors is the same by fewer, every second of whom uses XRPC.
func TestChurnBothDoors(t *testing.T) {
	w := newWorld(t)
	w.overXRPC = func(name string) bool { return name[len(name)-1]%2 == 1 }
	churn(t, w, churnSize{accounts: 6, devices: 8, epochs: churnEpochs(t) / 5})
}

// churnSize is who takes part: the devices beyond the accounts are second ones.
type churnSize struct {
	accounts, devices int
	epochs            uint64
}

func churn(t *testing.T, w *world, size churnSize) {
	w.limit(15 * time.Minute)
	seen := &witness{t: t, seen: map[string]uint64{}, epoch: map[uint64]string{}, lost: map[uint64]bool{}}
	all := make([]*churner, size.devices)
	ctx, stop := context.WithCancel(w.ctx)
	defer stop()
	for i := range all {
		p := &churner{person: w.person(fmt.Sprintf("p%02d", i%size.accounts)), account: i % size.accounts}
		p.name, p.options.DeviceID = fmt.Sprintf("p%02d", i), fmt.Sprintf("device %d", i)
		p.options.KeyPackages, p.observe = 2, seen.watch(p.name)
		if err := p.tryOpen(p.crash); err != nil {
			t.Fatal(err)
		}
		all[i] = p
	}
	for _, p := range all {
		if err := p.WaitOnline(w.ctx); err != nil {
			t.Fatal(err)
		}
	}
	var others []string
	for _, p := range all[1:size.accounts] {
		others = append(others, p.did())
	}
	room, err := all[0].CreateRoom(w.ctx, others...)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		w.eventually(p.name+" is in", func() bool { c, err := p.Conversation(w.ctx, room); return err == nil && c.Phase == Joined })
	}
	var keepers sync.WaitGroup
	for _, p := range all {
		p.risk.Store(100)
		keepers.Go(func() { p.keep(ctx, t) })
	}
	chaos, calm := context.WithCancel(ctx)
	keepers.Go(func() {
		for pause(chaos, rand.N(150*time.Millisecond)) {
			all[rand.N(len(all))].net.cut()
		}
	})
	first := seen.head()
	in := slices.Repeat([]bool{true}, size.accounts)
	for seen.head() < first+size.epochs && !t.Failed() {
		churnRound(t, w, all, in, room, seen)
	}
	rounds := seen.head() - first
	calm()
	for _, p := range all {
		p.risk.Store(0)
	}
	churnEnd(t, w, all, in, room)
	stop()
	keepers.Wait()
	seen.mu.Lock()
	raced := 0
	for epoch := range seen.lost {
		if epoch >= first && epoch < first+rounds {
			raced++
		}
	}
	seen.mu.Unlock()
	var crashes int64
	for _, p := range all {
		crashes += p.crashes.Load()
		if s := p.Stats(); s.Rejoins != 0 {
			t.Errorf("%s had to enter the group anew: %+v", p.name, s)
		}
	}
	t.Logf("%d epochs, %d of them raced, %d crashes", rounds, raced, crashes)
	if rounds >= 20 && uint64(raced) < rounds*3/10 {
		t.Errorf("%d of %d epochs had racing commits, want 30 of 100", raced, rounds)
	}
}

// churnRound lets some of those who are in do something at the same moment, and waits
// until the group has moved.
func churnRound(t *testing.T, w *world, all []*churner, in []bool, room string, seen *witness) {
	before := seen.head()
	var acting sync.WaitGroup
	act := func(p *churner, fn func(c *Client) error) {
		acting.Go(func() {
			if err := p.with(w.ctx, fn); err != nil && !errors.Is(err, ErrNoGroup) && !errors.Is(err, ErrOutboxFull) {
				t.Errorf("%s: %v", p.name, err)
			}
		})
	}
	if who := 1 + rand.N(len(in)-1); rand.N(3) == 0 && isSettled(w, all, who, in[who], room) {
		did := all[who].did()
		switch {
		case !in[who]:
			act(all[0], func(c *Client) error { return c.Invite(w.ctx, room, did) })
		case rand.N(2) == 0:
			act(all[0], func(c *Client) error { return c.Remove(w.ctx, room, did) })
		default:
			act(all[who], func(c *Client) error { return c.Leave(w.ctx, room) })
		}
		in[who] = !in[who]
	}
	for range 2 + rand.N(4) {
		p := all[rand.N(len(all))]
		act(p, func(c *Client) error { return c.Refresh(w.ctx, room) })
		act(p, func(c *Client) error { _, err := c.Send(w.ctx, room, []byte("x")); return err })
	}
	act(all[0], func(c *Client) error { return c.Refresh(w.ctx, room) }) // somebody who is surely there
	acting.Wait()
	w.eventually("the group moves", func() bool { return seen.head() > before || t.Failed() })
}

// isSettled says whether what was last done to an account is seen by itself and by the
// owner: who is asked to leave before the invitation is there would be invited after it.
func isSettled(w *world, all []*churner, who int, in bool, room string) bool {
	view := func(p *churner) (c Conversation) {
		if err := p.with(w.ctx, func(c1 *Client) (err error) { c, err = c1.Conversation(w.ctx, room); return err }); err != nil {
			w.t.Errorf("%s: %v", p.name, err)
		}
		return c
	}
	did := all[who].did()
	owner := view(all[0])
	isMember := slices.ContainsFunc(owner.Members, func(m Member) bool { return m.Account == did })
	phase := view(all[who]).Phase
	isUnderWay := slices.Contains(owner.Removing, did) || slices.Contains(owner.Inviting, did)
	return !isUnderWay && isMember == in && (in && phase == Joined || !in && phase == Removed)
}

// churnEnd waits until everybody is where they should be, and agrees.
func churnEnd(t *testing.T, w *world, all []*churner, in []bool, room string) {
	var present []*person
	var accounts []string
	for _, p := range all {
		if in[p.account] {
			present = append(present, p.person)
			accounts = append(accounts, p.did())
		}
	}
	slices.Sort(accounts)
	accounts = slices.Compact(accounts)
	deadline := time.Now().Add(3 * time.Minute)
	for _, p := range all {
		state := func() (c Conversation) {
			if err := p.with(w.ctx, func(c1 *Client) (err error) { c, err = c1.Conversation(w.ctx, room); return err }); err != nil {
				t.Errorf("%s: %v", p.name, err)
			}
			return c
		}
		for done := false; !done; time.Sleep(10 * time.Millisecond) {
			c := state()
			var got []string
			for _, m := range c.Members {
				got = append(got, m.Account)
			}
			slices.Sort(got)
			done = c.Phase == Removed
			if in[p.account] {
				done = c.Phase == Joined && slices.Equal(slices.Compact(got), accounts) && len(c.Removing)+len(c.Inviting) == 0
			}
			if time.Now().After(deadline) || t.Failed() {
				t.Fatalf("%s (in: %v) does not come to rest: %s, %d of %d accounts, removing %d, inviting %d, %q", p.name, in[p.account],
					c.Phase, len(slices.Compact(got)), len(accounts), len(c.Removing), len(c.Inviting), c.Problem)
			}
		}
	}
	w.agree(room, present...)
}
