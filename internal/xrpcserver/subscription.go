package xrpcserver

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net/http"
	"strings"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
)

// registerSubscriptions makes the methods of subscriptions callable.
func (s *Server) registerSubscriptions() {
	procedure(s, xrpc.GetSubscriptionTicket, s.getSubscriptionTicket)
	for _, nsid := range []string{xrpc.SubscribeEvents, xrpc.SubscribeConvoEvents} {
		s.methods[nsid] = "GET"
		s.mux.HandleFunc("GET /xrpc/"+nsid, func(w http.ResponseWriter, r *http.Request) {
			if err := s.subscribe(w, r, nsid); err != nil {
				s.answer(w, r, nsid, nil, err)
			}
		})
	}
}

// getSubscriptionTicket makes a ticket that opens one subscription: clients cannot send a
// token for us with their WebSocket.
func (s *Server) getSubscriptionTicket(ctx context.Context, who ds.Caller, in *xrpc.GetSubscriptionTicketInput) (*xrpc.GetSubscriptionTicketOutput, error) {
	ids := make([]ds.ConversationID, len(in.ConvoIDs))
	for i, id := range in.ConvoIDs {
		ids[i] = ds.ConversationID(id)
	}
	t, err := s.core.IssueTicket(ctx, who, ids)
	if err != nil {
		return nil, err
	}
	out := &xrpc.GetSubscriptionTicketOutput{Ticket: t.Text, ExpiresAt: xrpc.TimeMS(t.ExpiresMS)}
	if rest, ok := strings.CutPrefix(s.url(), "http"); ok { // https becomes wss
		out.Endpoint = "ws" + strings.TrimSuffix(rest, "/") + "/xrpc/" + xrpc.SubscribeEvents
	}
	return out, nil
}

// socketsMax is how many subscriptions of one account may be open here (spec xrpc, A.12).
const socketsMax = 5

// jsonProtocol is the WebSocket subprotocol whose frames are texts of one JSON object
// each, with $type, seq and cursor in it, and {"error", "message"} before the end.
// Without it they are binary, of DAG-CBOR.
const jsonProtocol = "waxwing.events.json"

var (
	errNoTicket     = &Error{http.StatusUnauthorized, "InvalidTicket", "the ticket is none, or used up, or has expired"}
	errSockets      = &Error{http.StatusTooManyRequests, "TooManyConnections", "at most 5 subscriptions at a time"}
	errNoUpgrade    = &Error{http.StatusUpgradeRequired, xrpc.ErrorInvalidRequest, "events come by WebSocket, or as text/event-stream"}
	errShuttingDown = ds.Unavailable(errors.New("the server is shutting down"))
)

// subscribe opens a subscription. What it returns is yet to be answered.
func (s *Server) subscribe(w http.ResponseWriter, r *http.Request, nsid string) error {
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
	pass, err := s.admitted(r, nsid, &in, isSocket)
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

// admitted is whom a subscription is for. WebSockets come with a ticket, and what they
// bring as Authorization is meant for somebody else; what reads text/event-stream may
// come with a token of its own.
func (s *Server) admitted(r *http.Request, nsid string, in *xrpc.SubscribeEventsParams, isSocket bool) (core.Pass, error) {
	if in.Ticket == "" && !isSocket && r.Header.Get("Authorization") != "" {
		who, err := s.authenticate(r, nsid)
		if err != nil {
			return core.Pass{}, err
		}
		pass := core.Pass{Who: who}
		if in.ConvoID != "" {
			pass.Conversations = []ds.ConversationID{ds.ConversationID(in.ConvoID)}
		}
		pass.Generation, err = s.core.RememberedGeneration(r.Context(), who.Account)
		return pass, err
	}
	if address := s.proxies.AddressOf(r); address != "" {
		if err := s.limits.Take(limits.AddressCalls, address); err != nil {
			return core.Pass{}, err
		}
	}
	pass, err := s.core.RedeemTicket(r.Context(), in.Ticket)
	if ds.CodeOf(err) == ds.Unauthorized {
		return pass, errNoTicket
	}
	return pass, err
}

// admit adds an open stream, unless the server is shutting down.
func (s *Server) admit(c *stream) bool {
	if !s.streams.Admit(c) {
		return false
	}
	s.metrics.subscriptions.Inc()
	return true
}

// ended counts a stream that has begun to end and frees its place; the goodbye may still be
// in progress.
func (s *Server) ended(c *stream) {
	c.end(causeFault) // unless it was something else
	s.metrics.closes.WithLabelValues(*c.cause.Load()).Inc()
	s.metrics.subscriptions.Dec()
	s.streams.Leave(c.who.Account)
}

// newULID is an identifier for what has none: 48 bits of time in ms, 80 random ones.
func newULID(ms int64) string {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[:], uint64(ms)<<16)
	_, _ = rand.Read(raw[6:]) // never fails (crypto/rand)
	high, low := binary.BigEndian.Uint64(raw[:]), binary.BigEndian.Uint64(raw[8:])
	return string(appendBase32(nil, high, low))
}
