package gatewayserver

import (
	"context"
	"encoding/base64"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/identity"
)

// ownDevice refuses to act for a device that is not the session's.
func ownDevice(who identity.Session, device string) error {
	if device != string(who.Device) {
		return ds.Refuse(ds.Unauthorized, "device_id is not the session's")
	}
	return nil
}

func (s *Server) publishKeyPackages(ctx context.Context, who identity.Session, in *gateway.PublishKeyPackages) (any, error) {
	if err := ownDevice(who, in.DeviceID); err != nil {
		return nil, err
	}
	return s.published(s.core.PublishKeyPackages(ctx, who.Caller, in.KeyPackages))
}

func (s *Server) rotateKeyPackages(ctx context.Context, who identity.Session, in *gateway.RotateKeyPackages) (any, error) {
	if err := ownDevice(who, in.DeviceID); err != nil {
		return nil, err
	}
	return s.published(s.core.RotateKeyPackages(ctx, who.Caller, in.Revoke, in.Replacement))
}

func (s *Server) published(available int64, err error) (any, error) {
	did := s.did()
	return &gateway.KeyPackagesPublished{Status: "ok", ServedBy: did, UserHomeGateway: did, Available: available}, err
}

// countMax is what fits in an int everywhere; core's own bound is far below.
const countMax = 1 << 20

func (s *Server) fetchKeyPackages(ctx context.Context, who identity.Session, in *gateway.FetchKeyPackages) (any, error) {
	owner := ds.AccountID(in.UserID)
	switch {
	case !ds.IsValidAccount(in.UserID):
		return nil, ds.Refuse(ds.InvalidRequest, "user_id: not 1 to %d bytes of text", ds.AccountBytesMax)
	case in.PerDevice:
		return s.fetchPerDevice(ctx, who.Caller, owner)
	case in.Count == nil:
		return nil, ds.Refuse(ds.InvalidRequest, "count: missing")
	case *in.Count < 0:
		return nil, ds.Refuse(ds.InvalidRequest, "count: negative")
	}
	packages, err := s.core.ClaimKeyPackages(ctx, who.Caller, owner, int(min(*in.Count, countMax)))
	if err != nil {
		return nil, err
	}
	did := s.did()
	out := &gateway.KeyPackages{KeyPackages: make([]string, len(packages)), ServedBy: did, UserHomeGateway: did}
	for i := range packages {
		out.KeyPackages[i] = textOf(packages[i].Body, packages[i].Encoding)
	}
	return out, nil
}

func (s *Server) fetchPerDevice(ctx context.Context, who ds.Caller, owner ds.AccountID) (any, error) {
	packages, err := s.core.ClaimKeyPackagePerDevice(ctx, who, owner)
	if err != nil {
		return nil, err
	}
	did := s.did()
	out := &gateway.DeviceKeyPackages{Items: make([]gateway.DeviceKeyPackage, len(packages)), ServedBy: did, UserHomeGateway: did}
	for i, p := range packages {
		out.Items[i] = gateway.DeviceKeyPackage{
			DeviceID:      string(p.Device.ID),
			KeyPackageRef: p.Ref,
			KeyPackage:    textOf(p.Body, p.Encoding),
		}
	}
	return out, nil
}

// textOf is how bytes travel in JSON: text as it came, anything else as base64.
func textOf(body []byte, encoding ds.Encoding) string {
	if encoding == ds.Text {
		return string(body)
	}
	return base64.StdEncoding.EncodeToString(body)
}
