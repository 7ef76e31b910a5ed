package doors

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// watched is a connection that runs until it is aborted.
type watched struct {
	checks atomic.Int64
	over   chan struct{}
}

func (w *watched) Check(int64) { w.checks.Add(1) }
func (w *watched) Abort()      { close(w.over) }

func TestRegistryCountsByAccount(t *testing.T) {
	refuse := errors.New("too many")
	r := NewRegistry[*watched](2, refuse)
	for i, want := range []error{nil, nil, refuse} {
		if err := r.Enter("ann"); !errors.Is(err, want) {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	must(t, r.Enter("bob"))
	r.Leave("ann")
	must(t, r.Enter("ann"))
	for _, account := range []string{"ann", "ann", "bob"} {
		if n, _ := r.Entered("ann"); account == "bob" && n != 0 {
			t.Errorf("ann has %d connections", n)
		}
		if account == "ann" {
			r.Leave("ann")
		} else {
			r.Leave("bob")
		}
	}
	if _, n := r.Entered(""); n != 0 {
		t.Errorf("%d accounts are counted", n)
	}
}

// TestRegistryDrains: a closed registry admits no connection, is watched until the last one
// has ended, and cuts it off when the time is over.
func TestRegistryDrains(t *testing.T) {
	r := NewRegistry[*watched](1, nil)
	wake, clock := make(chan struct{}), NewClock()
	r.Watch(clock, time.Hour, wake)
	c := &watched{over: make(chan struct{})}
	if !r.Admit(c) || r.IsClosed() {
		t.Fatal("an open registry does not admit")
	}
	go func() {
		<-c.over
		r.Forget(c)
	}()
	if open := r.Close(); len(open) != 1 || open[0] != c || !r.IsClosed() {
		t.Errorf("open are %v", open)
	}
	if r.Admit(&watched{}) {
		t.Error("a closed registry admits")
	}
	wake <- struct{}{}
	wake <- struct{}{} // taken after the first check is done
	if c.checks.Load() == 0 {
		t.Error("the connection was not checked")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	isCut := false
	if r.Drain(ctx, func() { isCut = true }) || !isCut {
		t.Error("the connection was not cut off")
	}
	if !r.Drain(t.Context(), func() { t.Error("cut off again") }) {
		t.Error("an empty registry is not drained in time")
	}
}
