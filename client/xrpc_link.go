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
	// xrpcReaders is how many conversations are read at the same time, and xrpcSenders
	// how many messages and commits are on their way.
	xrpcReaders = 4
	xrpcSenders = 4
	// xrpcMembersMax is how many accounts one commitGroupChange names.
	xrpcMembersMax = 50
	// xrpcAckInterval is how often what was read is told to the server.
	xrpcAckInterval = 5 * time.Second
	// xrpcPoolInterval is how often the pool of key packages is looked at, since nobody
	// tells when they are taken.
	xrpcPoolInterval = 10 * time.Minute
	// xrpcEventBytesMax bounds one frame of subscribeEvents: a message and its head.
	xrpcEventBytesMax = xrpc.CiphertextMax + 64<<10
)

// xrpcLink is a connection by XRPC. Sending is a call; a WebSocket tells that there is
// something new. A message that it brings is passed on if it is the very next one of its
// log; otherwise the log is read, from where the session has it. So events may come
// late, twice or not at all without a message being lost. Any
// fault of the network ends the link as a whole, and the next one reads everything from
// where the home stands.
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
	due     map[string]dueFor      // what readers have to look at; guarded by mu
	looks   map[string]looking     // of those that are not read: how often, and which was woken last; guarded by mu
	wakes   int                    // numbers wakes; guarded by mu
	isPaced bool                   // a reader is woken when looking is possible again; guarded by mu
	busy    map[string]bool        // and look at now; guarded by mu
	paused  map[string]dueFor      // and may not look at yet; guarded by mu
	acks    map[string]int64       // guarded by mu

	queued, woken, ping chan struct{}
}

// looking is how a conversation that is not read was looked at.
type looking struct {
	inVain int // how often
	woken  int // the number of its last wake
}

// dueFor says how sure it is that our account is in a conversation.
type dueFor int

const (
	dueOut    dueFor = 1 // the server's list does not have it
	dueMaybe  dueFor = 2
	dueMember dueFor = 3 // the server says so
)

// subscribe opens the subscription of everything that the account is in. What happens from
// then on wakes the link; what was before is read.
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

// begin starts everything. There is no token: each call has one of its own.
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

// acknowledgeAccount has nothing to do: there is no log of the account.
func (l *xrpcLink) acknowledgeAccount(int64) {}

// report has nothing to do: XRPC has no reports.
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

// confirm tells that a Welcome was taken in, so that it is not offered again. It is a
// courtesy: what was taken in is known.
func (l *xrpcLink) confirm(w *welcome) {
	id, ref := w.Conversation, w.KeyPackageRef
	l.later(func() {
		err := l.d.confirmWelcome(l.ctx, id, ref)
		if r := asRefusal(err); err != nil && (r == nil || r.Code == codeUnauthorized) {
			l.fail(err)
		}
	})
}

// later has a call made as soon as one of the senders is free.
func (l *xrpcLink) later(call func()) {
	l.mu.Lock()
	l.sends = append(l.sends, call)
	l.mu.Unlock()
	ring(l.queued)
}

// answer delivers what a call has come to. Without an answer the outcome is unknown,
// and the next link asks again with the same id.
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

// deliver passes an event to the session, in vain when the link ends.
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

// post makes the calls that the session asks for, one at a time.
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

// errNotMLS refuses what is not an MLS message before it is sent.
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
// one, where this device begins to read; of others XRPC does not tell.
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

// epochOf is the epoch that an MLS message was made in, and whether it is the commit of
// somebody who enters by it.
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

// seqOfCommit is where the commit that has opened an epoch stands, 0 if it is not there.
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

// withEpoch adds to a refusal for its epoch the one that the conversation is in.
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

// moveCursors tells the server now and then how far was read, the latest of each
// conversation. It is a courtesy: nothing depends on it.
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

// beat checks that the server is still there, whenever the session asks for it.
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
			continue // newer than we are
		case err != nil:
			l.fail(fmt.Errorf("read: %w", err))
			return
		}
		l.take(event)
	}
}

// take does what an event asks for.
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
		switch { // all but a sign of life: the stream has passed over something
		case e.InfoType == "heartbeat":
		case e.ConvoID == "":
			l.wakeAll()
		default:
			l.mark(e.ConvoID, dueMaybe)
		}
	case *xrpc.ReactionEvent, *xrpc.TypingEvent, *xrpc.ReadEvent:
	default:
		// Whatever it is about, looking does no harm.
		var about struct {
			ConvoID string `json:"convoId"`
		}
		if raw, err := json.Marshal(event); err == nil && json.Unmarshal(raw, &about) == nil && about.ConvoID != "" {
			l.mark(about.ConvoID, dueMaybe)
		}
	}
}
