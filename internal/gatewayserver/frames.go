package gatewayserver

import (
	"bytes"
	"context"
	"math"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
)

// sessionKinds holds the handlers of a socket's first frame.
var sessionKinds = map[string]func(c *socket, f gateway.Frame) (identity.Ready, error){
	gateway.TypeSessionStart:  (*socket).sessionStart,
	gateway.TypeSessionResume: (*socket).sessionResume,
}

// frameKind holds the handler of one type of frame in a session. Frames of a feature that
// the session was not granted are unknown to it.
type frameKind struct {
	feature gateway.Feature
	// handle answers before the next frame is read, and observes all sends before it,
	// unless isFree is set.
	handle func(c *socket, f gateway.Frame) (reply, error)
	isFree bool
	// begin, in place of handle, is answered later.
	begin func(c *socket, f gateway.Frame)
}

var frameKinds = map[string]frameKind{
	gateway.TypePing:      {handle: (*socket).ping, isFree: true},
	gateway.TypePong:      {handle: (*socket).pong, isFree: true},
	gateway.TypeSubscribe: {handle: (*socket).subscribe},
	gateway.TypeSend:      {begin: (*socket).send},
	gateway.TypeAck:       {handle: (*socket).ack, isFree: true},
	gateway.TypeCommit:    {feature: gateway.FeatureBundle, handle: (*socket).commit},
	gateway.TypeDeviceAck: {feature: gateway.FeatureDevice, handle: (*socket).deviceAck},
	gateway.TypeReport:    {feature: gateway.FeatureReport, handle: (*socket).report},
}

func (c *socket) sessionStart(f gateway.Frame) (identity.Ready, error) {
	var in gateway.Start
	if err := f.Decode(&in); err != nil {
		return identity.Ready{}, invalid(err)
	}
	return c.server.sessions.start(c.ctx, nil, &in, c.userAgent, c.address)
}

func (c *socket) sessionResume(f gateway.Frame) (identity.Ready, error) {
	var in gateway.Resume
	if err := f.Decode(&in); err != nil {
		return identity.Ready{}, invalid(err)
	}
	return c.server.sessions.resume(c.ctx, nil, &in, c.address, transportWS)
}

func (c *socket) ping(gateway.Frame) (reply, error) { return reply{gateway.TypePong, nil}, nil }

func (c *socket) pong(gateway.Frame) (reply, error) { return reply{}, nil }

func (c *socket) subscribe(f gateway.Frame) (reply, error) {
	var in gateway.Subscribe
	if err := f.Decode(&in); err != nil {
		return reply{}, invalid(err)
	}
	id, err := conversationID(in.ConvID)
	if err != nil {
		return reply{}, err
	}
	from, err := startOf(in.FromSeq, in.AfterSeq)
	if err != nil {
		return reply{}, err
	}
	if err := c.server.limits.Take(limits.Subscribes, c.session.ID); err != nil {
		return reply{}, err
	}
	if _, err := c.follower.Follow(c.ctx, logs.Start{Conversation: id, From: logs.FromSeq(from)}); err != nil {
		return reply{}, replayRefusal(endOfFollow(err))
	}
	c.follow()
	return reply{}, nil
}

// startOf returns the first seq to send; 0 stands for the device's cursor.
func startOf(fromSeq, afterSeq *int64) (int64, error) {
	switch {
	case fromSeq != nil && *fromSeq < 1:
		return 0, ds.Refuse(ds.InvalidRequest, "from_seq: less than 1")
	case fromSeq != nil:
		return *fromSeq, nil
	case afterSeq == nil:
		return 0, nil
	case *afterSeq < 0:
		return 0, ds.Refuse(ds.InvalidRequest, "after_seq: negative")
	case *afterSeq == math.MaxInt64:
		return *afterSeq, nil
	}
	return *afterSeq + 1, nil
}

// send queues a message in core, without waiting for its end. It is checked first, so that
// an answer in the queue retains no part of an invalid one.
func (c *socket) send(f gateway.Frame) {
	o := &owed{request: f.Type, id: bytes.Clone(f.ID)}
	message, err := sendOf(f)
	c.letGo() // nothing below points into the frame
	if err == nil {
		o.conv, o.msg = string(message.ConversationID), string(message.ID)
	}
	o.bytes = o.cost() + len(message.Body)
	if !c.answers.push(o) {
		return // the socket ends, and the send with it
	}
	if err != nil {
		c.answers.settle(o, ds.Record{}, err)
		return
	}
	c.server.core.Begin(c.ctx, c.session.Caller, message, func(done core.Result, err error) { c.answers.settle(o, done.Record, err) })
}

// sendOf decodes a conv.send and checks the sizes of its identifiers.
func sendOf(f gateway.Frame) (core.Send, error) {
	var in gateway.Send
	if err := f.Decode(&in); err != nil {
		return core.Send{}, invalid(err)
	}
	message, err := messageOf(&in)
	if err == nil {
		err = core.CheckIDs(message.ConversationID, message.ID)
	}
	if err != nil {
		return core.Send{}, err
	}
	return message, nil
}

func (c *socket) commit(f gateway.Frame) (reply, error) {
	var in gateway.Commit
	if err := f.Decode(&in); err != nil {
		return reply{}, invalid(err)
	}
	acked, err := c.server.messages.commit(c.ctx, c.session.Caller, &in)
	return reply{gateway.TypeAcked, acked}, err
}

func (c *socket) ack(f gateway.Frame) (reply, error) {
	var in gateway.Ack
	if err := f.Decode(&in); err != nil {
		return reply{}, invalid(err)
	}
	id, err := ackOf(&in)
	if err != nil {
		return reply{}, err
	}
	if c.follower.AcknowledgeRead(ds.ConversationLog(id), in.Seq) {
		return reply{}, nil
	}
	c.answers.awaitSettled() // a seq beyond the head counts as the head
	return reply{}, c.follower.Acknowledge(c.ctx, ds.ConversationLog(id), in.Seq)
}

func ackOf(in *gateway.Ack) (ds.ConversationID, error) {
	if in.Seq < 0 {
		return "", ds.Refuse(ds.InvalidRequest, "seq: negative")
	}
	return conversationID(in.ConvID)
}

func (c *socket) deviceAck(f gateway.Frame) (reply, error) {
	var in gateway.DeviceAck
	if err := f.Decode(&in); err != nil {
		return reply{}, invalid(err)
	}
	if err := checkDeviceAck(&in); err != nil {
		return reply{}, err
	}
	return reply{}, c.follower.Acknowledge(c.ctx, ds.AccountLog(c.session.Account), in.Pos)
}

func checkDeviceAck(in *gateway.DeviceAck) error {
	if in.Pos < 0 {
		return ds.Refuse(ds.InvalidRequest, "pos: negative")
	}
	return nil
}

func (c *socket) report(f gateway.Frame) (reply, error) {
	var in gateway.Report
	if err := f.Decode(&in); err != nil {
		return reply{}, invalid(err)
	}
	return reply{}, c.server.reports.take(c.ctx, c.session, &in)
}

// reports counts the reports of clients.
type reports struct {
	core    *core.Service
	limits  *limits.Limiter
	metrics *metrics
}

// take handles a client.report of a socket or of the inbox: it counts it, and compares an
// epoch authenticator.
func (r reports) take(ctx context.Context, who identity.Session, in *gateway.Report) error {
	counter := r.metrics.reports[in.Kind]
	if counter == nil {
		return ds.Refuse(ds.InvalidRequest, "kind: unknown")
	}
	if err := r.limits.TakeOwn(who.Meter, limits.Reports, who.ID); err != nil { // reports are cheap to make up
		return err
	}
	counter.Inc()
	if in.Kind != gateway.ReportEpochAuthenticator || in.ConvID == "" {
		return nil
	}
	authenticator, ok := decodeBase64(in.EpochAuthenticator)
	if !ok {
		return ds.Refuse(ds.InvalidRequest, "epoch_authenticator: not padded standard base64")
	}
	return r.core.Attest(ctx, who.Caller, ds.ConversationID(in.ConvID), in.Generation, in.Epoch, authenticator)
}

// replayRefusal words a refused position as clients of the gateway read it.
func replayRefusal(err error) error {
	r, ok := err.(*ds.Refusal)
	if !ok || r.Code != ds.ReplayWindowExceeded {
		return err
	}
	worded := ds.Refuse(r.Code, "requested_from_seq=%d earliest_seq=%d", r.RequestedSeq, r.EarliestSeq)
	worded.RequestedSeq, worded.EarliestSeq, worded.LatestSeq = r.RequestedSeq, r.EarliestSeq, r.LatestSeq
	return worded
}
