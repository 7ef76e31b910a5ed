package xrpcserver

import (
	"context"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/directory"
	"waxwing.im/waxwing/internal/ds"
)

// generationOf returns the generation of the client that calls: the one that the request
// shows, or else the one seen last of the account's devices.
func generationOf(ctx context.Context, d *directory.Service, who ds.Caller, in any) (xrpc.Generation, error) {
	g := xrpc.GenerationOf(in)
	if g != xrpc.GenerationUnknown {
		return g, nil
	}
	remembered, err := d.RememberedGeneration(ctx, who.Account)
	return xrpc.Generation(remembered), err
}
