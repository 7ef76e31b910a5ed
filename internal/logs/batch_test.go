package logs

import (
	"fmt"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// TestHeldBatchIsBounded: what was held is gathered up to the bounds of a batch, in
// its order, and what does not fit stays in its place.
func TestHeldBatchIsBounded(t *testing.T) {
	const lines, each, size = 4, 8, 1 << 20
	f := newFlusher(&Engine{metrics: newMetrics()})
	add := func(id string) *Request {
		f.arrived++
		r := &Request{Conversation: ds.ConversationID(id), Bytes: size, deadline: time.Now().Add(time.Hour), order: f.arrived, tries: 1, due: time.Now()}
		r.state.Store(taken)
		return r
	}
	for n := range lines * each {
		f.keep(add(fmt.Sprint("c", n%lines)))
	}
	last := map[ds.ConversationID]uint64{}
	count := 0
	for batches := 0; len(f.held) > 0; batches++ {
		var first *Request
		if batches == 0 {
			first = add("first")
		}
		bytes := 0
		for _, r := range f.gather(first) {
			if r.order < last[r.Conversation] {
				t.Errorf("request %d of %s comes behind %d", r.order, r.Conversation, last[r.Conversation])
			}
			last[r.Conversation] = r.order
			bytes += r.Bytes
			count++
		}
		if bytes > batchBytesMax || bytes == 0 {
			t.Fatalf("a batch of %d bytes, at most %d may be", bytes, batchBytesMax)
		}
	}
	if count != lines*each+1 || f.heldRequests != 0 {
		t.Errorf("%d came, %d are held", count, f.heldRequests)
	}
}

// TestKnownIsBounded: what a flusher remembers stays within its bytes, as it estimates
// them and as the heap shows them; what was used last stays.
func TestKnownIsBounded(t *testing.T) {
	const members = 128
	before := heapInUse()
	k := newKnown()
	one := func(n int) *Conversation {
		c := &Conversation{Exists: true, touched: true, Head: ds.Conversation{ID: ds.ConversationID(fmt.Sprint("c", n)), Hash: make([]byte, 32)}}
		for _, account := range longNames(fmt.Sprint(n), members) {
			c.SetStays(account, []ds.Interval{{From: 1, Role: ds.Plain}})
		}
		c.SetStays("stranger", nil)
		c.SetStays("former", []ds.Interval{{From: 1, Until: 2}})
		return c
	}
	for n := range knownBytesMax / (members * ds.AccountBytesMax) * 3 / 2 {
		for _, c := range []*Conversation{one(0), one(n)} {
			k.remember(map[ds.ConversationID]*Conversation{c.Head.ID: c})
		}
	}
	if grown := heapInUse() - before; k.bytes > knownBytesMax || grown > knownBytesMax || grown < knownBytesMax/2 {
		t.Errorf("%d bytes are kept, by its own account %d", grown, k.bytes)
	}
	r := k.conversations["c0"]
	if r == nil || len(r.intervals) != members {
		t.Fatal("the one that is used all the time was forgotten, or strangers are remembered")
	}
	for id := range k.conversations {
		k.forget(id)
	}
	if k.bytes != 0 || k.recent.Len() != 0 {
		t.Errorf("empty, it has %d bytes and %d conversations", k.bytes, k.recent.Len())
	}
}
