package gatewayserver

import (
	"context"
	"encoding/base64"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/directory"
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

// keyPackages publishes and hands out key packages.
type keyPackages struct {
	directory *directory.Service
	did       func() string // of this service
}

func (k keyPackages) publishKeyPackages(ctx context.Context, who identity.Session, in *gateway.PublishKeyPackages) (any, error) {
	if err := ownDevice(who, in.DeviceID); err != nil {
		return nil, err
	}
	return k.publish(ctx, who.Caller, false, in.KeyPackages)
}

func (k keyPackages) rotateKeyPackages(ctx context.Context, who identity.Session, in *gateway.RotateKeyPackages) (any, error) {
	if err := ownDevice(who, in.DeviceID); err != nil {
		return nil, err
	}
	return k.publish(ctx, who.Caller, in.Revoke, in.Replacement)
}

// keyPackageCharactersMax bounds a key package in wire form.
const keyPackageCharactersMax = 64 << 10

// publish publishes a list. It refuses one with an invalid key package and names its index.
func (k keyPackages) publish(ctx context.Context, who ds.Caller, revoke bool, packages []string) (any, error) {
	uploads := make([]directory.Upload, len(packages))
	for i, text := range packages {
		uploads[i] = uploadOf(text)
	}
	done, err := k.directory.PublishKeyPackages(ctx, who, directory.Publication{Packages: uploads, Revoke: revoke})
	if err != nil {
		return nil, err
	}
	if len(done.Problems) > 0 {
		p := done.Problems[0]
		return nil, &ds.Refusal{Code: ds.InvalidRequest, Message: p.Text, Index: p.Index, HasIndex: true}
	}
	did := k.did()
	return &gateway.KeyPackagesPublished{Status: "ok", ServedBy: did, UserHomeGateway: did, Available: done.Available}, nil
}

// uploadOf decodes a published string: base64 of an MLS key package, or else an opaque one.
func uploadOf(text string) directory.Upload {
	if len(text) > keyPackageCharactersMax {
		return directory.Upload{Problem: "key package too large"}
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err == nil && directory.IsKeyPackage(raw) && base64.StdEncoding.EncodeToString(raw) == text {
		return directory.Upload{Body: raw}
	}
	return directory.Upload{Body: []byte(text), IsOpaque: true}
}

// countMax fits in an int on every platform; core's own bound is far below.
const countMax = 1 << 20

func (k keyPackages) fetchKeyPackages(ctx context.Context, who identity.Session, in *gateway.FetchKeyPackages) (any, error) {
	owner := ds.AccountID(in.UserID)
	switch {
	case !ds.IsValidAccount(in.UserID):
		return nil, ds.Refuse(ds.InvalidRequest, "user_id: not 1 to %d bytes of text", ds.AccountBytesMax)
	case in.PerDevice:
		return k.fetchPerDevice(ctx, who.Caller, owner)
	case in.Count == nil:
		return nil, ds.Refuse(ds.InvalidRequest, "count: missing")
	case *in.Count < 0:
		return nil, ds.Refuse(ds.InvalidRequest, "count: negative")
	}
	packages, err := k.directory.ClaimKeyPackages(ctx, who.Caller, directory.Claim{Owners: []ds.AccountID{owner}, Count: int(min(*in.Count, countMax))})
	if err != nil {
		return nil, err
	}
	did := k.did()
	out := &gateway.KeyPackages{KeyPackages: make([]string, len(packages)), ServedBy: did, UserHomeGateway: did}
	for i := range packages {
		out.KeyPackages[i] = textOf(packages[i].Body, packages[i].Encoding)
	}
	return out, nil
}

func (k keyPackages) fetchPerDevice(ctx context.Context, who ds.Caller, owner ds.AccountID) (any, error) {
	packages, err := k.directory.ClaimKeyPackages(ctx, who, directory.Claim{Owners: []ds.AccountID{owner}, PerDevice: true})
	if err != nil {
		return nil, err
	}
	did := k.did()
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

// textOf returns the JSON form of a body: text unchanged, bytes as base64.
func textOf(body []byte, encoding ds.Encoding) string {
	if encoding == ds.Text {
		return string(body)
	}
	return base64.StdEncoding.EncodeToString(body)
}
