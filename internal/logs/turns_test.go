package logs

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// turnsWorld are 100 bytes for readers, in virtual time.
type turnsWorld struct {
	t     *testing.T
	turns *turns
	mu    sync.Mutex // guards got
	got   []string   // names of waiting readers that were served, sorted
}

func newTurnsWorld(t *testing.T) *turnsWorld {
	return &turnsWorld{t: t, turns: newTurns(100, time.Second)}
}

// hold takes bytes at once; when the turn is cut, the holder gives it back.
func (w *turnsWorld) hold(who ds.AccountID, bytes int64) *Turn {
	w.t.Helper()
	var turn *Turn
	turn, err := w.turns.take(w.t.Context(), who, bytes, func() { go func() { turn.Release() }() })
	if err != nil {
		w.t.Fatal(err)
	}
	return turn
}

// ask waits for bytes, and keeps them.
func (w *turnsWorld) ask(ctx context.Context, name string, who ds.AccountID, bytes int64) {
	go func() {
		if _, err := w.turns.take(ctx, who, bytes, func() {}); err == nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.got = append(w.got, name)
			slices.Sort(w.got)
		}
	}()
	synctest.Wait()
}

// wantServed checks which of the waiting readers have been served.
func (w *turnsWorld) wantServed(when string, want ...string) {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.got, want) {
		w.t.Errorf("%s: served %q, want %q", when, w.got, want)
	}
}

// TestTurnsAreServedByWhatAccountsHold: readers of accounts that hold least go first, and
// then those that came first.
func TestTurnsAreServedByWhatAccountsHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTurnsWorld(t)
		w.hold("eve", 20)
		full := w.hold("ann", 80)
		w.ask(t.Context(), "eve 1", "eve", 10)
		w.ask(t.Context(), "eve 2", "eve", 10)
		w.ask(t.Context(), "ben", "ben", 60)
		w.ask(t.Context(), "cat", "cat", 20)
		full.Shrink(75)
		w.wantServed("nothing passes what does not fit")
		full.Shrink(20)
		w.wantServed("the next has room", "ben")
		full.Release()
		w.wantServed("in order", "ben", "cat")
	})
}

// TestTurnOfOneThatGoesAway: a reader that stops waiting for more than there is lets those
// behind it have what there is.
func TestTurnOfOneThatGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTurnsWorld(t)
		held := w.hold("eve", 60)
		defer held.Release()
		ctx, leave := context.WithCancel(t.Context())
		w.ask(ctx, "ann", "ann", 90)
		w.ask(t.Context(), "ben", "ben", 30)
		w.wantServed("behind one that does not fit")
		leave()
		w.wantServed("when that has gone", "ben")
		if n := len(w.turns.accounts); n != 2 {
			t.Errorf("%d accounts are remembered, want the two that hold something", n)
		}
	})
}

// TestSlowTurnsAreCutForTheNext: what is cut short makes room for the reader that is next,
// also where another one has waited longer and needs less.
func TestSlowTurnsAreCutForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTurnsWorld(t)
		slow := w.hold("eve", 70)
		w.hold("ann", 20)
		w.ask(t.Context(), "ann", "ann", 15)
		w.ask(t.Context(), "ben", "ben", 50)
		slow.Shrink(60)
		time.Sleep(3 * time.Second)
		w.wantServed("in time", "ann", "ben")
	})
}

// TestTurnsGoRound: of accounts that hold the same, one that has many readers waiting is
// served no more often than the others.
func TestTurnsGoRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTurnsWorld(t)
		w.turns = newTurns(1, time.Hour)
		var order []string
		hold := w.hold("eve", 1)
		for _, name := range []string{"eve 1", "eve 2", "eve 3", "ann 1", "ben 1", "ann 2"} {
			go func() {
				turn, err := w.turns.take(t.Context(), ds.AccountID(name[:3]), 1, func() {})
				if err != nil {
					t.Error(err)
				}
				order = append(order, name) // one at a time holds the turn
				turn.Release()
			}()
			synctest.Wait()
		}
		if !w.turns.isWanted() {
			t.Error("nobody waits")
		}
		hold.Release()
		synctest.Wait()
		if want := []string{"eve 1", "ann 1", "ben 1", "eve 2", "ann 2", "eve 3"}; !slices.Equal(order, want) {
			t.Errorf("served %q, want %q", order, want)
		}
	})
}

// TestNewcomersWaitTheirTurn: an account with two readers that wait is not passed again and
// again by accounts that arrive later.
func TestNewcomersWaitTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTurnsWorld(t)
		w.turns = newTurns(1, time.Hour)
		hold := w.hold("eve", 1)
		served := make(chan string, 8)
		wait := func(who ds.AccountID) {
			go func() {
				turn, err := w.turns.take(t.Context(), who, 1, func() {})
				if err != nil {
					t.Error(err)
				}
				served <- string(who)
				time.Sleep(time.Second)
				turn.Release()
			}()
			synctest.Wait()
		}
		wait("ann")
		wait("ann")
		hold.Release()
		for i := range 3 {
			wait(ds.AccountID(fmt.Sprint("new-", i))) // while ann's first reader holds the turn
		}
		var order []string
		for range 5 {
			order = append(order, <-served)
		}
		if want := []string{"ann", "ann", "new-0", "new-1", "new-2"}; !slices.Equal(order, want) {
			t.Errorf("served %q, want %q", order, want)
		}
		synctest.Wait()
		time.Sleep(time.Minute)
	})
}

// TestTurnsSetAsideAreNotCut: a holder that waits for something else is not slow.
func TestTurnsSetAsideAreNotCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTurnsWorld(t)
		turn := w.hold("eve", 100)
		w.ask(t.Context(), "ann", "ann", 10)
		_ = turn.setAside(func() error {
			time.Sleep(10 * time.Second)
			w.wantServed("while it is set aside")
			return nil
		})
		time.Sleep(3 * time.Second)
		w.wantServed("when it is slow itself", "ann")
	})
}

// BenchmarkTurns serves readers of one message, each of another account, that all wait.
func BenchmarkTurns(b *testing.B) {
	for _, n := range []int{300, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				t := newTurns(turnsBytes, turnPatience)
				var readers sync.WaitGroup
				for i := range n {
					readers.Go(func() {
						turn, err := t.take(b.Context(), ds.AccountID(fmt.Sprint("did:ex:", i)), TurnFactor*100<<10, func() {})
						if err != nil {
							b.Error(err)
						}
						time.Sleep(time.Millisecond)
						turn.Release()
					})
				}
				readers.Wait()
			}
		})
	}
}
