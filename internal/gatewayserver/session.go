package gatewayserver

import (
	"context"
	"net/http"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/identity"
)

func (s *Server) startSession(r *http.Request, in *gateway.Start) (any, error) {
	ready, err := s.start(r.Context(), in, r.UserAgent())
	if err != nil {
		return nil, err
	}
	return s.ready(r.Context(), ready)
}

func (s *Server) resumeSession(r *http.Request, in *gateway.Resume) (any, error) {
	ready, err := s.resume(r.Context(), in)
	if err != nil {
		return nil, err
	}
	return s.ready(r.Context(), ready)
}

func (s *Server) start(ctx context.Context, in *gateway.Start, userAgent string) (identity.Ready, error) {
	start := identity.Start{
		AuthToken: in.AuthToken,
		DeviceID:  ds.DeviceID(in.DeviceID),
		UserAgent: userAgent,
		Features:  in.Features,
	}
	if in.ClientLabel != nil {
		start.ClientLabel, start.HasClientLabel = *in.ClientLabel, true
	}
	ready, err := s.identity.StartSession(ctx, start)
	if err != nil {
		return identity.Ready{}, err
	}
	return ready, s.core.Take(core.LimitSessionStarts, string(ready.Account))
}

func (s *Server) resume(ctx context.Context, in *gateway.Resume) (identity.Ready, error) {
	ready, err := s.identity.ResumeSession(ctx, in.ResumeToken)
	s.metrics.resume(err)
	if err != nil {
		return identity.Ready{}, err
	}
	return ready, s.core.Take(core.LimitResumes, string(ready.Account))
}

// ready is the answer to a start or a resume, with the device's cursors.
func (s *Server) ready(ctx context.Context, ready identity.Ready) (*gateway.Ready, error) {
	cursors, err := s.core.Cursors(ctx, ready.Caller)
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

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok"))
}

// resolveGateway knows this service; configured peers come with federation.
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
	s.answer(w, r, out, err)
}
