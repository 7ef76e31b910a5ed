package xrpcserver

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/store"
)

// TestStatementsOfSendMessage: in steady state a batch costs at most four statements and
// a request none of its own. The nonces of tokens, which are written in batches too, are
// counted apart.
func TestStatementsOfSendMessage(t *testing.T) {
	var mu sync.Mutex // guards what follows
	var batches, nonces, others int
	texts := map[string]int{}
	count := func(sql string, done bool) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case done || sql == "BEGIN" || sql == "COMMIT":
		case strings.Contains(sql, "INTO nonces"):
			nonces++
		default:
			if others++; strings.Contains(sql, "UPDATE logs") { // every batch moves its heads, by one statement
				batches++
			}
			texts[strings.Join(strings.Fields(sql[:min(len(sql), 120)]), " ")]++
		}
	}
	onBoth(t, func(t *testing.T, w *world) {
		const people = 32
		for i := range people {
			w.talk(fmt.Sprint("c", i), fmt.Sprint("p", i))
		}
		calls := 0
		round := func() {
			var wait sync.WaitGroup
			for i := range people {
				calls++
				id := uuid(calls)
				wait.Go(func() { w.call(fmt.Sprint("p", i), xrpc.SendMessage, message(fmt.Sprint("c", i), id, 0, 512)).fields() })
			}
			wait.Wait()
		}
		for range 6 { // until accounts and conversations are known
			round()
		}
		mu.Lock()
		batches, nonces, others = 0, 0, 0
		clear(texts)
		mu.Unlock()
		for range 4 {
			round()
		}
		mu.Lock()
		defer mu.Unlock()
		if batches < 1 || nonces < 1 || others > 4*batches {
			t.Errorf("%d calls cost %d statements in %d batches, and %d of nonces: %v", 4*people, others, batches, nonces, texts)
		}
	}, func(s *setup) {
		s.store.Hook, s.logs.PollInterval, s.identity.PollInterval = store.Watch(count), time.Hour, time.Hour
	})
}
