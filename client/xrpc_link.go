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

	"waxwing.im/waxwing/api/gateway"
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

// xrpcLink is the transport by XRPC. Sending is a call; a WebSocket tells that there is
// something new. A message that it brings is passed on if it is the very next one of its
// log; otherwise the log is read, from where the session has it. So events may come
// late, twice or not at all without a message being lost. Any
// fault of the network ends the link as a whole, and the next one reads everything from
// where the home stands.
type xrpcLink struct {
	d      *xrpcDoor
	c      *Client
	conn   *websocket.Conn
	out    chan gateway.Frame
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	ended  chan struct{} // closed when tasks are done

	lastSign atomic.Int64 // UnixNano by the machine's clock

	mu      sync.Mutex
	err     error                  // why the link ended; guarded by mu
	sends   []posting              // guarded by mu
	follows map[string]*xrpcFollow // conversations that the session reads; guarded by mu
	due     map[string]dueFor      // what readers have to look at; guarded by mu
	looks   map[string]looking     // of those that are not read: how often, and which was woken last; guarded by mu
	wakes   int                    // numbers wakes; guarded by mu
	isPaced bool                   // a reader is woken when looking is possible again; guarded by mu
	busy    map[string]bool        // and look at now; guarded by mu
	later   map[string]dueFor      // and may not look at yet; guarded by mu
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

// open opens the subscription of everything that the account is in. What happens from
// then on wakes the link; what was before is read.
func (d *xrpcDoor) open(ctx context.Context) (*xrpcLink, error) {
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
	l := &xrpcLink{d: d, c: d.c, conn: conn, out: make(chan gateway.Frame, framesAhead), ended: make(chan struct{}),
		follows: map[string]*xrpcFollow{}, due: map[string]dueFor{}, looks: map[string]looking{}, busy: map[string]bool{}, later: map[string]dueFor{}, acks: map[string]int64{},
		queued: make(chan struct{}, 1), woken: make(chan struct{}, 1), ping: make(chan struct{}, 1)}
	l.ctx, l.cancel = context.WithCancel(ctx)
	l.lastSign.Store(time.Now().UnixNano())
	return l, nil
}

func (l *xrpcLink) kind() Transport { return XRPC }

// begin starts everything. There is no token: each call has one of its own.
func (l *xrpcLink) begin(string) error {
	l.d.mu.Lock()
	l.d.link = l
	l.d.mu.Unlock()
	l.tasks.Go(l.listen)
	l.tasks.Go(l.beat)
	l.tasks.Go(l.acknowledge)
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
	return nil
}

func (l *xrpcLink) incoming() <-chan gateway.Frame { return l.out }

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

func (l *xrpcLink) isSilent(pingInterval time.Duration) bool {
	return time.Since(time.Unix(0, l.lastSign.Load())) > pingInterval*silentAfter/2
}

// The frames that only this link has: the session says that it does not read a
// conversation and that a Welcome was taken in, and is told to ask who is in one.
const (
	frameLook    = "\x00look"
	frameTaken   = "\x00taken"
	frameMembers = "\x00members"
)

// xrpcConversation is the body of these frames.
type xrpcConversation struct {
	ConvID string `json:"conv_id"`
	Ref    string `json:"ref,omitempty"` // the key package of the Welcome
}

// send never waits: what has an answer is given to those who post.
func (l *xrpcLink) send(frameType, id string, body any) {
	switch body := body.(type) {
	case nil:
		if frameType == gateway.TypePing {
			ring(l.ping)
		}
	case gateway.Subscribe:
		l.follow(body.ConvID, *body.FromSeq-1)
	case gateway.Ack:
		l.mu.Lock()
		l.acks[body.ConvID] = max(l.acks[body.ConvID], body.Seq)
		l.mu.Unlock()
	case sendRequest, commitRequest, xrpcConversation:
		if frameType == frameLook {
			l.unfollow(body.(xrpcConversation).ConvID)
			return
		}
		l.mu.Lock()
		l.sends = append(l.sends, posting{frameType: frameType, id: id, body: body})
		l.mu.Unlock()
		ring(l.queued)
	default: // XRPC has no reports and no log of the account
	}
}

// deliver passes a frame to the session, in vain when the link ends.
func (l *xrpcLink) deliver(frameType, id string, body any) bool {
	raw, err := gateway.Marshal(body)
	if err != nil {
		l.fail(err)
		return false
	}
	frame := gateway.Frame{Type: frameType, Body: raw}
	if id != "" {
		frame.ID = gateway.StringID(id)
	}
	select {
	case l.out <- frame:
		return true
	case <-l.ctx.Done():
		return false
	}
}

func (l *xrpcLink) takeSend() (p posting, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.sends) == 0 {
		return p, false
	}
	p, l.sends = l.sends[0], l.sends[1:]
	if len(l.sends) > 0 {
		ring(l.queued)
	}
	return p, true
}

// post is one of those who make the calls that the session asks for. Without an answer
// nobody knows what happened, and the next link asks again with the same id.
func (l *xrpcLink) post() {
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-l.queued:
		}
		p, ok := l.takeSend()
		if !ok {
			continue
		}
		conversation, seq, err := l.d.append(l.ctx, p.body)
		r := asRefusal(err)
		switch {
		case r != nil && r.Code == codeUnauthorized, err != nil && r == nil:
			l.fail(err)
		case p.id == "": // nobody waits for the answer
		case r != nil:
			l.refuse(p.id, r)
		default:
			l.deliver(gateway.TypeAcked, p.id, gateway.Acked{ConvID: conversation, Seq: seq})
		}
		if err == nil && p.id != "" {
			l.expect(conversation, seq)
		}
	}
}

// refuse answers what the session has sent under an id.
func (l *xrpcLink) refuse(id string, r *Refusal) {
	e := gateway.Error{Code: gateway.Code(r.Code), Message: r.Message, EarliestSeq: &r.EarliestSeq, LatestSeq: &r.LatestSeq, CurrentEpoch: &r.CurrentEpoch}
	if seconds := int64(r.RetryAfter / time.Second); seconds > 0 {
		e.RetryAfterS = &seconds
	}
	l.deliver(gateway.TypeError, id, e)
}

// append makes the call that a frame stands for.
func (d *xrpcDoor) append(ctx context.Context, body any) (conversation string, seq int64, err error) {
	switch body := body.(type) {
	case sendRequest:
		seq, err = d.sendMessage(ctx, body)
		return body.Conversation, seq, err
	case commitRequest:
		seq, err = d.commit(ctx, body)
		return body.Conversation, seq, err
	case xrpcConversation:
		return body.ConvID, 0, d.confirmWelcome(ctx, body)
	}
	return "", 0, fmt.Errorf("no call for %T", body)
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

// commit sends a commit with all that belongs to it. It returns the place of an external
// one, where this device begins to read; of others XRPC does not tell.
func (d *xrpcDoor) commit(ctx context.Context, m commitRequest) (int64, error) {
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

// confirmWelcome tells that a Welcome was taken in, so that it is not offered again.
func (d *xrpcDoor) confirmWelcome(ctx context.Context, w xrpcConversation) error {
	return d.do(ctx, xrpc.CommitGroupChange, &xrpc.CommitGroupChangeInput{ConvoID: w.ConvID, ActionText: string(xrpc.GroupConfirmWelcome),
		DeviceID: d.deviceID(), KeyPackageHashes: []xrpc.KeyPackageHash{{DID: d.c.account.DID(), Hash: w.Ref}}}, &xrpc.CommitGroupChangeOutput{})
}

// acknowledge tells the server now and then how far was read, the latest of each
// conversation. It is a courtesy: nothing depends on it.
func (l *xrpcLink) acknowledge() {
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
				l.c.log.Debug("a cursor was not moved", "err", err)
			}
		}
		if time.Now().After(nextPool) {
			nextPool = time.Now().Add(xrpcPoolInterval)
			l.deliver(gateway.TypeKeyPackagesLow, "", gateway.KeyPackagesLow{})
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
		ctx, cancel := context.WithTimeout(l.ctx, l.c.options.PingInterval*silentAfter/2)
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
	self := l.c.account.DID()
	switch e := event.(type) {
	case *xrpc.MessageEvent:
		if !e.Ephemeral && !l.pass(&e.Message) {
			l.wake(e.Message.ConvoID, dueMaybe)
		}
	case *xrpc.MembershipChangeEvent:
		switch {
		case e.DID != self:
			l.deliver(frameMembers, "", xrpcConversation{ConvID: e.ConvoID})
			l.wake(e.ConvoID, dueMaybe)
		case e.Action == "joined":
			l.wake(e.ConvoID, dueMember)
		default:
			l.deliver(gateway.TypeMembers, "", gateway.Members{ConvID: e.ConvoID, Remove: []string{self}, Add: []string{}})
			l.wake(e.ConvoID, dueMaybe)
		}
	case *xrpc.InfoEvent:
		switch { // all but a sign of life: the stream has passed over something
		case e.InfoType == "heartbeat":
		case e.ConvoID == "":
			l.wakeAll()
		default:
			l.wake(e.ConvoID, dueMaybe)
		}
	case *xrpc.ReactionEvent, *xrpc.TypingEvent, *xrpc.ReadEvent:
	default:
		// Whatever it is about, looking does no harm.
		var about struct {
			ConvoID string `json:"convoId"`
		}
		if raw, err := json.Marshal(event); err == nil && json.Unmarshal(raw, &about) == nil && about.ConvoID != "" {
			l.wake(about.ConvoID, dueMaybe)
		}
	}
}
