package gatewayserver

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"time"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/logs"
)

// inboxKinds holds the handlers of the frames that may also be posted.
var inboxKinds = map[string]struct {
	feature gateway.Feature
	handle  func(b inbox, ctx context.Context, who identity.Session, f gateway.Frame) (*gateway.InboxAnswer, error)
}{
	gateway.TypeSend:      {"", inbox.postSend},
	gateway.TypeAck:       {"", inbox.postAck},
	gateway.TypeCommit:    {gateway.FeatureBundle, inbox.postCommit},
	gateway.TypeDeviceAck: {gateway.FeatureDevice, inbox.postDeviceAck},
	gateway.TypeReport:    {gateway.FeatureReport, inbox.postReport},
}

// inbox handles the frames of a socket one by one, for clients that cannot hold a socket.
type inbox struct {
	logs     *logs.Engine
	messages messages
	reports  reports
}

func (b inbox) register(s *Server) {
	s.mux.HandleFunc("POST /v1/inbox", func(w http.ResponseWriter, r *http.Request) {
		who, err := s.authenticate(r)
		var out any
		if err == nil {
			out, err = b.postFrame(w, r, who)
		}
		s.answer(w, r, who.Meter, out, err)
	})
	bulky(s, "GET /v1/device-events", 3*deviceEventsBytesMax, b.deviceEvents)
}

func (b inbox) postFrame(w http.ResponseWriter, r *http.Request, who identity.Session) (any, error) {
	data, err := readBytes(w, r, gateway.CommitBytesMax)
	if err != nil {
		return nil, err
	}
	frame, err := gateway.DecodeFrame(data)
	switch {
	case errors.Is(err, gateway.ErrMalformed), errors.Is(err, gateway.ErrNotUTF8):
		return nil, errMalformedBody
	case errors.Is(err, gateway.ErrVersion), errors.Is(err, gateway.ErrNotObject):
		return nil, ds.Refuse(ds.InvalidRequest, "invalid frame envelope")
	case err != nil:
		return nil, invalid(err)
	case len(data) > gateway.BodyBytesMax && frame.Type != gateway.TypeCommit:
		return nil, errMalformedBody
	}
	kind, ok := inboxKinds[frame.Type]
	if !ok || kind.feature != "" && !who.Has(kind.feature) {
		return nil, ds.Refuse(ds.InvalidRequest, "unsupported frame type")
	}
	return kind.handle(b, r.Context(), who, frame)
}

func (b inbox) postSend(ctx context.Context, who identity.Session, f gateway.Frame) (*gateway.InboxAnswer, error) {
	var in gateway.Send
	if err := f.Decode(&in); err != nil {
		return nil, invalid(err)
	}
	return posted(b.messages.send(ctx, who.Caller, &in))
}

func (b inbox) postCommit(ctx context.Context, who identity.Session, f gateway.Frame) (*gateway.InboxAnswer, error) {
	var in gateway.Commit
	if err := f.Decode(&in); err != nil {
		return nil, invalid(err)
	}
	return posted(b.messages.commit(ctx, who.Caller, &in))
}

func posted(acked *gateway.Acked, err error) (*gateway.InboxAnswer, error) {
	if err != nil {
		return nil, err
	}
	return &gateway.InboxAnswer{Status: "ok", Seq: acked.Seq, ConvHome: acked.ConvHome,
		OriginGateway: acked.OriginGateway, Epoch: acked.Epoch}, nil
}

// postAck writes the cursor before it answers: the answer is a promise.
func (b inbox) postAck(ctx context.Context, who identity.Session, f gateway.Frame) (*gateway.InboxAnswer, error) {
	var in gateway.Ack
	if err := f.Decode(&in); err != nil {
		return nil, invalid(err)
	}
	id, err := ackOf(&in)
	if err != nil {
		return nil, err
	}
	return &gateway.InboxAnswer{Status: "ok"}, b.logs.AcknowledgeNow(ctx, who.Caller, ds.ConversationLog(id), in.Seq)
}

func (b inbox) postDeviceAck(ctx context.Context, who identity.Session, f gateway.Frame) (*gateway.InboxAnswer, error) {
	var in gateway.DeviceAck
	if err := f.Decode(&in); err != nil {
		return nil, invalid(err)
	}
	if err := checkDeviceAck(&in); err != nil {
		return nil, err
	}
	return &gateway.InboxAnswer{Status: "ok"}, b.logs.AcknowledgeNow(ctx, who.Caller, ds.AccountLog(who.Account), in.Pos)
}

func (b inbox) postReport(ctx context.Context, who identity.Session, f gateway.Frame) (*gateway.InboxAnswer, error) {
	var in gateway.Report
	if err := f.Decode(&in); err != nil {
		return nil, invalid(err)
	}
	return &gateway.InboxAnswer{Status: "ok"}, b.reports.take(ctx, who, &in)
}

// The bounds of one answer to GET /v1/device-events.
const (
	deviceEventsMax      = 256
	deviceEventsBytesMax = 4 << 20 // and one more, which has up to 7 MiB
	deviceEventsTimeout  = 10 * time.Second
)

// deviceEvents returns the events of the device's log after its cursor, up to the head.
func (b inbox) deviceEvents(ctx context.Context, who identity.Session, _ url.Values) (any, error) {
	if !who.Has(gateway.FeatureDevice) {
		return nil, errNoDevice
	}
	ctx, cancel := context.WithTimeout(ctx, deviceEventsTimeout)
	defer cancel()
	follower := b.logs.NewFollower(who.Caller)
	defer follower.Close()
	follower.BodyMax = bodyBytesMax(who)
	if _, err := follower.Follow(ctx, logs.Start{}); err != nil { // the account log, from the cursor
		return nil, err
	}
	out := &gateway.DeviceEvents{Events: []json.RawMessage{}}
	for size := 0; ; {
		page, err := follower.Next(ctx)
		if err != nil {
			return nil, endOfFollow(err)
		}
		for i := range page.Records {
			frameType, body := deviceEvent(&page.Records[i], &page.Events[i])
			if frameType == "" {
				continue
			}
			if len(out.Events) == deviceEventsMax || size > deviceEventsBytesMax {
				out.More = true
				return out, nil
			}
			frame := fitted(frameType, body, who)
			out.Events, size = append(out.Events, frame), size+len(frame)
		}
		if page.CaughtUp {
			return out, nil
		}
	}
}

// errNoDevice refuses device events to sessions without the feature.
var errNoDevice = ds.Refuse(ds.InvalidRequest, "the session has not the feature device")

// endOfFollow returns the end of a follower as a fault that may pass, and other errors as they
// are.
func endOfFollow(err error) error {
	if errors.Is(err, logs.ErrClosed) || errors.Is(err, context.DeadlineExceeded) {
		return ds.Unavailable(err)
	}
	return err
}
