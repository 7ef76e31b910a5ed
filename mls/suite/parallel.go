package suite

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// parallelMin is the number of calls from which Parallel uses more than one goroutine: a
// public-key operation takes tens of microseconds, starting a goroutine takes less.
const parallelMin = 4

// Parallel calls f(0) to f(n-1) on all processors; the calls must be independent of each other and
// expensive (public-key operations). It returns when all calls have returned, with the error of
// the lowest index; after an error the calls with higher indices may be left out.
func Parallel(n int, f func(int) error) error {
	workers := min(runtime.GOMAXPROCS(0), n)
	if n < parallelMin || workers < 2 {
		for i := range n {
			if err := f(i); err != nil {
				return err
			}
		}
		return nil
	}
	var (
		next, stop atomic.Int64
		mu         sync.Mutex // guards first
		first      error
		wait       sync.WaitGroup
	)
	stop.Store(int64(n))
	work := func() {
		for {
			i := next.Add(1) - 1
			if i >= stop.Load() {
				return
			}
			if err := f(int(i)); err != nil {
				mu.Lock()
				if i < stop.Load() {
					stop.Store(i)
					first = err
				}
				mu.Unlock()
			}
		}
	}
	for range workers - 1 {
		wait.Go(work)
	}
	work()
	wait.Wait()
	return first
}
