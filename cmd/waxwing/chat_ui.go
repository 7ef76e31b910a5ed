package main

import "context"

func runUI(ctx context.Context, t *chat, std streams) error {
	return newLines(t, std, false).run(ctx, std.in, "")
}
