package logs_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
)

// stuckStore is SQLite on a disk that can hang: from hang to heal no statement that
// writes comes back.
type stuckStore struct {
	*world
	mu   sync.Mutex
	gate chan struct{} // mu guards it; nil while all is well
}

func newStuckStore(t *testing.T) *stuckStore {
	t.Helper()
	s := &stuckStore{}
	db, err := store.Open(context.Background(), store.Options{URL: "sqlite:" + t.TempDir(), Hook: store.Watch(s.hook)})
	if err != nil {
		t.Fatal(err)
	}
	s.world = startWorld(t, db)
	return s
}

func (s *stuckStore) hook(sql string, done bool) {
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	if gate != nil && !done && strings.HasPrefix(strings.TrimSpace(sql), "INSERT INTO records") {
		<-gate
	}
}

func (s *stuckStore) hang() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = make(chan struct{})
}

func (s *stuckStore) heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.gate)
	s.gate = nil
}

// TestStuckStore: with a store that does not come back everybody is answered
// `unavailable` in time: who is in the batch, who waits, who comes later, and who
// goes on before the answer. What is read goes on. Afterwards every retry finds one
// place. The time is virtual.
func TestStuckStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStuckStore(t)
		defer s.close()
		s.room("c1", "ann", "bob")
		if _, err := s.send("ann", "c1", "before", "x"); err != nil {
			t.Fatal(err)
		}
		s.hang()
		const senders = 2 * logs.BatchRequestsMax
		began := time.Now()
		var running sync.WaitGroup
		var slowest struct {
			sync.Mutex
			time.Duration
		}
		answered := func(begin time.Time, id string, err error) {
			if !ds.IsUnavailable(err) {
				t.Errorf("%s: %v", id, err)
			}
			slowest.Lock()
			defer slowest.Unlock()
			slowest.Duration = max(slowest.Duration, time.Since(begin))
		}
		for i := range senders {
			id := fmt.Sprint("m", i)
			if i%2 == 0 {
				running.Go(func() {
					time.Sleep(time.Duration(i) * 40 * time.Millisecond) // for 20 s
					begin := time.Now()
					_, err := s.send("ann", "c1", id, "x")
					answered(begin, id, err)
				})
				continue
			}
			running.Add(1)
			begin := time.Now()
			s.service.Begin(context.Background(), who("ann"), core.Send{ConversationID: "c1", ID: ds.MessageID(id), Body: []byte("x")}, func(_ core.Result, err error) {
				answered(begin, id, err)
				running.Done()
			})
		}
		if list, _ := s.read("bob", "c1", 1); seqs(list) != "1:app" {
			t.Errorf("read %s", seqs(list))
		}
		running.Wait()
		if slowest.Duration > logs.RequestTimeout {
			t.Errorf("an answer took %s, want no more than %s", slowest.Duration, logs.RequestTimeout)
		}
		t.Logf("the slowest of %d answers took %s of %s", senders, slowest.Duration, time.Since(began))
		if _, n := s.logs.Queued(); n != 0 {
			t.Errorf("%d bytes are held for requests that were answered", n)
		}
		s.heal()
		synctest.Wait()
		for _, try := range []string{"first", "second"} {
			for i := range senders {
				id := fmt.Sprint("m", i)
				if _, err := s.send("ann", "c1", id, "x"); err != nil {
					t.Fatalf("%s of %s: %v", try, id, err)
				}
			}
		}
		if list, _ := s.read("bob", "c1", 1); len(list) != senders+1 || list[senders].Seq != senders+1 {
			t.Errorf("%d records, want each of %d once", len(list), senders+1)
		}
	})
}

// TestStuckStoreMemory: what waits for a store that does not come back is bounded, by
// number and by bytes; what is beyond is refused at once, as `unavailable`. The time is virtual.
func TestStuckStoreMemory(t *testing.T) {
	const (
		attempts = 40_000
		size     = 16 << 10
		boundMax = logs.QueueBytesMax + 32<<20 // the requests besides their bodies
	)
	synctest.Test(t, func(t *testing.T) {
		s := newStuckStore(t)
		defer s.close()
		s.room("c1", "ann", "bob")
		s.hang()
		before := logs.HeapInUse()
		var mu sync.Mutex // guards the counts
		refused, late := 0, 0
		var waiting sync.WaitGroup
		for i := range attempts {
			waiting.Add(1)
			isReturned := false // guarded by mu
			s.service.Begin(context.Background(), who("ann"), core.Send{ConversationID: "c1", ID: ds.MessageID(fmt.Sprint("m", i)), Body: make([]byte, size)}, func(_ core.Result, err error) {
				defer waiting.Done()
				mu.Lock()
				defer mu.Unlock()
				switch {
				case !ds.IsUnavailable(err):
					t.Errorf("m%d: %v", i, err)
				case isReturned:
					late++
				default:
					refused++
				}
			})
			mu.Lock()
			isReturned = true
			mu.Unlock()
		}
		grown := logs.HeapInUse() - before
		waiting.Wait()
		accepted := attempts - refused
		if grown > boundMax {
			t.Errorf("%d MiB of memory for %d waiting requests, want at most %d", grown>>20, accepted, boundMax>>20)
		}
		if accepted > logs.QueueBytesMax/size || late != accepted || late == 0 {
			t.Errorf("%d of %d were let in, %d were answered later; want up to %d", accepted, attempts, late, logs.QueueBytesMax/size)
		}
		t.Logf("%d of %d requests of %d KiB waited, in %d MiB", accepted, attempts, size>>10, grown>>20)
		s.heal()
		synctest.Wait() // the batch that hung is over
		if _, err := s.send("ann", "c1", "after", "x"); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}
