package xrpcserver

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/doors"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
)

// procedure registers an endpoint with a body, for callers with a token.
func procedure[In, Out any](s *Server, nsid string, handle func(ctx context.Context, who ds.Caller, in *In) (*Out, error)) {
	endpoint(s, "POST", nsid, func(w http.ResponseWriter, r *http.Request, in *In) error {
		body, err := readBody(w, r, xrpc.BodyMax(nsid))
		if err != nil {
			return err
		}
		return xrpc.Decode(body, in)
	}, handle)
}

// query registers an endpoint without a body, for callers with a token.
func query[In, Out any](s *Server, nsid string, handle func(ctx context.Context, who ds.Caller, in *In) (*Out, error)) {
	endpoint(s, "GET", nsid, decodeQuery[In], handle)
}

// bulky registers a query with a possibly long answer: its handler takes room before it reads.
func bulky[In, Out any](s *Server, nsid string, handle func(ctx context.Context, who ds.Caller, in *In, room *room) (*Out, error)) {
	roomy(s, "GET", nsid, decodeQuery[In], handle)
}

func decodeQuery[In any](_ http.ResponseWriter, r *http.Request, in *In) error {
	return xrpc.DecodeQuery(r.URL.RawQuery, in)
}

// endpoint registers a method under its name: the token is verified before the body is
// read, and the limits of the account are asked before it is decoded.
func endpoint[In, Out any](s *Server, verb, nsid string, decode func(http.ResponseWriter, *http.Request, *In) error,
	handle func(ctx context.Context, who ds.Caller, in *In) (*Out, error)) {
	roomy(s, verb, nsid, decode, func(ctx context.Context, who ds.Caller, in *In, _ *room) (*Out, error) { return handle(ctx, who, in) })
}

// room holds the turn of an answer: the right to keep it in memory until the client has it.
type room struct {
	server *Server
	who    ds.AccountID
	meter  *ds.Meter
	cut    func() // ends the answer where it takes long and others wait
	turn   *logs.Turn
}

// take waits until there is room for an answer of that many bytes.
func (m *room) take(ctx context.Context, bytes int) (err error) {
	if m.turn == nil {
		m.turn, err = m.server.logs.TakeTurn(ctx, m.who, int64(bytes), m.cut)
	}
	return err
}

// fit reduces the room to the size of the answer, or takes room for it.
func (m *room) fit(ctx context.Context, bytes int) error {
	if m.turn != nil {
		m.turn.Shrink(int64(bytes))
	} else if bytes > answerBytesFree {
		return m.take(ctx, bytes)
	}
	return nil
}

// answerBytesFree is the largest size of an answer that needs no room.
const answerBytesFree = 64 << 10

func roomy[In, Out any](s *Server, verb, nsid string, decode func(http.ResponseWriter, *http.Request, *In) error,
	handle func(ctx context.Context, who ds.Caller, in *In, room *room) (*Out, error)) {
	s.register(verb, nsid, func(w http.ResponseWriter, r *http.Request, room *room) (any, error) {
		who, err := s.authenticate(r, room.meter, nsid)
		if err != nil {
			return nil, err
		}
		room.who = who.Account
		in := new(In)
		if err := decode(w, r, in); err != nil {
			return nil, err
		}
		out, err := handle(r.Context(), who, in, room)
		if err != nil {
			return nil, err // a nil *Out in an any would not be nil
		}
		return out, nil
	})
}

// register registers a method. Its answer is the result of handle.
func (s *Server) register(verb, nsid string, handle func(w http.ResponseWriter, r *http.Request, room *room) (any, error)) {
	s.methods[nsid] = verb
	s.mux.HandleFunc(verb+" /xrpc/"+nsid, func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		room := &room{server: s, meter: new(ds.Meter), cut: func() { _ = control.SetWriteDeadline(time.Unix(1, 0)) }} // fails without a connection, in tests
		defer func() { room.turn.Release() }()
		out, err := handle(w, r, room)
		s.answerWithin(w, r, nsid, room, out, err)
	})
}

// authenticate proves who calls with the token of the request, which is then used up, and
// counts the call. It notes in m what else the call is counted under.
func (s *Server) authenticate(r *http.Request, m *ds.Meter, nsid string) (ds.Caller, error) {
	proof, err := s.identity.Prove(r.Context(), bearer(r), nsid, s.proxies.AddressOf(r))
	if err != nil {
		return ds.Caller{}, err
	}
	if err := s.takeCall(m, proof.Account, nsid); err != nil {
		return ds.Caller{}, err
	}
	doors.Own(r, proof.Account)
	who := proof.Caller("")
	who.Meter = m
	return who, nil
}

// bearer returns the token of `Authorization: Bearer TOKEN`, or "".
func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// readBody reads a body of up to bytesMax. Content-Type is not looked at.
func readBody(w http.ResponseWriter, r *http.Request, bytesMax int64) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bytesMax))
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return body, nil
	case errors.As(err, &tooLarge):
		return nil, &Error{http.StatusRequestEntityTooLarge, xrpc.ErrorPayloadTooLarge, "the body is too large"}
	case ds.CodeOf(err) != "" || errors.Is(err, doors.ErrFull):
		return nil, err
	}
	return nil, &Error{http.StatusBadRequest, xrpc.ErrorInvalidRequest, "the body ended early"}
}

// answer writes out, or the wire form of err. No answer may be kept by a cache.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, method string, out any, err error) {
	s.answerWithin(w, r, method, nil, out, err)
}

// answerWithin writes an answer like answer does, within room; nil for a short one.
func (s *Server) answerWithin(w http.ResponseWriter, r *http.Request, method string, room *room, out any, err error) {
	if room != nil {
		s.writeUsage(w.Header(), room.meter)
	}
	status := http.StatusOK
	if err != nil {
		answer := answerTo(method, err)
		status, out = answer.status, answer.body()
		if status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		if answer.retryAfterS > 0 {
			w.Header().Set("Retry-After", strconv.FormatInt(answer.retryAfterS, 10))
		}
		s.logFault(r.Context(), method, err)
	}
	s.metrics.call(method, err)
	data, err := json.Marshal(out)
	if err != nil {
		s.logger.Error("answer", "method", method, "err", err)
		http.Error(w, `{"error":"InternalServerError","message":"internal error"}`, http.StatusInternalServerError)
		return
	}
	if room != nil {
		if err := room.fit(r.Context(), len(data)); err != nil {
			s.answer(w, r, method, nil, err)
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	_, _ = w.Write(data) // an error means that the client has disconnected
}

// logFault logs err if it is a fault. Faults that may pass, or that follow from a caller's
// disconnect, need no operator and are logged at Debug.
func (s *Server) logFault(ctx context.Context, method string, err error) {
	switch {
	case !isFault(err):
	case ctx.Err() != nil || ds.IsUnavailable(err):
		s.logger.Debug("request", "method", method, "err", err)
	default:
		s.logger.Error("request", "method", method, "err", err)
	}
}
