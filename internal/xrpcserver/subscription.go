package xrpcserver

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/directory"
	"waxwing.im/waxwing/internal/doors"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
)

// subscriptions holds the methods by which clients receive events, and the open streams.
type subscriptions struct {
	encoder
	server    *Server // authenticates requests, and answers those that open no stream
	core      *core.Service
	logs      *logs.Engine
	directory *directory.Service
	metrics   *metrics

	heartbeat, pongTimeout time.Duration
	silenceMax             int64        // ms; the watchdog looks late, so it is less than the heartbeat
	clock                  *doors.Clock // moved by the watchdog
	writeTimeout           atomic.Int64 // ms; tests change it

	ctx  context.Context // ends the calls of streams to core
	stop context.CancelFunc

	streams *doors.Registry[*stream]
}

// newSubscriptions makes the subscriptions of a server; watch starts their watchdog.
func newSubscriptions(s *Server, directory *directory.Service, heartbeat, pong time.Duration) *subscriptions {
	n := &subscriptions{
		encoder:     encoder{s.logger},
		server:      s,
		core:        s.core,
		logs:        s.logs,
		directory:   directory,
		metrics:     s.metrics,
		heartbeat:   cmp.Or(heartbeat, heartbeatDefault),
		pongTimeout: cmp.Or(pong, pongTimeout),
		clock:       doors.NewClock(),
		streams:     doors.NewRegistry[*stream](socketsMax, errSockets),
	}
	n.writeTimeout.Store(writeTimeout.Milliseconds())
	n.silenceMax = (n.heartbeat * 4 / 5).Milliseconds()
	n.ctx, n.stop = context.WithCancel(context.Background())
	return n
}

func (s *subscriptions) register(door *Server) {
	procedure(door, xrpc.GetSubscriptionTicket, s.getSubscriptionTicket)
	for _, nsid := range []string{xrpc.SubscribeEvents, xrpc.SubscribeConvoEvents} {
		door.methods[nsid] = "GET"
		door.mux.HandleFunc("GET /xrpc/"+nsid, func(w http.ResponseWriter, r *http.Request) {
			if err := s.subscribe(w, r, nsid); err != nil {
				door.answer(w, r, nsid, nil, err)
			}
		})
	}
}

// watch starts the watchdog, which close ends.
func (s *subscriptions) watch() {
	s.streams.Watch(s.clock, min(s.heartbeat, s.pongTimeout), nil)
}

// close ends every stream and waits for them; when ctx ends first, the rest is cut off.
func (s *subscriptions) close(ctx context.Context) error {
	s.streams.Close()
	s.stop()
	if !s.streams.Drain(ctx, func() {}) {
		return ctx.Err()
	}
	return nil
}

// getSubscriptionTicket makes a ticket that opens one subscription: clients cannot send a
// token for us with their WebSocket.
func (s *subscriptions) getSubscriptionTicket(ctx context.Context, who ds.Caller, in *xrpc.GetSubscriptionTicketInput) (*xrpc.GetSubscriptionTicketOutput, error) {
	ids := make([]ds.ConversationID, len(in.ConvoIDs))
	for i, id := range in.ConvoIDs {
		ids[i] = ds.ConversationID(id)
	}
	t, err := s.core.IssueTicket(ctx, who, ids)
	if err != nil {
		return nil, err
	}
	out := &xrpc.GetSubscriptionTicketOutput{Ticket: t.Text, ExpiresAt: xrpc.TimeMS(t.ExpiresMS)}
	if rest, ok := strings.CutPrefix(s.server.url(), "http"); ok { // https becomes wss
		out.Endpoint = "ws" + strings.TrimSuffix(rest, "/") + "/xrpc/" + xrpc.SubscribeEvents
	}
	return out, nil
}

// socketsMax bounds the open subscriptions of one account on this server.
const socketsMax = 5

// jsonProtocol is the WebSocket subprotocol for JSON: each frame is a text of one object with
// $type, seq and cursor, the last possibly {"error", "message"}. Without it frames are
// binary, of DAG-CBOR.
const jsonProtocol = "waxwing.events.json"

var (
	errNoTicket     = &Error{http.StatusUnauthorized, "InvalidTicket", "the ticket is none, or used up, or has expired"}
	errSockets      = &Error{http.StatusTooManyRequests, "TooManyConnections", "at most 5 subscriptions at a time"}
	errNoUpgrade    = &Error{http.StatusUpgradeRequired, xrpc.ErrorInvalidRequest, "events come by WebSocket, or as text/event-stream"}
	errShuttingDown = ds.Unavailable(errors.New("the server is shutting down"))
)

// subscribe opens a subscription. The caller answers the error that it returns.
func (s *subscriptions) subscribe(w http.ResponseWriter, r *http.Request, nsid string) error {
	var in xrpc.SubscribeEventsParams
	if err := xrpc.DecodeQuery(r.URL.RawQuery, &in); err != nil {
		return err
	}
	isSocket := strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
	if !isSocket && !strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		w.Header().Set("Upgrade", "websocket")
		return errNoUpgrade // before the ticket is used up
	}
	if s.ctx.Err() != nil {
		return errShuttingDown // so the ticket is still good elsewhere
	}
	pass, err := s.authorize(r, nsid, &in, isSocket)
	if err != nil {
		return err
	}
	if err := s.streams.Enter(pass.Who.Account); err != nil {
		return err
	}
	if last := r.Header.Get("Last-Event-ID"); last != "" && !isSocket {
		in.Cursor = last // of the two the one that moves
	}
	c, err := s.openStream(r.Context(), pass, in.Cursor)
	if err != nil {
		s.streams.Leave(pass.Who.Account)
		return err
	}
	s.metrics.call(nsid, nil)
	if isSocket {
		s.serveSocket(w, r, c)
	} else {
		s.serveEvents(w, r, c)
	}
	return nil
}

// authorize resolves the ticket or token of a subscription request. WebSockets come with a
// ticket, and their Authorization header is meant for another service; readers of
// text/event-stream may come with a token of their own.
func (s *subscriptions) authorize(r *http.Request, nsid string, in *xrpc.SubscribeEventsParams, isSocket bool) (core.Pass, error) {
	if in.Ticket == "" && !isSocket && r.Header.Get("Authorization") != "" {
		who, err := s.server.authenticate(r, nil, nsid)
		if err != nil {
			return core.Pass{}, err
		}
		pass := core.Pass{Who: who}
		if in.ConvoID != "" {
			pass.Conversations = []ds.ConversationID{ds.ConversationID(in.ConvoID)}
		}
		pass.Generation, err = s.directory.RememberedGeneration(r.Context(), who.Account)
		return pass, err
	}
	if address := s.server.proxies.AddressOf(r); address != "" {
		if err := s.server.limits.Take(limits.AddressCalls, address); err != nil {
			return core.Pass{}, err
		}
	}
	pass, err := s.core.RedeemTicket(r.Context(), in.Ticket)
	if ds.CodeOf(err) == ds.Unauthorized || err == nil && s.server.identity.IsExpelled(pass.Who.Account) {
		return pass, errNoTicket
	}
	return pass, err
}

// admit adds an open stream, unless the server is shutting down.
func (s *subscriptions) admit(c *stream) bool {
	if !s.streams.Admit(c) {
		return false
	}
	s.metrics.subscriptions.Inc()
	return true
}

// ended records the close of a stream and frees the account's place; its last frames may
// still be in progress.
func (s *subscriptions) ended(c *stream) {
	c.end(causeFault) // unless it was something else
	cause := *c.cause.Load()
	s.metrics.closes.WithLabelValues(cause).Inc()
	if cause == causeStalled {
		s.metrics.slow.Inc()
	}
	s.metrics.subscriptions.Dec()
	s.streams.Leave(c.who.Account)
}
