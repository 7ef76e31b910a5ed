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

// gatewayLink is a connection by the gateway: it translates between the frames of a transport
// and the values of the session.
type gatewayLink struct {
	calls  *gatewayCalls
	door   *gatewayDoor
	wire   transport
	out    chan event
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	began  time.Time
	slots  chan struct{} // of commits that are posted

	mu         sync.Mutex
	err        error                  // why the link ended; guarded by mu
	pending    map[string]sentRequest // by frame id; guarded by mu
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

// newGatewayLink makes a link over a transport that has begun.
func newGatewayLink(ctx context.Context, door *gatewayDoor, wire transport, calls *gatewayCalls) *gatewayLink {
	l := &gatewayLink{calls: calls, door: door, wire: wire, began: time.Now(),
		out: make(chan event, eventsAhead), slots: make(chan struct{}, postersMax), pending: map[string]sentRequest{}}
	l.ctx, l.cancel = context.WithCancel(ctx)
	l.tasks.Go(l.translate)
	if wire.kind() == EventStream {
		l.tasks.Go(func() { door.probe(l.ctx, func() { l.fail(errSocketAgain) }) })
	}
	return l
}

func (l *gatewayLink) kind() Transport { return l.wire.kind() }

func (l *gatewayLink) incoming() <-chan event { return l.out }

func (l *gatewayLink) close() {
	l.cancel()
	l.wire.close()
	l.tasks.Wait()
	if l.kind() == WebSocket && time.Since(l.began) > steadyAfter {
		l.door.route.probes = 0
	}
}

func (l *gatewayLink) fail(err error) {
	l.mu.Lock()
	if l.err == nil {
		l.err = err
	}
	l.mu.Unlock()
	l.cancel()
}

func (l *gatewayLink) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// check reports a server that is silent or does not answer. While a record is fetched frames
// are not read, so only the fetch can detect a failure.
func (l *gatewayLink) check(pingInterval time.Duration) error {
	sinceHeld := time.Since(l.heldBack())
	if l.wire.isSilent(pingInterval) && sinceHeld > pingInterval {
		return errors.New("the server has gone silent")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.pending {
		if min(time.Since(r.at), sinceHeld) > answerTimeout {
			return fmt.Errorf("the server does not answer a %s", r.frameType)
		}
	}
	l.wire.send(gateway.TypePing, "", nil)
	return nil
}

func (l *gatewayLink) follow(id string, from int64) {
	l.wire.send(gateway.TypeSubscribe, subscribePrefix+id, gateway.Subscribe{ConvID: id, FromSeq: &from})
}

// look does nothing: the log of the account has the invitations.
func (l *gatewayLink) look(string) {}

// confirm does nothing: acknowledgeAccount does that.
func (l *gatewayLink) confirm(*welcome) {}

func (l *gatewayLink) send(number int, m sendRequest) {
	l.ask(number, gateway.TypeSend, sendBody(m))
}

// commit sends a commit, by an HTTP call if it is too long for a frame.
func (l *gatewayLink) commit(number int, m commitRequest) {
	body := commitBody(m)
	frame, err := gateway.EncodeFrame(gateway.TypeCommit, nil, body)
	switch {
	case err != nil:
		l.fail(err)
	case len(frame) < gateway.FrameBytesMax-256:
		l.ask(number, gateway.TypeCommit, body)
	default:
		l.tasks.Go(func() { l.postCommit(number, m) })
	}
}

// postCommit makes the call and delivers its answer. Without one the outcome is
// unknown: the session asks again, with the same id.
func (l *gatewayLink) postCommit(number int, m commitRequest) {
	select {
	case l.slots <- struct{}{}:
		defer func() { <-l.slots }()
	case <-l.ctx.Done():
		return
	}
	seq, err := l.calls.commitNow(l.ctx, m)
	refusal := asRefusal(err)
	switch {
	case err == nil:
		l.deliver(appended{number, seq})
	case refusal == nil:
		l.deliver(refused{number, &Refusal{Code: codeUnavailable, Message: err.Error(), Index: -1}})
	case refusal.Code == codeUnauthorized:
		l.fail(refusal)
	default:
		l.deliver(refused{number, refusal})
	}
}

// ask sends a frame that expects an answer.
func (l *gatewayLink) ask(number int, frameType string, body any) {
	id := strconv.Itoa(number)
	l.mu.Lock()
	l.pending[id] = sentRequest{number, frameType, time.Now()}
	l.mu.Unlock()
	l.wire.send(frameType, id, body)
}

// answered returns the number of the request that a frame answers.
func (l *gatewayLink) answered(id string) (number int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.pending[id]
	delete(l.pending, id)
	return r.number, ok
}

func (l *gatewayLink) acknowledge(id string, seq int64) {
	l.wire.send(gateway.TypeAck, "", gateway.Ack{ConvID: id, Seq: seq})
}

func (l *gatewayLink) acknowledgeAccount(pos int64) {
	l.wire.send(gateway.TypeDeviceAck, "", gateway.DeviceAck{Pos: pos})
}

func (l *gatewayLink) report(r report) {
	body := gateway.Report{ConvID: r.conversation}
	id := ""
	switch r.what {
	case reportGap:
		body.Kind = gateway.ReportGap
	case reportUndecryptable:
		body.Kind = gateway.ReportDecryptFailure
	case reportReload:
		body.Kind = gateway.ReportStateReload
	case reportAuthenticator:
		body.Kind, body.Epoch = gateway.ReportEpochAuthenticator, int64(r.epoch)
		body.EpochAuthenticator = base64.StdEncoding.EncodeToString(r.value)
		id = fmt.Sprintf("%s%d:%s", reportPrefix, r.epoch, r.conversation)
	}
	l.wire.send(gateway.TypeReport, id, body)
}

// deliver passes an event to the session; it returns false if the link ends first.
func (l *gatewayLink) deliver(e event) bool {
	select {
	case l.out <- e:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// translate passes on the frames of the transport until it ends.
func (l *gatewayLink) translate() {
	defer close(l.out)
	for {
		select {
		case <-l.ctx.Done():
			l.fail(l.ctx.Err())
			return
		case frame, ok := <-l.wire.incoming():
			if !ok {
				l.fail(l.wire.failure())
				return
			}
			e, err := l.eventOf(frame)
			if err != nil {
				l.fail(fmt.Errorf("%s: %w", frame.Type, err))
				return
			}
			if e != nil && !l.deliver(e) {
				l.fail(l.ctx.Err())
				return
			}
		}
	}
}

// eventOf converts a frame to an event, nil for types unknown to this version.
func (l *gatewayLink) eventOf(frame gateway.Frame) (event, error) {
	switch frame.Type {
	case gateway.TypeEvent:
		var e gateway.Event
		if err := frame.Decode(&e); err != nil {
			return nil, err
		}
		return l.messageOf(&e)
	case gateway.TypeWelcome:
		var w gateway.Welcome
		if err := frame.Decode(&w); err != nil {
			return nil, err
		}
		return l.welcomeOf(&w)
	case gateway.TypeCaughtUp:
		var m gateway.CaughtUp
		err := frame.Decode(&m)
		return caughtUp{m.ConvID, m.Seq}, err
	case gateway.TypeAcked:
		var m gateway.Acked
		err := frame.Decode(&m)
		if number, ok := l.answered(idOf(frame)); ok {
			return appended{number, m.Seq}, err
		}
		return nil, err
	case gateway.TypeError:
		var e gateway.Error
		if err := frame.Decode(&e); err != nil {
			return nil, err
		}
		return l.refusedBy(idOf(frame), &e)
	case gateway.TypeMembers:
		var m gateway.Members
		err := frame.Decode(&m)
		return membership{accountPlace{m.Pos, true}, m.ConvID, m.Add, m.Remove}, err
	case gateway.TypeRoster:
		var m gateway.Roster
		err := frame.Decode(&m)
		return accountsChanged{m.ConvID, m.Add, m.Remove}, err
	case gateway.TypeKeyPackagesLow:
		var m gateway.KeyPackagesLow
		err := frame.Decode(&m)
		return packagesLow{accountPlace{m.Pos, true}}, err
	case gateway.TypeDrain:
		var m gateway.Drain
		err := frame.Decode(&m)
		return draining{time.Duration(min(max(m.ReconnectAfterMS, 0), 60_000)) * time.Millisecond}, err
	}
	return nil, nil // a newer version's
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

// refusedBy converts an error frame to an event. One that refuses the session ends it.
func (l *gatewayLink) refusedBy(id string, e *gateway.Error) (event, error) {
	refusal := refusalOf(e)
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
	case refusal.Code == codeForbidden && e.ConvID != "":
		return followEnded{e.ConvID, refusal}, nil
	}
	l.door.c.log.Debug("the server complains", "err", refusal)
	return nil, nil
}
