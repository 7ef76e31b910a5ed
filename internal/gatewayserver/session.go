package gatewayserver

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/directory"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
)

// sessions starts, resumes, lists and ends sessions.
type sessions struct {
	logs      *logs.Engine
	directory *directory.Service
	identity  *identity.Authenticator
	limits    *limits.Limiter
	metrics   *metrics
}

func (s *Server) startSession(r *http.Request, m *ds.Meter, in *gateway.Start) (any, error) {
	ready, err := s.sessions.start(r.Context(), m, in, r.UserAgent(), s.proxies.AddressOf(r))
	if err != nil {
		return nil, err
	}
	return s.sessions.ready(r.Context(), ready)
}

// resumeSession resumes a session, and notes that its answer was written.
func (s *Server) resumeSession(w http.ResponseWriter, r *http.Request) {
	var in gateway.Resume
	var ready identity.Ready
	var out any
	m := new(ds.Meter)
	err := readBody(w, r, gateway.BodyBytesMax, &in)
	if err == nil {
		ready, err = s.sessions.resume(r.Context(), m, &in, s.proxies.AddressOf(r), transportHTTP)
	}
	if err == nil {
		out, err = s.sessions.ready(r.Context(), ready)
	}
	s.answer(w, r, m, out, err)
	if err != nil || http.NewResponseController(w).Flush() != nil {
		return
	}
	// The client has its answer and may have disconnected. If this cannot be noted, the token
	// stays valid until its successor is presented.
	ctx := context.WithoutCancel(r.Context())
	s.logFault(ctx, "answered", s.identity.Answered(ctx, ready))
}

func (s sessions) resume(ctx context.Context, m *ds.Meter, in *gateway.Resume, address, transport string) (identity.Ready, error) {
	err := s.takeAddress(limits.AddressResumes, address)
	if ds.CodeOf(err) == ds.RateLimited {
		err = s.identity.PassResume(ctx, in.ResumeToken, err)
	}
	var ready identity.Ready
	if err == nil {
		ready, err = s.identity.ResumeSession(ctx, in.ResumeToken, func(account ds.AccountID) error {
			return s.limits.TakeOwn(m, limits.Resumes, string(account))
		})
	}
	s.metrics.resume(transport, err)
	return ready, err
}

// takeAddress counts a call of an address; "" is not counted.
func (s sessions) takeAddress(limit, address string) error {
	if address == "" {
		return nil
	}
	return s.limits.Take(limit, address)
}

// ready returns the answer to a start or a resume, with the device's cursors.
func (s sessions) ready(ctx context.Context, ready identity.Ready) (*gateway.Ready, error) {
	cursors, err := s.logs.Cursors(ctx, ready.Caller)
	if err != nil {
		return nil, err
	}
	out := &gateway.Ready{
		UserID:       string(ready.Account),
		SessionToken: ready.SessionToken,
		ResumeToken:  ready.ResumeToken,
		ExpiresAt:    ready.ExpiresMS,
		Cursors:      []gateway.Cursor{},
		Features:     ready.Features,
	}
	devicePos := int64(1)
	for _, cursor := range cursors {
		if id := cursor.Log.Conversation(); id != "" {
			out.Cursors = append(out.Cursors, gateway.Cursor{ConvID: string(id), NextSeq: cursor.Next})
		} else {
			devicePos = cursor.Next
		}
	}
	if ready.Has(gateway.FeatureDevice) {
		out.DeviceNextPos = &devicePos
	}
	return out, nil
}

func (s sessions) listSessions(ctx context.Context, who identity.Session, _ url.Values) (any, error) {
	sessions, err := s.identity.Sessions(ctx, who)
	if err != nil {
		return nil, err
	}
	out := &gateway.SessionList{Sessions: make([]gateway.SessionRow, len(sessions)), CurrentSessionID: who.ID}
	for i, row := range sessions {
		out.Sessions[i] = gateway.SessionRow{
			SessionID:    row.ID,
			DeviceID:     string(row.Device),
			ExpiresAtMS:  row.ExpiresMS,
			IsCurrent:    row.ID == who.ID,
			CreatedAtMS:  row.CreatedMS,
			LastSeenAtMS: row.LastSeenMS,
			ClientLabel:  row.ClientLabel,
		}
	}
	return out, nil
}

func (s sessions) logout(ctx context.Context, who identity.Session, _ []byte) (any, error) {
	return statusOK, s.identity.Logout(ctx, who)
}

// logoutAll treats a body that is not JSON as one without fields.
func (s sessions) logoutAll(ctx context.Context, who identity.Session, body []byte) (any, error) {
	var in gateway.LogoutAll
	switch err := gateway.Unmarshal(body, &in); {
	case err == nil, errors.Is(err, gateway.ErrMalformed), errors.Is(err, gateway.ErrNotUTF8):
	default:
		return nil, invalid(err)
	}
	ended, err := s.identity.LogoutAll(ctx, who, in.IncludeSelf)
	return &gateway.LoggedOutAll{Status: "ok", Invalidated: int64(ended), KeptCurrent: !in.IncludeSelf}, err
}

func (s sessions) revoke(ctx context.Context, who identity.Session, in *gateway.Revoke) (any, error) {
	selection := identity.Selection{IncludeSelf: in.IncludeSelf}
	switch {
	case (in.SessionID == nil) == (in.DeviceID == nil):
		return nil, ds.Refuse(ds.InvalidRequest, "exactly one of session_id and device_id is required")
	case in.SessionID != nil && *in.SessionID == "":
		return nil, ds.Refuse(ds.InvalidRequest, "session_id: empty")
	case in.DeviceID != nil && *in.DeviceID == "":
		return nil, ds.Refuse(ds.InvalidRequest, "device_id: empty")
	case in.SessionID != nil:
		selection.SessionID = *in.SessionID
	default:
		selection.DeviceID = ds.DeviceID(*in.DeviceID)
	}
	if in.KeyPackages && in.DeviceID == nil {
		return nil, ds.Refuse(ds.InvalidRequest, "key_packages: only with device_id")
	}
	ids, err := s.identity.Revoke(ctx, who, selection)
	if err == nil && in.KeyPackages {
		// Last: a lost device that publishes without pause uses up its limit of calls, and
		// could otherwise delay its end.
		_, err = s.directory.PublishKeyPackages(ctx, ds.Caller{Account: who.Account, Device: selection.DeviceID}, directory.Publication{Revoke: true})
	}
	return &gateway.Revoked{Status: "ok", Revoked: int64(len(ids)), RevokedSessionIDs: ids}, err
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok"))
}

// resolveGateway resolves this service only; there are no peers yet.
func (s *Server) resolveGateway(w http.ResponseWriter, r *http.Request) {
	out, err := func() (any, error) {
		switch id := r.URL.Query().Get("gateway_id"); id {
		case "":
			return nil, ds.Refuse(ds.InvalidRequest, "gateway_id: missing")
		case s.did():
			return &gateway.Gateway{GatewayID: id, GatewayURL: s.url()}, nil
		}
		return nil, ds.Refuse(ds.NotFound, "unknown gateway")
	}()
	s.answer(w, r, nil, out, err)
}
