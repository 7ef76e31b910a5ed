package main

import (
	"context"

	"waxwing.im/waxwing/internal/mlspeer"
)

// devCommand groups tools for developers of MLS clients and of waxwing itself.
type devCommand struct {
	MLSPeer mlsPeerCommand `cmd:"" name:"mls-peer" help:"Speak the MLS peer protocol on standard input and output, so that other implementations can be run against ours."`
}

type mlsPeerCommand struct{}

// Run answers requests until standard input ends.
func (mlsPeerCommand) Run(ctx context.Context, std streams) error {
	return mlspeer.Serve(ctx, std.in, std.out, currentBuild().version)
}
