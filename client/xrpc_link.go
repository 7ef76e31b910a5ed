package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
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
	link
	d    *xrpcDoor
	conn *websocket.Conn

	lastSign signOfLife
	acks     latest // to be reported to the server

	mu          sync.Mutex
	logs        map[string]*xrpcLog // guarded by mu
	free, paced map[string]*xrpcLog // those that a reader has to look at, at once or in turn; guarded by mu
	marks       int                 // numbers marks; guarded by mu
	isPaced     bool                // a reader will be woken when another request is allowed; guarded by mu

	woken, ping chan struct{}
}

// subscribe opens the subscription of all conversations of the account. Its events wake the
// link from then on; earlier ones are read.
func (d *xrpcDoor) subscribe(ctx context.Context) (*xrpcLink, error) {
	dialCtx, cancelDial := context.WithTimeout(ctx, dialTimeout)
	defer cancelDial()
	ticket, err := procedure[xrpc.GetSubscriptionTicketOutput](dialCtx, d, xrpc.GetSubscriptionTicket, &xrpc.GetSubscriptionTicketInput{})
	if err != nil {
		return nil, fmt.Errorf("request a subscription: %w", err)
	}
	address := d.c.base.JoinPath("/xrpc/" + xrpc.SubscribeEvents)
	address.RawQuery = xrpc.EncodeQuery(&xrpc.SubscribeEventsParams{Ticket: ticket.Ticket})
	conn, err := dialWebSocket(dialCtx, address.String(), d.c.http)
	if err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	conn.SetReadLimit(xrpcEventBytesMax)
	l := &xrpcLink{link: newLink(ctx), d: d, conn: conn, acks: newLatest(), logs: map[string]*xrpcLog{},
		free: map[string]*xrpcLog{}, paced: map[string]*xrpcLog{}, woken: make(chan struct{}, 1), ping: make(chan struct{}, 1)}
	l.lastSign.now()
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
	l.start(xrpcSenders, func() { l.conn.CloseNow() })
}

func (l *xrpcLink) close() {
	l.d.mu.Lock()
	l.d.link = nil
	l.d.mu.Unlock()
	l.link.close()
}

// check reports a server that has given no sign of life for too long. Calls have timeouts
// of their own.
func (l *xrpcLink) check(pingInterval time.Duration) error {
	if l.lastSign.isMissing(pingInterval) {
		return errSilent
	}
	ring(l.ping)
	return nil
}

// heldBack returns zero: events are complete.
func (l *xrpcLink) heldBack() time.Time { return time.Time{} }

func (l *xrpcLink) acknowledge(log string, pos int64) {
	if log != accountLog { // which this door does not have
		l.acks.set(log, pos)
	}
}

// report does nothing: XRPC has no reports.
func (l *xrpcLink) report(report) {}

func (l *xrpcLink) send(number int, m sendRequest) {
	l.calls.add(func() {
		seq, err := l.d.sendMessage(l.ctx, m)
		l.answer(number, m.Conversation, seq, err)
	})
}

func (l *xrpcLink) commit(number int, m commitRequest) {
	l.calls.add(func() {
		seq, err := l.d.commitGroup(l.ctx, m)
		l.answer(number, m.Conversation, seq, err)
	})
}

// answer delivers the result of a call, and expects what it has appended.
func (l *xrpcLink) answer(number int, id string, seq int64, err error) {
	l.link.answer(number, seq, err)
	if err == nil {
		l.expect(id, seq)
	}
}

// confirm reports that a Welcome was received, so that it is not offered again. This is
// optional: received ones are recognized.
func (l *xrpcLink) confirm(w *welcome) {
	id, ref := w.Conversation, w.KeyPackageRef
	l.calls.add(func() {
		err := l.d.confirmWelcome(l.ctx, id, ref)
		if r := asRefusal(err); err != nil && (r == nil || r.Code == codeUnauthorized) {
			l.fail(err)
		}
	})
}

// errNotMLS refuses a message that is not of MLS before it is sent.
var errNotMLS = &Refusal{Code: codeInvalidRequest, Message: "not an MLS message", Index: -1}

func (d *xrpcDoor) sendMessage(ctx context.Context, m sendRequest) (int64, error) {
	epoch, _, err := epochOf(m.Message)
	if err != nil {
		return 0, errNotMLS
	}
	out, err := procedure[xrpc.SendMessageOutput](ctx, d, xrpc.SendMessage, &xrpc.SendMessageInput{
		ConvoID: m.Conversation, MsgID: m.ID, Ciphertext: m.Message, Epoch: xrpc.Natural(epoch), PaddedSize: xrpc.Natural(len(m.Message))})
	switch {
	case err != nil:
		return 0, d.withEpoch(ctx, m.Conversation, err)
	case out.MessageID != m.ID || out.Seq < 1 || out.Seq >= xrpcSeqMax:
		return 0, invalidAnswer("not for the sent message")
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
	out, err := procedure[xrpc.CommitGroupChangeOutput](ctx, d, xrpc.CommitGroupChange, &in)
	if err != nil {
		return 0, d.withEpoch(ctx, m.Conversation, err)
	}
	switch {
	case !out.Success || isExternal && out.NewEpoch == nil:
		return 0, invalidAnswer("incomplete result of a commit")
	case !isExternal:
		return 0, nil
	}
	seq, err := d.seqOfCommit(ctx, m.Conversation, *out.NewEpoch)
	if err == nil && seq == 0 {
		err = &Refusal{Code: codeUnavailable, Message: "log does not have the own commit yet", Index: -1}
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
	return 0, false, errors.New("message without an epoch")
}

// seqOfCommit returns the place of the commit that opened an epoch, 0 if it is not there.
func (d *xrpcDoor) seqOfCommit(ctx context.Context, id string, epoch int64) (int64, error) {
	only, one := xrpc.Natural(epoch), xrpc.Natural(1)
	page, err := query[xrpc.GetMessagesOutput](ctx, d, xrpc.GetMessages,
		&xrpc.GetMessagesParams{ConvoID: id, Type: "commit", FromEpoch: &only, ToEpoch: &only, Limit: &one})
	if err != nil || len(page.Messages) == 0 {
		return 0, err
	}
	m := &page.Messages[0]
	if m.ConvoID != id || m.MessageType != "commit" || m.Epoch != epoch || m.Seq < 1 || m.Seq >= xrpcSeqMax {
		return 0, invalidAnswer("not the requested commit")
	}
	return m.Seq, nil
}

// withEpoch adds the conversation's current epoch to a refusal because of the epoch.
func (d *xrpcDoor) withEpoch(ctx context.Context, id string, err error) error {
	r := asRefusal(err)
	if r == nil || r.Code != codeEpochConflict {
		return err
	}
	state, err := query[xrpc.GetGroupStateOutput](ctx, d, xrpc.GetGroupState, &xrpc.GetGroupStateParams{ConvoID: id, Include: "epoch"})
	if err != nil {
		return err
	}
	if state.Epoch != nil {
		r.CurrentEpoch = *state.Epoch
	}
	return r
}

func (d *xrpcDoor) confirmWelcome(ctx context.Context, id, ref string) error {
	_, err := procedure[xrpc.CommitGroupChangeOutput](ctx, d, xrpc.CommitGroupChange, &xrpc.CommitGroupChangeInput{
		ConvoID: id, ActionText: string(xrpc.GroupConfirmWelcome), DeviceID: d.deviceID(),
		KeyPackageHashes: []xrpc.KeyPackageHash{{DID: d.c.account.DID(), Hash: ref}}})
	return err
}

// moveCursors sends the read positions to the server periodically, the latest of each
// conversation. This is optional: nothing depends on it.
func (l *xrpcLink) moveCursors() {
	nextPool := time.Now().Add(xrpcPoolInterval)
	for pause(l.ctx, xrpcAckInterval) {
		for id, seq := range l.acks.takeAll() {
			if _, err := procedure[xrpc.UpdateCursorOutput](l.ctx, l.d, xrpc.UpdateCursor, &xrpc.UpdateCursorInput{ConvoID: id,
				Cursor: xrpc.CursorText(strconv.FormatInt(seq, 10))}); err != nil {
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
	l.each(l.ping, func() {
		ctx, cancel := context.WithTimeout(l.ctx, l.d.c.options.PingInterval*silentAfter/2)
		err := l.conn.Ping(ctx)
		cancel()
		if err != nil {
			l.fail(fmt.Errorf("ping: %w", err))
			return
		}
		l.lastSign.now()
	})
}

// listen reads the subscription: each event names a conversation to look at.
func (l *xrpcLink) listen() {
	for {
		kind, data, err := l.conn.Read(l.ctx)
		if err != nil {
			l.fail(fmt.Errorf("read: %w", err))
			return
		}
		l.lastSign.now()
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
			l.mark(e.Message.ConvoID, hintUnknown)
		}
	case *xrpc.MembershipChangeEvent:
		switch {
		case e.DID != self:
			unclear := accountsUnclear{conversation: e.ConvoID}
			if e.Action == "left" {
				unclear.left = e.DID
			}
			l.deliver(unclear)
			l.mark(e.ConvoID, hintUnknown)
		case e.Action == "joined":
			l.mark(e.ConvoID, hintMember)
		default:
			l.deliver(membership{conversation: e.ConvoID, remove: []string{self}})
			l.mark(e.ConvoID, hintUnknown)
		}
	case *xrpc.InfoEvent:
		switch { // all but a sign of life: the stream has omitted an event
		case e.InfoType == "heartbeat":
		case e.ConvoID == "":
			l.markAll()
		default:
			l.mark(e.ConvoID, hintUnknown)
		}
	case *xrpc.ReactionEvent, *xrpc.TypingEvent, *xrpc.ReadEvent:
	default:
		// For an unknown event, looking does no harm.
		var about struct {
			ConvoID string `json:"convoId"`
		}
		if raw, err := json.Marshal(event); err == nil && json.Unmarshal(raw, &about) == nil && about.ConvoID != "" {
			l.mark(about.ConvoID, hintUnknown)
		}
	}
}
