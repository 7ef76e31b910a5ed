package main

import (
	"context"
	"fmt"

	"waxwing.im/waxwing/internal/server"
)

type serveCommand struct {
	server.Config `embed:""`
}

// Help returns the text below the flags.
func (serveCommand) Help() string {
	return "Prints one line, listening on http://HOST:PORT as DID, when it accepts requests. " +
		"SIGTERM and SIGINT end it cleanly."
}

// Run serves until ctx ends.
func (c *serveCommand) Run(ctx context.Context, std streams) error {
	c.Version = currentBuild().String()
	c.LogTo = std.err
	s, err := server.Start(ctx, c.Config)
	if err != nil {
		return err
	}
	fmt.Fprintf(std.out, "listening on %s as %s\n", s.URL(), s.DID())
	select {
	case <-ctx.Done():
	case err = <-s.Failed():
	}
	if closeErr := s.Close(); err == nil {
		err = closeErr
	}
	return err
}
