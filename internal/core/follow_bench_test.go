package core

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/store"
)

// BenchmarkReconnect is fifty clients that come back together, each for twenty
// conversations in sequence, as sockets do. One operation is one follow.
func BenchmarkReconnect(b *testing.B) {
	for name, url := range map[string]func(testing.TB) string{
		"sqlite":   func(t testing.TB) string { return "sqlite:" + t.TempDir() },
		"postgres": pgtest.URL,
	} {
		b.Run(name, func(b *testing.B) {
			const clients, each = 50, 20
			var statements atomic.Int64
			w := openWorld(b, store.Options{URL: url(b), Hook: store.Watch(func(_ string, done bool) {
				if !done {
					statements.Add(1)
				}
			})}, func(o *setup) { o.pollInterval = time.Hour })
			var names []string
			for i := range clients {
				names = append(names, fmt.Sprint("reader-", i))
			}
			for i := range each {
				id := fmt.Sprint("c", i)
				w.room(id, append([]string{"ann"}, names...)...)
				for n := range 5 {
					if _, err := w.send("ann", id, fmt.Sprint("m", n), "text"); err != nil {
						b.Fatal(err)
					}
				}
			}
			var next atomic.Int64
			var running sync.WaitGroup
			b.ResetTimer()
			statements.Store(0)
			for i := range clients {
				running.Go(func() {
					for next.Load() < int64(b.N) {
						f := w.logs.NewFollower(who(names[i]))
						for c := range each {
							if next.Add(1) > int64(b.N) {
								break
							}
							if err := followFrom(context.Background(), f, ds.ConversationID(fmt.Sprint("c", c)), 3); err != nil {
								b.Error(err)
							}
						}
						f.Close()
					}
				})
			}
			running.Wait()
			b.ReportMetric(float64(statements.Load())/float64(b.N), "statements/op") // BEGIN and COMMIT too
		})
	}
}
