package gatewayserver

import (
	"encoding/json"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/ds"
)

// The bounds of the unanswered sends of one socket, and of their bytes: at either the socket is
// not read from. One send is always accepted.
const (
	sendsUnderWayMax     = 32
	sendBytesUnderWayMax = 1 << 20
)

// answers is the queue of a socket's answers to sends, which the reading goroutine does not
// wait for: a send is queued in core, and answered once it is durable. Answers are written in
// the order of their frames, by a goroutine that starts with the first one and ends when it
// is idle. They are settled by core's flusher, which never waits for a socket.
type answers struct {
	c *socket

	mu        sync.Mutex // guards all below
	owed      []*owed    // in the order of the frames
	unsettled int        // of owed
	writing   int        // removed from owed, and not written yet
	bytes     int        // of owed and writing
	isRunning bool       // the goroutine that writes
	isWaited  bool       // the reading goroutine waits
	progress  chan struct{}
	settled   chan struct{} // holds a token when the first of owed may be settled
}

// owed is an answer that is queued, settled or not.
type owed struct {
	request   string // its type
	id        json.RawMessage
	conv, msg string
	bytes     int // that count against sendBytesUnderWayMax: cost, and the message's own
	seq       int64
	err       error
	frame     []byte // of an answer that was settled when it was queued
	isSettled bool
}

// owedBytes is the memory of an answer without its texts, and of the request in core.
const owedBytes = 1 << 10

// cost returns the bytes that the answer retains until it is written.
func (o *owed) cost() int {
	return owedBytes + len(o.id) + len(o.conv) + len(o.msg) + cap(o.frame)
}

// isFree reports whether the queue is empty: an answer may then be written at once.
func (a *answers) isFree() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.owed)+a.writing == 0
}

// push queues an answer, and waits while the queue is full. Only the reading goroutine calls
// it, so a socket with a full queue is not read from.
func (a *answers) push(o *owed) bool {
	hasRoom := a.await(func() bool {
		n := len(a.owed) + a.writing
		return n == 0 || n < sendsUnderWayMax && a.bytes+o.bytes <= sendBytesUnderWayMax
	})
	if !hasRoom {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.owed, a.bytes = append(a.owed, o), a.bytes+o.bytes
	if !o.isSettled {
		a.unsettled++
	} else if len(a.owed) == 1 {
		offer(a.settled)
	}
	if !a.isRunning {
		a.isRunning = true
		a.c.following.Go(a.run)
	}
	return true
}

// settle sets the result of a send. It does not block.
func (a *answers) settle(o *owed, record ds.Record, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o.seq, o.err, o.isSettled = record.Seq, err, true
	a.unsettled--
	if len(a.owed) > 0 && a.owed[0].isSettled {
		offer(a.settled)
	}
	a.moved()
}

// moved wakes the reading goroutine if it waits. mu is held.
func (a *answers) moved() {
	if a.isWaited {
		a.isWaited = false
		offer(a.progress)
	}
}

func offer(token chan<- struct{}) {
	select {
	case token <- struct{}{}:
	default:
	}
}

// awaitSettled waits until every queued send is settled, so that the next frame observes
// them; awaitWritten, until their answers are written. They return false when the socket ends
// first.
func (a *answers) awaitSettled() bool { return a.await(func() bool { return a.unsettled == 0 }) }
func (a *answers) awaitWritten() bool {
	return a.await(func() bool { return len(a.owed)+a.writing == 0 })
}

// await waits for a condition, which it evaluates with mu held.
func (a *answers) await(isMet func() bool) bool {
	for {
		a.mu.Lock()
		if isMet() {
			a.mu.Unlock()
			return true
		}
		a.isWaited = true
		a.mu.Unlock()
		select {
		case <-a.progress:
		case <-a.c.ctx.Done():
			return false
		}
	}
}

// answersIdleDefault is the time after which an idle goroutine that writes answers ends.
const answersIdleDefault = 5 * time.Second

// run writes settled answers until it is idle, or the socket ends.
func (a *answers) run() {
	c := a.c
	defer func() {
		if reason := recover(); reason != nil {
			c.server.logger.Error("panic on a socket", "reason", reason, "stack", string(debug.Stack()))
			c.end(causeFault)
			c.conn.Abort()
			c.cancel()
		}
	}()
	idle := time.NewTicker(c.server.answersIdle)
	defer idle.Stop()
	var batch []*owed
	for isQuiet := false; ; {
		select {
		case <-a.settled:
			isQuiet = false
		case <-c.ctx.Done():
			return
		case <-idle.C:
			if isQuiet && a.rest() {
				return
			}
			isQuiet = true
		}
		batch = a.take(batch[:0])
		if len(batch) == 0 {
			continue
		}
		if c.hasEnded() || !a.write(batch) {
			c.cancel() // no more can be written
			return
		}
		a.wrote(batch)
	}
}

// rest ends the goroutine if the queue is empty.
func (a *answers) rest() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.isRunning = len(a.owed) > 0
	return !a.isRunning
}

// take removes the settled answers before the first that is not.
func (a *answers) take(batch []*owed) []*owed {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for n < len(a.owed) && a.owed[n].isSettled {
		n++
	}
	batch = append(batch, a.owed[:n]...)
	rest := copy(a.owed, a.owed[n:])
	clear(a.owed[rest:])
	a.owed, a.writing = a.owed[:rest], n
	return batch
}

func (a *answers) wrote(batch []*owed) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.writing = 0
	for _, o := range batch {
		a.bytes -= o.bytes
	}
	if len(a.owed) > 0 && a.owed[0].isSettled {
		offer(a.settled)
	}
	a.moved()
	clear(batch)
}

// write writes answers together; false means that the connection is broken.
func (a *answers) write(batch []*owed) bool {
	c, did := a.c, a.c.server.did()
	w := frameWriter{conn: c.conn, out: scratches.Get().(*[]byte)}
	for _, o := range batch {
		if o.frame != nil {
			w.add(o.frame)
			continue
		}
		c.server.metrics.request(o.request, o.err)
		if o.err != nil {
			c.server.logFault(c.ctx, o.request, o.err)
			_, body := answerTo(o.err)
			w.add(frameOf(gateway.TypeError, o.id, body))
			continue
		}
		begin := len(*w.out)
		*w.out = appendAcked(*w.out, o, did)
		w.add((*w.out)[begin:])
	}
	if w.finish() != nil {
		c.conn.Abort()
		return false
	}
	return true
}

// appendAcked writes conv.acked by hand, as eventFrame does.
func appendAcked(dst []byte, o *owed, did string) []byte {
	dst = gateway.AppendHead(dst, gateway.TypeAcked, o.id)
	dst = appendText(append(dst, `,"body":{"conv_id":`...), o.conv)
	dst = appendText(append(dst, `,"msg_id":`...), o.msg)
	dst = strconv.AppendInt(append(dst, `,"seq":`...), o.seq, 10)
	dst = appendText(append(dst, `,"conv_home":`...), did)
	dst = appendText(append(dst, `,"origin_gateway":`...), did)
	return append(dst, "}}"...)
}
