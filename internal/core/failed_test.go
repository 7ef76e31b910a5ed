package core

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// failing fails one statement: the one that comes as number left, before it is sent or after
// it was done.
type failing struct {
	mu    sync.Mutex // guards the rest
	armed bool
	done  bool
	left  int
}

var errFailing = errors.New("the statement was failed by the test")

func (f *failing) hook(_ string, done bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.armed || done != f.done {
		return nil
	}
	if f.left--; f.left >= 0 {
		return nil
	}
	f.armed = false
	return errFailing
}

func (f *failing) arm(n int, done bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed, f.done, f.left = true, done, n
}

// disarm reports whether a statement was failed.
func (f *failing) disarm() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	hasFailed := !f.armed
	f.armed = false
	return hasFailed
}

// TestFailedStatement fails every statement of an invitation, one after the other: each time
// the caller is answered unavailable, nothing is left of it, and the same request does it
// later. Where COMMIT itself is done, its effect stays, and the request finds it.
func TestFailedStatement(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		var f failing
		w := openWorld(t, store.Options{URL: url, Hook: f.hook}, func(o *setup) { o.flushers = 1 }, func(o *setup) { o.pollInterval = 0 })
		w.room("c1", "ann")
		count := func(log ds.LogID) int {
			t.Helper()
			list, err := w.store.RecordsAfter(context.Background(), log, 0, 1000, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			return len(list)
		}
		for _, done := range []bool{false, true} {
			hasFailed, failures := true, 0
			for n := 0; hasFailed; n++ {
				name := fmt.Sprintf("joiner-%v-%d", done, n)
				invite := Invite{ConversationID: "c1", Accounts: []ds.AccountID{ds.AccountID(name)}}
				before := count("c/c1")
				f.arm(n, done)
				err := w.apply(who("ann"), invite)
				hasFailed = f.disarm()
				after, told := count("c/c1"), count(ds.AccountLog(ds.AccountID(name)))
				if hasFailed {
					failures++
					if !ds.IsUnavailable(err) || !errors.Is(err, errFailing) {
						t.Errorf("statement %d, done %v: got %v", n, done, err)
					}
					if isLeft := after != before || told != 0; isLeft && !done {
						t.Errorf("statement %d: it left %d records", n, after-before+told)
					}
					if err := w.apply(who("ann"), invite); err != nil {
						t.Errorf("statement %d, done %v: repeated: %v", n, done, err)
					}
				} else if err != nil {
					t.Errorf("no statement failed: %v", err)
				}
				if after, told := count("c/c1"), count(ds.AccountLog(ds.AccountID(name))); after != before+1 || told != 1 {
					t.Errorf("statement %d, done %v: in the end there are %d and %d records", n, done, after-before, told)
				}
			}
			if failures < 6 { // BEGIN, records, head, stay, account log and its record; COMMIT is the seventh
				t.Errorf("done %v: only %d statements were failed", done, failures)
			}
		}
		w.checkChain("c1")
	})
}
