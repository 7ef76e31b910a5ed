package logs

import (
	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/internal/ds"
)

// What the tests in logs_test may see: they run the engine with the rules of core.
var LongNames, HeapInUse = longNames, heapInUse

const (
	AnnouncementBytesMax = announcementBytesMax
	AnnouncementsMax     = announcementsMax
	BatchRequestsMax     = batchRequestsMax
	BatchTimeout         = batchTimeout
	HoldAloneDelay       = holdAloneDelay
	HoldDelay            = holdDelay
	KnownTrust           = knownTrust
	PageBytes            = pageBytes
	QueueBytesMax        = queueBytesMax
	RequestBytes         = requestBytes
	RequestTimeout       = requestTimeout
)

var ErrClosing = errClosed

// Queued returns the number and the bytes of the requests of the first flusher that wait.
func (e *Engine) Queued() (requests int, bytes int64) {
	return len(e.flushers[0].queue), e.flushers[0].bytes.Load()
}

// Gaps returns the counter of gaps that readers found.
func (e *Engine) Gaps() prometheus.Counter { return e.metrics.gaps }

// Known returns what the first flusher remembers of a conversation.
func (e *Engine) Known(id ds.ConversationID) (head ds.Conversation, streak int, isKnown bool) {
	k := e.flushers[0].known.conversations[id]
	if k == nil {
		return head, 0, false
	}
	return k.head, k.streak, true
}

// CursorsWaiting returns the number of calls that wait for a transaction of cursors to begin.
func (e *Engine) CursorsWaiting() int {
	e.flushes.mu.Lock()
	defer e.flushes.mu.Unlock()
	return len(e.flushes.waiting)
}

// FillCursors leaves no room in the buffer of cursors.
func (e *Engine) FillCursors() {
	for i := range e.cursors.shards {
		s := &e.cursors.shards[i]
		s.mu.Lock()
		s.count += cursorShardMax
		s.mu.Unlock()
	}
}

// ReadingsWaiting returns the number of follows that wait for the query that begins them.
func (e *Engine) ReadingsWaiting() int {
	e.readings.mu.Lock()
	defer e.readings.mu.Unlock()
	return len(e.readings.waiting)
}

// Followed returns the logs that have followers.
func (e *Engine) Followed() map[ds.LogID]int64 { return e.wakes.followed() }

// Waiting returns the number of announcements that wait.
func (l *Listener) Waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting)
}
