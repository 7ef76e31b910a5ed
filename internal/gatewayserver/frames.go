package gatewayserver

import (
	"bytes"
	"context"
	"encoding/base64"
	"math"
	"unicode/utf8"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/limits"
)

// sessionKinds are the frames that may come first.
var sessionKinds = map[string]func(c *socket, f gateway.Frame) (identity.Ready, error){
	gateway.TypeSessionStart:  (*socket).sessionStart,
	gateway.TypeSessionResume: (*socket).sessionResume,
}

// frameKind is what one type of frame does in a session. Frames of a feature that
// the session was not granted are unknown to it.
type frameKind struct {
	feature gateway.Feature
	// handle answers before the next frame is read, and observes all sends before it,
	// unless isFree says that it needs to observe none.
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
	return c.server.start(c.ctx, &in, c.userAgent, c.address)
}

func (c *socket) sessionResume(f gateway.Frame) (identity.Ready, error) {
	var in gateway.Resume
	if err := f.Decode(&in); err != nil {
		return identity.Ready{}, invalid(err)
	}
	return c.server.resume(c.ctx, &in, c.address, transportWS)
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
	if _, err := c.follower.Follow(c.ctx, core.Start{Conversation: id, From: core.FromSeq(from)}); err != nil {
		return reply{}, replayRefusal(endOfFollow(err))
	}
	c.follow()
	return reply{}, nil
}

// startOf is the first seq that is wanted; 0 stands for the device's cursor.
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

// send hands a message to core and goes on. What is refused here is checked before
// anything of it is kept while its answer waits for its turn.
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

// sendOf reads a conv.send whose identifiers are of a size that may be kept.
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
	acked, err := c.server.commit(c.ctx, c.session.Caller, &in)
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
	if c.follower.AcknowledgeRead(id, in.Seq) {
		return reply{}, nil
	}
	c.answers.awaitSettled() // a seq beyond the head counts as the head
	return reply{}, c.follower.Acknowledge(c.ctx, id, in.Seq)
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
	return reply{}, c.follower.AcknowledgeDevice(c.ctx, in.Pos)
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
	return reply{}, c.server.report(c.ctx, c.session, &in)
}

// report is client.report, whichever way it came. It is counted and forgotten; an
// epoch authenticator is compared first.
func (s *Server) report(ctx context.Context, who identity.Session, in *gateway.Report) error {
	counter := s.metrics.reports[in.Kind]
	if counter == nil {
		return ds.Refuse(ds.InvalidRequest, "kind: unknown")
	}
	if err := s.limits.Take(limits.Reports, who.ID); err != nil { // reports are cheap to make up
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
	return s.core.Attest(ctx, who.Caller, ds.ConversationID(in.ConvID), in.Generation, in.Epoch, authenticator)
}

// messageOf is what core is asked to append for a conv.send, whichever way it came.
func messageOf(in *gateway.Send) (core.Send, error) {
	if len(in.Env) > gateway.EnvCharactersMax && utf8.RuneCountInString(in.Env) > gateway.EnvCharactersMax {
		return core.Send{}, ds.Refuse(ds.InvalidRequest, "env too large")
	}
	body, encoding := bytesOf(in.Env)
	return core.Send{
		ConversationID: ds.ConversationID(in.ConvID),
		ID:             ds.MessageID(in.MsgID),
		Body:           body,
		Encoding:       encoding,
	}, nil
}

// send is conv.send for a caller that waits.
func (s *Server) send(ctx context.Context, who ds.Caller, in *gateway.Send) (*gateway.Acked, error) {
	message, err := messageOf(in)
	if err != nil {
		return nil, err
	}
	done, err := s.core.Apply(ctx, who, message)
	if err != nil {
		return nil, err
	}
	return s.acked(in.ConvID, in.MsgID, done.Record), nil
}

// commit is conv.commit, whichever way it came.
func (s *Server) commit(ctx context.Context, who ds.Caller, in *gateway.Commit) (*gateway.Acked, error) {
	bundle, err := bundleOf(in)
	if err != nil {
		return nil, err
	}
	done, err := s.core.Apply(ctx, who, bundle)
	if err != nil {
		return nil, err
	}
	acked := s.acked(in.ConvID, in.MsgID, done.Record)
	acked.Epoch = &done.Record.Epoch
	return acked, nil
}

func (s *Server) acked(conversation, message string, record ds.Record) *gateway.Acked {
	did := s.did()
	return &gateway.Acked{ConvID: conversation, MsgID: message, Seq: record.Seq, ConvHome: did, OriginGateway: did}
}

func bundleOf(in *gateway.Commit) (core.Bundle, error) {
	b := core.Bundle{
		ConversationID: ds.ConversationID(in.ConvID),
		ID:             ds.MessageID(in.MsgID),
		Add:            accounts(in.Add),
		Remove:         accounts(in.Remove),
		Encoding:       ds.Base64,
	}
	var err error
	if b.Commit, err = decodeMLS("commit", in.Commit); err != nil {
		return b, err
	}
	if in.GroupInfo != nil {
		if b.GroupInfo, err = decodeMLS("group_info", *in.GroupInfo); err != nil {
			return b, err
		}
	}
	if in.Welcome == nil {
		return b, nil
	}
	if b.Welcome, err = decodeMLS("welcome.env", in.Welcome.Env); err != nil {
		return b, err
	}
	for _, to := range in.Welcome.To {
		b.To = append(b.To, core.Recipient{
			Device:        ds.Device{Account: ds.AccountID(to.UserID), ID: ds.DeviceID(to.DeviceID)},
			KeyPackageRef: to.KeyPackageRef,
		})
	}
	return b, nil
}

func decodeMLS(field, text string) ([]byte, error) {
	data, ok := decodeBase64(text)
	if !ok || len(data) == 0 {
		return nil, ds.Refuse(ds.InvalidRequest, "%s: not padded standard base64", field)
	}
	return data, nil
}

// bytesOf decides how an env is kept. What begins like an MLSMessage of version
// mls10 (RFC 9420, section 6: the bytes 00 01) in base64 is kept as bytes, for core
// to look into; everything else is text, and given back letter by letter.
func bytesOf(env string) ([]byte, ds.Encoding) {
	if len(env) >= 4 && env[:2] == "AA" && env[2] >= 'E' && env[2] <= 'H' {
		if data, ok := decodeBase64(env); ok {
			return data, ds.Base64
		}
	}
	return []byte(env), ds.Text
}

// decodeBase64 takes exactly what encodes back to the same text: padded, without
// line breaks, the unused bits zero.
func decodeBase64(text string) ([]byte, bool) {
	data, err := base64.StdEncoding.Strict().DecodeString(text)
	return data, err == nil && base64.StdEncoding.EncodedLen(len(data)) == len(text)
}

// replayRefusal words a refused position as the clients of gateway v1, 7 read it.
func replayRefusal(err error) error {
	r, ok := err.(*ds.Refusal)
	if !ok || r.Code != ds.ReplayWindowExceeded {
		return err
	}
	worded := ds.Refuse(r.Code, "requested_from_seq=%d earliest_seq=%d", r.RequestedSeq, r.EarliestSeq)
	worded.RequestedSeq, worded.EarliestSeq, worded.LatestSeq = r.RequestedSeq, r.EarliestSeq, r.LatestSeq
	return worded
}
