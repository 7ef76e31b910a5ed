package drive

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/identity"
)

const (
	// DefaultSilence is the time without any frame after which a client treats the connection
	// as dead. It pings four times as often.
	DefaultSilence = 2 * time.Second

	reconnectMin  = 20 * time.Millisecond
	reconnectMax  = 400 * time.Millisecond
	retryAfter    = 100 * time.Millisecond // wait before a message that the server could not accept is sent again
	outboxMax     = 8                      // messages that wait for their ack, while chattering
	violationsMax = 20
	provokeMax    = 500 * time.Millisecond
)

// ClientOptions configures the identity and the connection of a client.
type ClientOptions struct {
	Name     string // for error messages, and the prefix of message ids
	Key      *identity.AccountKey
	Device   string
	Audience string // the service's DID
	Network  *FaultProxy
	// Route leads through Network; the zero value is plain HTTP.
	Route Route
	// Streams makes the client use no WebSocket.
	Streams bool
	// XRPC makes the client use the AT Protocol's door.
	XRPC     bool
	Features []gateway.Feature
	Silence  time.Duration // 0 is DefaultSilence
	Seed     uint64
	// WritesOnly makes the client subscribe to nothing.
	WritesOnly bool
	// KeepsText makes the client keep whole messages and not only their digests.
	KeepsText bool
}

// Client is a device that speaks the gateway protocol as a careful client does, over WebSocket
// or, if the network refuses that, by a stream and an inbox: it resumes its session, subscribes
// from its own cursor, sends the messages in its outbox under the same id until they are acked,
// and acks received messages. With the option XRPC it does so by calls and a subscription of the
// AT Protocol's door.
//
// All received frames are recorded and checked at once; Violations lists the forbidden ones.
// Its methods are safe for concurrent use; Run is called once.
type Client struct {
	o             ClientOptions
	conversations []string

	mu         sync.Mutex // guards the rest
	changed    chan struct{}
	random     *rand.Rand
	resume     string // the newest resume token; "" before the first session
	number     int    // of connections that have been ready
	isReady    bool   // the connection of that number is open and subscribed
	streams    bool   // the network blocks WebSockets
	lastEvent  string // the id of the last event of a stream, or the cursor of a subscription
	lastEnd    error  // of a connection
	isHit      bool   // that connection had messages sent and not acked when it was broken
	expected   Fault  // how that connection is being broken
	leave      func() // closes that connection cleanly
	work       chan struct{}
	histories  map[string]*history
	outbox     []*outgoing
	acked      map[messageKey]ackedAt
	made       int // messages made by Say and Chatter
	violations []error
	counts     ClientCounts
}

// ClientCounts counts the events of a client.
type ClientCounts struct {
	Connections   int            // that got a session and their subscriptions
	Streams       int            // those of them that were streams
	Starts        int            // sessions started
	Resumes       int            // sessions resumed
	ResumesFailed int            // resume tokens refused, and streams that began again
	Sends         int            // frames of messages written, repeats included
	Acked         int            // messages acked
	AckedAtOnce   int            // those of them that were sent once
	AckTime       time.Duration  // total time that these waited for their acks
	Unavailable   int            // messages that the server could not accept just then
	Refused       int            // messages refused in another way
	Events        int            // messages received
	Repeated      int            // those of them that an older cursor of many conversations brought again
	Duplicates    int            // those of them that it had
	Gaps          int            // those of them that came before an earlier one
	Lost          int            // acked messages that the log does not have where the ack said
	Different     int            // conversations of which it received another history than the log's
	Ends          map[Fault]int  // ended connections, by how they were broken; 0: not by us
	Hits          map[Fault]int  // those of them that had messages sent and not acked when they were broken
	Reasons       map[string]int // reasons for the end of those that we did not break
}

// messageKey names a message.
type messageKey struct{ Conversation, ID string }

// ackedAt is the position of an acked message, and its content.
type ackedAt struct {
	seq    int64
	digest digest
}

// outgoing is a message that has not been acked.
type outgoing struct {
	messageKey
	env     string
	sentOn  int       // number of the connection that it was last written to, or 0
	sends   int       // number of writes
	sentAt  time.Time // the last time
	retryAt time.Time // not before
}

// history holds the received messages of a conversation, from seq 1 on.
type history struct {
	digests []digest // of message seq i+1
	events  []gateway.Event
	ackedTo int64 // acked to the server

	// Of the open subscription, which may bring messages again up to these: those that the client
	// read itself before, and those that a cursor of many conversations had.
	fetchedTo, repeatsTo int64
}

func (h *history) last() int64 { return int64(len(h.digests)) }

// digest identifies a message with its position in the log.
type digest [16]byte

func digestOf(seq int64, id, env string) digest {
	text := binary.BigEndian.AppendUint64(nil, uint64(seq))
	text = binary.BigEndian.AppendUint64(text, uint64(len(id)))
	sum := sha256.Sum256(append(append(text, id...), env...))
	return digest(sum[:])
}

// NewClient returns a client that takes part in conversations. It does nothing until Run.
func NewClient(o ClientOptions, conversations ...string) *Client {
	if o.Silence == 0 {
		o.Silence = DefaultSilence
	}
	if o.Network != nil { // a client that never connects has none
		o.Route.URL = cmp.Or(o.Route.URL, "http://"+o.Network.Address())
		o.Route = o.Route.through(o.Network.Address())
	}
	c := &Client{
		o: o, conversations: conversations, streams: o.Streams, changed: make(chan struct{}), work: make(chan struct{}, 1),
		random:    rand.New(rand.NewPCG(o.Seed, 2)),
		histories: map[string]*history{}, acked: map[messageKey]ackedAt{},
		counts: ClientCounts{Ends: map[Fault]int{}, Hits: map[Fault]int{}, Reasons: map[string]int{}},
	}
	for _, id := range conversations {
		c.histories[id] = &history{}
	}
	return c
}

// Account returns the client's DID.
func (c *Client) Account() string { return c.o.Key.DID() }

// Run connects, and reconnects whenever the connection ends, until ctx ends.
func (c *Client) Run(ctx context.Context) {
	wait := reconnectMin
	for ctx.Err() == nil {
		wasReady, err := c.connect(ctx)
		if wasReady {
			wait = reconnectMin
		}
		c.finished(wasReady && ctx.Err() == nil, err)
		c.mu.Lock()
		jittered := wait/2 + time.Duration(c.random.Int64N(int64(wait)))
		c.mu.Unlock()
		pause(ctx, jittered)
		wait = min(2*wait, reconnectMax)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// finished records the end of a connection.
func (c *Client) finished(counts bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if counts {
		c.counts.Ends[c.expected]++
		if c.isHit || c.isWaiting(c.number) {
			c.counts.Hits[c.expected]++
		}
		if c.expected == 0 {
			c.counts.Reasons[reasonOf(err)]++
		}
	}
	switch status := websocket.CloseStatus(err); status {
	case -1, websocket.StatusNormalClosure, websocket.StatusGoingAway:
	default:
		c.violate("the server closed the socket: %v", err)
	}
	c.isReady, c.isHit, c.expected, c.leave, c.lastEnd = false, false, 0, nil, err
	c.touch()
}

// isWaiting reports whether a connection has carried messages that are not acked. The caller
// holds mu.
func (c *Client) isWaiting(number int) bool {
	return slices.ContainsFunc(c.outbox, func(m *outgoing) bool { return m.sentOn == number })
}

// Provoke sends a message and keeps its ack from arriving, so that the next fault hits unacked
// traffic; Break continues from there.
func (c *Client) Provoke(ctx context.Context) {
	c.o.Network.Hold()
	c.mu.Lock()
	c.say()
	said := c.outbox[len(c.outbox)-1]
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, provokeMax)
	defer cancel()
	// If this fails, for example because an earlier request waits for its answer, the
	// connection is broken as it is, and counted as it is.
	_ = c.await(ctx, "something to break", func() bool { return !c.isReady || said.sentOn == c.number })
}

// Break ends the client's connection in the way of fault. It returns the number of the
// connection, or 0 if there is none, or one that is being broken already.
func (c *Client) Break(fault Fault) (number int) {
	c.mu.Lock()
	leave := c.leave
	if c.isReady && c.expected == 0 {
		c.expected, number = fault, c.number
		c.isHit = c.isWaiting(number)
	}
	c.mu.Unlock()
	switch {
	case number == 0:
		c.o.Network.Release()
	case fault == CleanClose:
		go leave() // waits for the server's goodbye
		c.o.Network.Release()
	default:
		c.o.Network.Break(fault)
	}
	return number
}

// Send adds a message to the outbox.
func (c *Client) Send(conversation, id, env string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outbox = append(c.outbox, &outgoing{messageKey: messageKey{conversation, id}, env: env})
	c.wakeWriter()
}

// Chatter adds messages to the outbox, one each pace on average, connected or not, until ctx
// ends. It waits while the outbox is full.
func (c *Client) Chatter(ctx context.Context, pace time.Duration) {
	for ctx.Err() == nil {
		c.mu.Lock()
		if len(c.outbox) < outboxMax {
			c.say()
		}
		wait := pace/2 + time.Duration(c.random.Int64N(int64(pace)))
		c.mu.Unlock()
		pause(ctx, wait)
	}
}

// Say adds a generated message to the outbox.
func (c *Client) Say() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.say()
}

// say does the work of Say; the caller holds mu.
func (c *Client) say() {
	c.made++
	key := messageKey{c.conversations[c.random.IntN(len(c.conversations))], fmt.Sprintf("%s-%d", c.o.Name, c.made)}
	env := ""
	if c.o.XRPC {
		key.ID, env = uuidOf(key.ID), someCiphertext(c.random)
	} else {
		env = someEnv(c.random)
	}
	c.outbox = append(c.outbox, &outgoing{messageKey: key, env: env})
	c.wakeWriter()
}

// someEnv returns a random message: mostly short, sometimes of many packets, of characters that
// JSON can encode in several ways.
func someEnv(random *rand.Rand) string {
	alphabet := []rune("abcdefghijklmnopqrstuvwxyz0123456789+/= \"\\\n\u00e9\u2028<&\U0001F426")
	length := 20 + random.IntN(200)
	if random.IntN(20) == 0 {
		length = 4000 + random.IntN(20000)
	}
	text := make([]rune, length)
	for i := range text {
		text[i] = alphabet[random.IntN(len(alphabet))]
	}
	return string(text)
}

// wakeWriter signals the connection that there may be something to write. The caller holds mu.
func (c *Client) wakeWriter() {
	select {
	case c.work <- struct{}{}:
	default:
	}
}

// touch wakes the goroutines that wait for a change. The caller holds mu.
func (c *Client) touch() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// await waits until holds, which is called with mu held, returns true.
func (c *Client) await(ctx context.Context, what string, holds func() bool) error {
	for {
		c.mu.Lock()
		ok, changed := holds(), c.changed
		c.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s waits for %s: %w (%s)", c.o.Name, what, context.Cause(ctx), c.state())
		}
	}
}

// state describes the state of the client, for a failed wait.
func (c *Client) state() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := fmt.Sprintf("connection %d, ready: %t, being broken: %d, the last one ended: %v", c.number, c.isReady, c.expected, c.lastEnd)
	for _, m := range c.outbox {
		text += fmt.Sprintf("; %s of %s was sent on connection %d", m.ID, m.Conversation, m.sentOn)
	}
	return text
}

// AwaitReady waits for a connection with a number above after and returns its number; 0 is
// before the first.
func (c *Client) AwaitReady(ctx context.Context, after int) (number int, err error) {
	err = c.await(ctx, "a connection", func() bool {
		number = c.number
		return c.isReady && c.number > after
	})
	return number, err
}

// AwaitAcked waits until a message is acked and returns its seq.
func (c *Client) AwaitAcked(ctx context.Context, conversation, id string) (seq int64, err error) {
	err = c.await(ctx, "the ack of "+id, func() bool {
		at, ok := c.acked[messageKey{conversation, id}]
		seq = at.seq
		return ok
	})
	return seq, err
}

// AwaitEmpty waits until everything in the outbox is acked.
func (c *Client) AwaitEmpty(ctx context.Context) error {
	return c.await(ctx, "the acks of its outbox", func() bool { return len(c.outbox) == 0 })
}

// AwaitSeq waits until the client has received message seq.
func (c *Client) AwaitSeq(ctx context.Context, conversation string, seq int64) error {
	return c.await(ctx, fmt.Sprintf("message %d of %s", seq, conversation), func() bool {
		return c.histories[conversation].last() >= seq
	})
}

// Events lists the received messages of a conversation, for a client that KeepsText.
func (c *Client) Events(conversation string) []gateway.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.histories[conversation].events)
}

// Counts returns the client's counts.
func (c *Client) Counts() ClientCounts {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := c.counts
	counts.Ends, counts.Hits, counts.Reasons = maps.Clone(counts.Ends), maps.Clone(counts.Hits), maps.Clone(counts.Reasons)
	return counts
}

// Violations returns the violations that the client has recorded; nil if there are none.
func (c *Client) Violations() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.violations...)
}

// violate records a violation. The caller holds mu.
func (c *Client) violate(format string, args ...any) {
	if len(c.violations) < violationsMax {
		c.violations = append(c.violations, fmt.Errorf("%s, connection %d: "+format, append([]any{c.o.Name, c.number}, args...)...))
	}
}

// received handles an event. Over all connections the seqs of a conversation are 1, 2, 3 and so
// on: each connection requests the messages after the last one.
func (c *Client) received(event gateway.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.Events++
	h := c.histories[event.ConvID]
	if h == nil {
		c.violate("an event of %q, which it does not follow", event.ConvID)
		return
	}
	switch last := h.last(); {
	case event.Seq >= 1 && event.Seq <= min(last, max(h.fetchedTo, h.repeatsTo)) && h.digests[event.Seq-1] == digestOf(event.Seq, event.MsgID, event.Env):
		if event.Seq > h.fetchedTo {
			c.counts.Repeated++
		}
		return
	case event.Seq <= last:
		c.counts.Duplicates++
		c.violate("%s: duplicate of seq %d after %d (%s)", event.ConvID, event.Seq, last, event.MsgID)
		return
	case event.Seq > last+1:
		c.counts.Gaps++
		c.violate("%s: gap, seq %d follows %d (%s)", event.ConvID, event.Seq, last, event.MsgID)
		return
	}
	h.digests = append(h.digests, digestOf(event.Seq, event.MsgID, event.Env))
	if c.o.KeepsText {
		h.events = append(h.events, event)
	}
	c.touch()
}

// settled handles an ack: the message is permanently in the log at that position.
func (c *Client) settled(acked gateway.Acked) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := messageKey{acked.ConvID, acked.MsgID}
	if before, ok := c.acked[key]; ok {
		if before.seq != acked.Seq {
			c.violate("%s: %s was acked at seq %d and now at %d", key.Conversation, key.ID, before.seq, acked.Seq)
		}
		return
	}
	i := slices.IndexFunc(c.outbox, func(m *outgoing) bool { return m.messageKey == key })
	if i < 0 {
		c.violate("%s: %s was acked and never sent", key.Conversation, key.ID)
		return
	}
	c.acked[key] = ackedAt{acked.Seq, digestOf(acked.Seq, key.ID, c.outbox[i].env)}
	c.counts.Acked++
	if c.outbox[i].sends == 1 {
		c.counts.AckedAtOnce++
		c.counts.AckTime += time.Since(c.outbox[i].sentAt)
	}
	c.outbox = slices.Delete(c.outbox, i, i+1)
	c.touch()
}

// refused handles an error frame. A careful client only gets unavailable: the message stays in
// the outbox.
func (c *Client) refused(id string, e gateway.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.outbox {
		if frameID(m.messageKey) == id && e.Code == gateway.CodeUnavailable {
			c.counts.Unavailable++
			m.sentOn, m.retryAt = 0, time.Now().Add(retryAfter)
			return
		}
	}
	c.counts.Refused++
	c.violate("refused %q: %v", id, &e)
}

func frameID(key messageKey) string { return key.Conversation + " " + key.ID }

// reasonOf returns an error in few words, without parts that differ between connections.
func reasonOf(err error) string {
	for err != nil {
		next := errors.Unwrap(err)
		if next == nil {
			return strings.ReplaceAll(err.Error(), "\n", ", ")
		}
		err = next
	}
	return "none"
}
