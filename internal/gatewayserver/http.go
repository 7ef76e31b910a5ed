package gatewayserver

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/doors"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/logs"
)

// public registers an endpoint for callers without a session.
func public[In any](s *Server, pattern string, handle func(r *http.Request, m *ds.Meter, in *In) (any, error)) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		in := new(In)
		m := new(ds.Meter)
		err := readBody(w, r, gateway.BodyBytesMax, in)
		var out any
		if err == nil {
			out, err = handle(r, m, in)
		}
		s.answer(w, r, m, out, err)
	})
}

// command registers an endpoint with a body, for callers with a session.
func command[In any](s *Server, pattern string, handle func(ctx context.Context, who identity.Session, in *In) (any, error)) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		who, err := s.authenticate(r)
		in := new(In)
		if err == nil {
			err = readBody(w, r, gateway.BodyBytesMax, in)
		}
		var out any
		if err == nil {
			out, err = handle(r.Context(), who, in)
		}
		s.answerHeld(w, r, who.Caller, nil, out, err)
	})
}

// loose registers an endpoint with an optional body, for callers with a session.
func loose(s *Server, pattern string, handle func(ctx context.Context, who identity.Session, body []byte) (any, error)) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		who, err := s.authenticate(r)
		var body []byte
		if err == nil {
			body, err = readBytes(w, r, gateway.BodyBytesMax)
		}
		var out any
		if err == nil {
			out, err = handle(r.Context(), who, body)
		}
		s.answer(w, r, who.Meter, out, err)
	})
}

// query registers an endpoint without a body, for callers with a session.
func query(s *Server, pattern string, handle func(ctx context.Context, who identity.Session, q url.Values) (any, error)) {
	bulky(s, pattern, 0, handle)
}

// bulky registers a query with an answer of up to that many bytes of memory: it waits for its
// turn before it reads.
func bulky(s *Server, pattern string, bytes int64, handle func(ctx context.Context, who identity.Session, q url.Values) (any, error)) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		who, err := s.authenticate(r)
		var turn *logs.Turn
		if err == nil && bytes > 0 {
			turn, err = s.logs.TakeTurn(r.Context(), who.Account, bytes, cutter(w))
			defer turn.Release()
		}
		var out any
		if err == nil {
			out, err = handle(r.Context(), who, r.URL.Query())
		}
		s.answerHeld(w, r, who.Caller, turn, out, err)
	})
}

// cutter returns a function that cuts off an answer which takes too long while others wait.
func cutter(w http.ResponseWriter) func() {
	control := http.NewResponseController(w)
	return func() { _ = control.SetWriteDeadline(time.Unix(1, 0)) } // fails without a connection, in tests
}

// authenticate finds the session of `Authorization: Bearer TOKEN`.
func (s *Server) authenticate(r *http.Request) (identity.Session, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		token = "" // invalid
	}
	who, err := s.identity.SessionFrom(r.Context(), strings.TrimSpace(token), s.proxies.AddressOf(r))
	if err == nil {
		doors.Own(r, who.Account)
		who.Meter = new(ds.Meter)
	}
	return who, err
}

var errMalformedBody = ds.Refuse(ds.InvalidRequest, "malformed json")

// readBytes reads a body of up to bytesMax. Content-Type is not looked at.
func readBytes(w http.ResponseWriter, r *http.Request, bytesMax int64) ([]byte, error) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bytesMax))
	switch {
	case err == nil:
		return data, nil
	case ds.CodeOf(err) != "" || errors.Is(err, doors.ErrFull):
		return nil, err
	}
	return nil, errMalformedBody // too long, or the client has disconnected
}

func readBody(w http.ResponseWriter, r *http.Request, bytesMax int64, in any) error {
	data, err := readBytes(w, r, bytesMax)
	if err != nil {
		return err
	}
	return decodeBody(data, in)
}

func decodeBody(data []byte, in any) error {
	err := gateway.Unmarshal(data, in)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, gateway.ErrMalformed), errors.Is(err, gateway.ErrNotUTF8):
		return errMalformedBody
	}
	return invalid(err)
}

// answer writes out, or the wire form of err, with what is left of the limits in m, which may be
// nil. No answer may be kept by a cache.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, m *ds.Meter, out any, err error) {
	s.answerHeld(w, r, ds.Caller{Meter: m}, nil, out, err)
}

// answerBytesFree is the largest size of an answer that needs no turn.
const answerBytesFree = 64 << 10

// answerHeld writes an answer for a caller, with the turn to hold it in memory; nil: it takes
// one if the answer needs it.
func (s *Server) answerHeld(w http.ResponseWriter, r *http.Request, who ds.Caller, turn *logs.Turn, out any, err error) {
	s.metrics.request(r.Pattern, err)
	s.writeUsage(w, who.Meter)
	status := http.StatusOK
	if err != nil {
		var body *gateway.Error
		status, body = answerTo(err)
		out = body
		if status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		if body.RetryAfterS != nil && *body.RetryAfterS > 0 {
			w.Header().Set("Retry-After", strconv.FormatInt(*body.RetryAfterS, 10))
		}
		s.logFault(r.Context(), r.Pattern, err)
	}
	data, err := gateway.Marshal(out)
	if err != nil {
		s.logger.Error("answer", "endpoint", r.Pattern, "err", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	if turn != nil {
		turn.Shrink(int64(len(data)))
	} else if len(data) > answerBytesFree {
		if turn, err = s.logs.TakeTurn(r.Context(), who.Account, int64(len(data)), cutter(w)); err != nil {
			s.answer(w, r, who.Meter, nil, err)
			return
		}
		defer turn.Release()
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	_, _ = w.Write(data) // an error means that the client has disconnected
}

// writeUsage adds the headers about the tightest of the limits in m, which may be nil.
func (s *Server) writeUsage(w http.ResponseWriter, m *ds.Meter) {
	if usage, ok := s.limits.Tightest(m); ok {
		doors.WriteUsage(w.Header(), usage)
	}
}

// logFault logs err if it is a fault. Faults that may pass, or that follow from a caller's
// disconnect, need no operator and are logged at Debug.
func (s *Server) logFault(ctx context.Context, request string, err error) {
	switch {
	case !isFault(err):
	case ctx.Err() != nil || ds.IsUnavailable(err):
		s.logger.Debug("request", "request", request, "err", err)
	default:
		s.logger.Error("request", "request", request, "err", err)
	}
}
