package client

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"waxwing.im/waxwing/api/gateway"
)

// gatewayLink is a connection by the gateway: it converts between the frames of a transport and
// the values of the session.
type gatewayLink struct {
	link
	gateway *gatewayCalls
	door    *gatewayDoor
	wire    transport
	began   time.Time

	handling sync.Mutex // held while a frame is converted and delivered: one at a time

	mu         sync.Mutex
	pending    map[string]sentRequest // frames that expect an answer, by id; guarded by mu
	isFetching bool                   // an omitted part of a frame is being fetched; guarded by mu
	fetchEnded time.Time              // guarded by mu
}

// sentRequest is a frame that expects an answer.
type sentRequest struct {
	number    int
	frameType string
	at        time.Time
}

// The frame ids of requests that are answered only if refused. The conversation follows, with
// the epoch before it in those of reports.
const (
	subscribePrefix = "subscribe:"
	reportPrefix    = "report:"
)

// postersMax bounds concurrent calls in place of frames, beside one with acknowledgements.
const postersMax = 4

// transport carries the frames of one gateway session. All transports behave the same: frames
// of a conversation come in order, each request is answered, and requests without an answer
// when the link ends are repeated on the next one. The methods are called by one goroutine at a
// time, and do not wait, except for begin.
type transport interface {
	kind() Transport
	// begin passes the server's frames to the link from then on, which ends when the transport
	// does. The session's token is on disk by now.
	begin(l *gatewayLink) error
	// subscribe requests the events of a conversation; a refusal is a followEnded.
	subscribe(id string, from int64)
	// request sends the body of a frame; appended or refused is the answer.
	request(number int, frameType string, body any)
	// acknowledge reports the position up to which a log is on disk.
	acknowledge(log string, pos int64)
	// report sends a report; a refusal is a frame with that id.
	report(id string, body gateway.Report)
	ping()
	// isSilent reports that the server has sent nothing for so long that it must be gone.
	isSilent(pingInterval time.Duration) bool
	// close unblocks the tasks of the transport when the link has ended.
	close()
}

// newGatewayLink begins to carry frames over a transport.
func newGatewayLink(ctx context.Context, door *gatewayDoor, wire transport, calls *gatewayCalls) (*gatewayLink, error) {
	l := &gatewayLink{link: newLink(ctx), gateway: calls, door: door, wire: wire, began: time.Now(), pending: map[string]sentRequest{}}
	if err := wire.begin(l); err != nil {
		l.fail(err)
		return nil, err
	}
	door.settle(wire)
	if wire.kind() == EventStream {
		l.tasks.Go(func() { door.probe(l.ctx, func() { l.fail(errSocketAgain) }) })
	}
	l.start(postersMax, wire.close)
	return l, nil
}

func (l *gatewayLink) kind() Transport { return l.wire.kind() }

func (l *gatewayLink) close() {
	l.link.close()
	if l.kind() == WebSocket && time.Since(l.began) > steadyAfter {
		l.door.route.probes = 0
	}
}

// check reports a server that is silent or does not answer. While a record is fetched frames
// are not read, so only the fetch can detect a failure.
func (l *gatewayLink) check(pingInterval time.Duration) error {
	sinceHeld := time.Since(l.heldBack())
	if l.wire.isSilent(pingInterval) && sinceHeld > pingInterval {
		return errSilent
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.pending {
		if min(time.Since(r.at), sinceHeld) > answerTimeout {
			return fmt.Errorf("no answer from the server to %s", r.frameType)
		}
	}
	l.wire.ping()
	return nil
}

var errSilent = errors.New("no sign of life from the server")

func (l *gatewayLink) follow(id string, from int64) { l.wire.subscribe(id, from) }

// pollWelcome does nothing: the log of the account has the invitations.
func (l *gatewayLink) pollWelcome(string) {}

// confirm does nothing: acknowledge does that.
func (l *gatewayLink) confirm(*welcome) {}

func (l *gatewayLink) send(number int, m sendRequest) {
	l.wire.request(number, gateway.TypeSend, sendBody(m))
}

func (l *gatewayLink) commit(number int, m commitRequest) {
	l.wire.request(number, gateway.TypeCommit, commitBody(m))
}

// expect records a request with its number as the frame id.
func (l *gatewayLink) expect(number int, frameType string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending[strconv.Itoa(number)] = sentRequest{number, frameType, time.Now()}
}

// answered returns the number of the request that a frame answers.
func (l *gatewayLink) answered(id string) (number int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.pending[id]
	delete(l.pending, id)
	return r.number, ok
}

func (l *gatewayLink) acknowledge(log string, pos int64) { l.wire.acknowledge(log, pos) }

// ackFrame returns the frame that acknowledges a log up to a position.
func ackFrame(log string, pos int64) (frameType string, body any) {
	if log == accountLog {
		return gateway.TypeDeviceAck, gateway.DeviceAck{Pos: pos}
	}
	return gateway.TypeAck, gateway.Ack{ConvID: log, Seq: pos}
}

var reportKinds = [...]string{reportGap: gateway.ReportGap, reportUndecryptable: gateway.ReportDecryptFailure,
	reportReload: gateway.ReportStateReload, reportAuthenticator: gateway.ReportEpochAuthenticator}

func (l *gatewayLink) report(r report) {
	body := gateway.Report{ConvID: r.conversation, Kind: reportKinds[r.what]}
	id := ""
	if r.what == reportAuthenticator {
		body.Epoch = int64(r.epoch)
		body.EpochAuthenticator = base64.StdEncoding.EncodeToString(r.value)
		id = fmt.Sprintf("%s%d:%s", reportPrefix, r.epoch, r.conversation)
	}
	l.wire.report(id, body)
}

// handle passes on a frame of the transport; it returns false if ctx or the link ends first.
func (l *gatewayLink) handle(ctx context.Context, frame gateway.Frame) bool {
	l.handling.Lock()
	defer l.handling.Unlock()
	e, err := l.eventOf(frame)
	if err != nil {
		l.fail(err)
		return false
	}
	return e == nil || l.deliverWithin(ctx, e)
}

// eventOf converts a frame to an event, nil for types unknown to this version.
func (l *gatewayLink) eventOf(frame gateway.Frame) (event, error) {
	switch frame.Type {
	case gateway.TypeEvent:
		m, err := decode[gateway.Event](frame)
		if err != nil {
			return nil, err
		}
		return l.messageOf(&m)
	case gateway.TypeWelcome:
		m, err := decode[gateway.Welcome](frame)
		if err != nil {
			return nil, err
		}
		return l.welcomeOf(&m)
	case gateway.TypeCaughtUp:
		m, err := decode[gateway.CaughtUp](frame)
		return caughtUp{m.ConvID, m.Seq}, err
	case gateway.TypeAcked:
		m, err := decode[gateway.Acked](frame)
		if number, ok := l.answered(idOf(frame)); ok {
			return appended{number, m.Seq}, err
		}
		return nil, err
	case gateway.TypeError:
		m, err := decode[gateway.Error](frame)
		if err != nil {
			return nil, err
		}
		return l.refusedBy(idOf(frame), m.ConvID, refusalOf(&m))
	case gateway.TypeMembers:
		m, err := decode[gateway.Members](frame)
		return membership{accountPlace{m.Pos, true}, m.ConvID, m.Add, m.Remove}, err
	case gateway.TypeRoster:
		m, err := decode[gateway.Roster](frame)
		return accountsChanged{m.ConvID, m.Add, m.Remove}, err
	case gateway.TypeKeyPackagesLow:
		m, err := decode[gateway.KeyPackagesLow](frame)
		return packagesLow{accountPlace{m.Pos, true}}, err
	case gateway.TypeDrain:
		m, err := decode[gateway.Drain](frame)
		return draining{time.Duration(min(max(m.ReconnectAfterMS, 0), 60_000)) * time.Millisecond}, err
	}
	return nil, nil // a newer version's
}

func decode[T any](frame gateway.Frame) (body T, err error) {
	if err := frame.Decode(&body); err != nil {
		return body, fmt.Errorf("%s: %w", frame.Type, err)
	}
	return body, nil
}

// idOf returns the id that a frame answers, "" if there is none.
func idOf(frame gateway.Frame) string {
	var body struct {
		ID string `json:"id"`
	}
	if frame.ID == nil || gateway.Unmarshal([]byte(`{"id":`+string(frame.ID)+`}`), &body) != nil {
		return ""
	}
	return body.ID
}

// refusedBy converts a refusal of the request with that frame id, or concerning a conversation,
// to an event. One that refuses the session is an error.
func (l *gatewayLink) refusedBy(id, conversation string, refusal *Refusal) (event, error) {
	if number, ok := l.answered(id); ok {
		return refused{number, refusal}, nil
	}
	if conversation, ok := strings.CutPrefix(id, subscribePrefix); ok {
		return followEnded{conversation, refusal}, nil
	}
	if what, ok := strings.CutPrefix(id, reportPrefix); ok {
		epoch, conversation, _ := strings.Cut(what, ":")
		return reportRefused{conversation, epoch, refusal}, nil
	}
	switch {
	case refusal.Code == codeUnauthorized:
		return nil, refusal
	case refusal.Code == codeForbidden && conversation != "":
		return followEnded{conversation, refusal}, nil
	}
	l.door.c.log.Debug("refused by the server", "err", refusal)
	return nil, nil
}
