package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/mls/wire"
)

const (
	// xrpcReaders bounds the conversations that are read concurrently, and xrpcSenders the
	// messages and commits being sent.
	xrpcReaders = 4
	xrpcSenders = 4
	// xrpcMembersMax bounds the accounts of one commitGroupChange.
	xrpcMembersMax = 50
	// xrpcAckInterval is the interval at which the server is sent the read positions.
	xrpcAckInterval = 5 * time.Second
	// xrpcPoolInterval is the interval at which the pool of key packages is checked, since the
	// server does not report their use.
	xrpcPoolInterval = 10 * time.Minute
	// xrpcEventBytesMax bounds one frame of subscribeEvents: a message and its head.
	xrpcEventBytesMax = xrpc.CiphertextMax + 64<<10
)

// xrpcLink is a connection by XRPC. Sending is a call; a WebSocket announces new events. A
// message on it is passed on if it is the very next one of its log; otherwise the log is read,
// from the session's position. So events may come late, twice or not at all without the loss of
// a message. Any fault of the network ends the whole link, and the next one reads each
// conversation from the state in the home.
type xrpcLink struct {
	d      *xrpcDoor
	conn   *websocket.Conn
	out    chan event
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	ended  chan struct{} // closed when tasks are done

	lastSign atomic.Int64 // UnixNano by the machine's clock

	mu      sync.Mutex
	err     error                  // why the link ended; guarded by mu
	sends   []func()               // calls that the session asks for; guarded by mu
	follows map[string]*xrpcFollow // conversations that the session reads; guarded by mu
	due     map[string]dueFor      // conversations for readers to look at; guarded by mu
	looks   map[string]looking     // state of those that are not read; guarded by mu
	wakes   int                    // numbers wakes; guarded by mu
	isPaced bool                   // a reader will be woken when looking is allowed again; guarded by mu
	busy    map[string]bool        // of due, being looked at; guarded by mu
	paused  map[string]dueFor      // of due, to be looked at only later; guarded by mu
	acks    map[string]int64       // guarded by mu

	queued, woken, ping chan struct{}
}

// looking counts the looks at a conversation that is not read.
type looking struct {
	inVain int // looks without an invitation
	woken  int // the number of its last wake
}

// dueFor is the server's information on whether our account is in a conversation.
type dueFor int

const (
	dueOut    dueFor = 1 // not in the server's list
	dueMaybe  dueFor = 2
	dueMember dueFor = 3 // the server has reported it
)

// subscribe opens the subscription of all conversations of the account. Its events wake the
// link from then on; earlier ones are read.
func (d *xrpcDoor) subscribe(ctx context.Context) (*xrpcLink, error) {
	dialCtx, cancelDial := context.WithTimeout(ctx, dialTimeout)
	defer cancelDial()
	var ticket xrpc.GetSubscriptionTicketOutput
	if err := d.do(dialCtx, xrpc.GetSubscriptionTicket, &xrpc.GetSubscriptionTicketInput{}, &ticket); err != nil {
		return nil, fmt.Errorf("ask for a subscription: %w", err)
	}
	address := d.c.base.JoinPath("/xrpc/" + xrpc.SubscribeEvents)
	address.RawQuery = xrpc.EncodeQuery(&xrpc.SubscribeEventsParams{Ticket: ticket.Ticket})
	conn, err := dialWebSocket(dialCtx, address.String(), d.c.http)
	if err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	conn.SetReadLimit(xrpcEventBytesMax)
	l := &xrpcLink{d: d, conn: conn, out: make(chan event, eventsAhead), ended: make(chan struct{}),
		follows: map[string]*xrpcFollow{}, due: map[string]dueFor{}, looks: map[string]looking{}, busy: map[string]bool{}, paused: map[string]dueFor{}, acks: map[string]int64{},
		queued: make(chan struct{}, 1), woken: make(chan struct{}, 1), ping: make(chan struct{}, 1)}
	l.ctx, l.cancel = context.WithCancel(ctx)
	l.lastSign.Store(time.Now().UnixNano())
	return l, nil
}

func (l *xrpcLink) kind() Transport { return XRPC }

// begin starts all tasks. There is no token: each call has one of its own.
func (l *xrpcLink) begin() {
	l.d.mu.Lock()
	l.d.link = l
	l.d.mu.Unlock()
	l.tasks.Go(l.listen)
	l.tasks.Go(l.beat)
	l.tasks.Go(l.moveCursors)
	for range xrpcReaders {
		l.tasks.Go(l.read)
	}
	for range xrpcSenders {
		l.tasks.Go(l.post)
	}
	go func() {
		<-l.ctx.Done()
		l.conn.CloseNow()
		l.tasks.Wait()
		close(l.out)
		close(l.ended)
	}()
}

func (l *xrpcLink) incoming() <-chan event { return l.out }

func (l *xrpcLink) close() {
	l.d.mu.Lock()
	l.d.link = nil
	l.d.mu.Unlock()
	l.cancel()
	<-l.ended
}

func (l *xrpcLink) fail(err error) {
	l.mu.Lock()
	if l.err == nil {
		l.err = err
	}
	l.mu.Unlock()
	l.cancel()
}

func (l *xrpcLink) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		return l.ctx.Err()
	}
	return l.err
}

// check reports a server that has given no sign of life for too long. Calls have timeouts
// of their own.
func (l *xrpcLink) check(pingInterval time.Duration) error {
	if time.Since(time.Unix(0, l.lastSign.Load())) > pingInterval*silentAfter/2 {
		return errors.New("the server has gone silent")
	}
	ring(l.ping)
	return nil
}

// heldBack returns zero: events are complete.
func (l *xrpcLink) heldBack() time.Time { return time.Time{} }

func (l *xrpcLink) acknowledge(id string, seq int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acks[id] = max(l.acks[id], seq)
}

// acknowledgeAccount does nothing: there is no log of the account.
func (l *xrpcLink) acknowledgeAccount(int64) {}

// report does nothing: XRPC has no reports.
func (l *xrpcLink) report(report) {}

func (l *xrpcLink) send(number int, m sendRequest) {
	l.later(func() {
		seq, err := l.d.sendMessage(l.ctx, m)
		l.answer(number, m.Conversation, seq, err)
	})
}

func (l *xrpcLink) commit(number int, m commitRequest) {
	l.later(func() {
		seq, err := l.d.commitGroup(l.ctx, m)
		l.answer(number, m.Conversation, seq, err)
	})
}

// confirm reports that a Welcome was received, so that it is not offered again. This is
// optional: received ones are recognized.
func (l *xrpcLink) confirm(w *welcome) {
	id, ref := w.Conversation, w.KeyPackageRef
	l.later(func() {
		err := l.d.confirmWelcome(l.ctx, id, ref)
		if r := asRefusal(err); err != nil && (r == nil || r.Code == codeUnauthorized) {
			l.fail(err)
		}
	})
}

// later queues a call for the next free sender.
func (l *xrpcLink) later(call func()) {
	l.mu.Lock()
	l.sends = append(l.sends, call)
	l.mu.Unlock()
	ring(l.queued)
}

// answer delivers the result of a call. Without an answer the outcome is unknown, and the next
// link asks again with the same id.
func (l *xrpcLink) answer(number int, id string, seq int64, err error) {
	r := asRefusal(err)
	switch {
	case err == nil:
		l.deliver(appended{number, seq})
		l.expect(id, seq)
	case r == nil || r.Code == codeUnauthorized:
		l.fail(err)
	default:
		l.deliver(refused{number, r})
	}
}

// deliver passes an event to the session; it returns false if the link ends first.
func (l *xrpcLink) deliver(e event) bool {
	select {
	case l.out <- e:
		return true
	case <-l.ctx.Done():
		return false
	}
}

func (l *xrpcLink) takeSend() (call func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.sends) == 0 {
		return nil, false
	}
	call, l.sends = l.sends[0], l.sends[1:]
	if len(l.sends) > 0 {
		ring(l.queued)
	}
	return call, true
}

// post is a worker: it makes the calls that the session asks for, one at a time.
func (l *xrpcLink) post() {
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-l.queued:
		}
		if call, ok := l.takeSend(); ok {
			call()
		}
	}
}

// errNotMLS refuses a message that is not of MLS before it is sent.
var errNotMLS = &Refusal{Code: codeInvalidRequest, Message: "not an MLS message", Index: -1}

func (d *xrpcDoor) sendMessage(ctx context.Context, m sendRequest) (int64, error) {
	epoch, _, err := epochOf(m.Message)
	if err != nil {
		return 0, errNotMLS
	}
	var out xrpc.SendMessageOutput
	err = d.do(ctx, xrpc.SendMessage, &xrpc.SendMessageInput{ConvoID: m.Conversation, MsgID: m.ID, Ciphertext: m.Message,
		Epoch: xrpc.Natural(epoch), PaddedSize: xrpc.Natural(len(m.Message))}, &out)
	switch {
	case err != nil:
		return 0, d.withEpoch(ctx, m.Conversation, err)
	case out.MessageID != m.ID || out.Seq < 1 || out.Seq >= xrpcSeqMax:
		return 0, wrongAnswer("it is about another message")
	}
	return out.Seq, nil
}

// commitGroup sends a commit with all that belongs to it. It returns the place of an external
// one, where this device begins to read; for others XRPC does not return it.
func (d *xrpcDoor) commitGroup(ctx context.Context, m commitRequest) (int64, error) {
	blob := func(data []byte) xrpc.Blob { return xrpc.Blob{Data: data, Shape: xrpc.ShapeBytes} }
	in := xrpc.CommitGroupChangeInput{ConvoID: m.Conversation, ActionText: string(xrpc.GroupCommit), IdempotencyKey: m.ID, Commit: blob(m.Commit)}
	if m.Welcome != nil {
		in.Welcome = blob(m.Welcome.Message)
		for _, to := range m.Welcome.To {
			in.KeyPackageHashes = append(in.KeyPackageHashes, xrpc.KeyPackageHash{DID: to.Account, Hash: to.KeyPackageRef})
		}
	}
	if m.GroupInfo != nil {
		in.GroupInfo = blob(m.GroupInfo)
	}
	_, isExternal, err := epochOf(m.Commit)
	switch {
	case err != nil:
		return 0, errNotMLS
	case isExternal:
		in.ActionText, in.DeviceID = string(xrpc.GroupExternalCommit), d.deviceID()
	case len(m.Add) > 0:
		in.ActionText, in.MemberDIDs = string(xrpc.GroupAddMembers), m.Add
	case len(m.Remove) > 0:
		in.ActionText, in.MemberDIDs = string(xrpc.GroupRemoveMember), m.Remove
	}
	var out xrpc.CommitGroupChangeOutput
	if err := d.do(ctx, xrpc.CommitGroupChange, &in, &out); err != nil {
		return 0, d.withEpoch(ctx, m.Conversation, err)
	}
	switch {
	case !out.Success || isExternal && out.NewEpoch == nil:
		return 0, wrongAnswer("it does not say what became of a commit")
	case !isExternal:
		return 0, nil
	}
	seq, err := d.seqOfCommit(ctx, m.Conversation, *out.NewEpoch)
	if err == nil && seq == 0 {
		err = &Refusal{Code: codeUnavailable, Message: "the log does not show our commit", Index: -1}
	}
	return seq, err
}

// epochOf returns the epoch of an MLS message, and whether it is an external commit.
func epochOf(message []byte) (epoch uint64, isExternal bool, err error) {
	var m wire.Message
	switch err := wire.Unmarshal(message, &m); {
	case err != nil:
		return 0, false, err
	case m.Private != nil:
		return m.Private.Epoch, false, nil
	case m.Public != nil:
		return m.Public.Content.Epoch, m.Public.Content.Sender.Type == wire.NewMemberCommitSender, nil
	}
	return 0, false, errors.New("a message without an epoch")
}

// seqOfCommit returns the place of the commit that opened an epoch, 0 if it is not there.
func (d *xrpcDoor) seqOfCommit(ctx context.Context, id string, epoch int64) (int64, error) {
	only, one := xrpc.Natural(epoch), xrpc.Natural(1)
	var page xrpc.GetMessagesOutput
	err := d.ask(ctx, xrpc.GetMessages, &xrpc.GetMessagesParams{ConvoID: id, Type: "commit", FromEpoch: &only, ToEpoch: &only, Limit: &one}, &page)
	if err != nil || len(page.Messages) == 0 {
		return 0, err
	}
	m := &page.Messages[0]
	if m.ConvoID != id || m.MessageType != "commit" || m.Epoch != epoch || m.Seq < 1 || m.Seq >= xrpcSeqMax {
		return 0, wrongAnswer("it is not the commit that was asked for")
	}
	return m.Seq, nil
}

// withEpoch adds the conversation's current epoch to a refusal because of the epoch.
func (d *xrpcDoor) withEpoch(ctx context.Context, id string, err error) error {
	r := asRefusal(err)
	if r == nil || r.Code != codeEpochConflict {
		return err
	}
	var state xrpc.GetGroupStateOutput
	if err := d.ask(ctx, xrpc.GetGroupState, &xrpc.GetGroupStateParams{ConvoID: id, Include: "epoch"}, &state); err != nil {
		return err
	}
	if state.Epoch != nil {
		r.CurrentEpoch = *state.Epoch
	}
	return r
}

func (d *xrpcDoor) confirmWelcome(ctx context.Context, id, ref string) error {
	return d.do(ctx, xrpc.CommitGroupChange, &xrpc.CommitGroupChangeInput{ConvoID: id, ActionText: string(xrpc.GroupConfirmWelcome),
		DeviceID: d.deviceID(), KeyPackageHashes: []xrpc.KeyPackageHash{{DID: d.c.account.DID(), Hash: ref}}}, &xrpc.CommitGroupChangeOutput{})
}

// moveCursors sends the read positions to the server periodically, the latest of each
// conversation. This is optional: nothing depends on it.
func (l *xrpcLink) moveCursors() {
	nextPool := time.Now().Add(xrpcPoolInterval)
	for pause(l.ctx, xrpcAckInterval) {
		l.mu.Lock()
		acks := l.acks
		l.acks = map[string]int64{}
		l.mu.Unlock()
		for id, seq := range acks {
			err := l.d.do(l.ctx, xrpc.UpdateCursor, &xrpc.UpdateCursorInput{ConvoID: id,
				Cursor: xrpc.CursorText(strconv.FormatInt(seq, 10))}, &xrpc.UpdateCursorOutput{})
			if err != nil {
				l.d.c.log.Debug("a cursor was not moved", "err", err)
			}
		}
		if time.Now().After(nextPool) {
			nextPool = time.Now().Add(xrpcPoolInterval)
			l.deliver(packagesLow{})
		}
	}
}

// beat checks that the server is still alive, at each request of the session.
func (l *xrpcLink) beat() {
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-l.ping:
		}
		ctx, cancel := context.WithTimeout(l.ctx, l.d.c.options.PingInterval*silentAfter/2)
		err := l.conn.Ping(ctx)
		cancel()
		if err != nil {
			l.fail(fmt.Errorf("ping: %w", err))
			return
		}
		l.lastSign.Store(time.Now().UnixNano())
	}
}

// listen reads the subscription: each event names a conversation to look at.
func (l *xrpcLink) listen() {
	for {
		kind, data, err := l.conn.Read(l.ctx)
		if err != nil {
			l.fail(fmt.Errorf("read: %w", err))
			return
		}
		l.lastSign.Store(time.Now().UnixNano())
		if kind != websocket.MessageBinary {
			continue
		}
		event, _, err := xrpc.DecodeFrame(data)
		switch {
		case errors.Is(err, xrpc.ErrUnknownType):
			continue // a newer version's
		case err != nil:
			l.fail(fmt.Errorf("read: %w", err))
			return
		}
		l.take(event)
	}
}

// take handles an event.
func (l *xrpcLink) take(event xrpc.Event) {
	self := l.d.c.account.DID()
	switch e := event.(type) {
	case *xrpc.MessageEvent:
		if !e.Ephemeral && !l.pass(&e.Message) {
			l.mark(e.Message.ConvoID, dueMaybe)
		}
	case *xrpc.MembershipChangeEvent:
		switch {
		case e.DID != self:
			l.deliver(accountsUnclear{e.ConvoID})
			l.mark(e.ConvoID, dueMaybe)
		case e.Action == "joined":
			l.mark(e.ConvoID, dueMember)
		default:
			l.deliver(membership{conversation: e.ConvoID, remove: []string{self}})
			l.mark(e.ConvoID, dueMaybe)
		}
	case *xrpc.InfoEvent:
		switch { // all but a sign of life: the stream has omitted an event
		case e.InfoType == "heartbeat":
		case e.ConvoID == "":
			l.wakeAll()
		default:
			l.mark(e.ConvoID, dueMaybe)
		}
	case *xrpc.ReactionEvent, *xrpc.TypingEvent, *xrpc.ReadEvent:
	default:
		// For an unknown event, looking does no harm.
		var about struct {
			ConvoID string `json:"convoId"`
		}
		if raw, err := json.Marshal(event); err == nil && json.Unmarshal(raw, &about) == nil && about.ConvoID != "" {
			l.mark(about.ConvoID, dueMaybe)
		}
	}
}
