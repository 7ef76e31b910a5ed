package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"waxwing.im/waxwing/internal/server"
)

type adminCommand struct {
	Stats adminStatsCommand `cmd:"" help:"Show how much the server holds, and how old the oldest event is that a device has not acknowledged."`
}

type adminStatsCommand struct {
	adminOptions
	JSON bool `name:"json" help:"Print a JSON object."`
}

// Run prints one figure per line.
func (c *adminStatsCommand) Run(ctx context.Context, std streams) error {
	var stats server.Stats
	if err := c.do(ctx, server.AdminRequest{Operation: server.AdminStats}, &stats); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(std.out, stats)
	}
	w := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "accounts\t%s\n", about(stats.Accounts.Count, stats.Accounts.IsAbout))
	fmt.Fprintf(w, "conversations\t%s\n", about(stats.Conversations.Count, stats.Conversations.IsAbout))
	fmt.Fprintf(w, "records\t%s\n", about(stats.Records.Count, stats.Records.IsAbout))
	fmt.Fprintf(w, "sessions\t%s\n", about(stats.Sessions.Count, stats.Sessions.IsAbout))
	oldest := "none"
	if stats.OldestEventMS > 0 {
		oldest = time.Since(time.UnixMilli(stats.OldestEventMS)).Round(time.Second).String()
	}
	if stats.IsOldestAbout {
		oldest += " (not all devices were looked at)"
	}
	fmt.Fprintf(w, "oldest unacknowledged event\t%s\n", oldest)
	fmt.Fprintf(w, "stored\t%s\n", byteSize(stats.StoredBytes))
	fmt.Fprintf(w, "on disk\t%s\n", byteSize(stats.DatabaseBytes))
	for _, size := range stats.Sizes {
		fmt.Fprintf(w, "  %s\t%s\n", size.Name, byteSize(size.Bytes))
	}
	return w.Flush()
}

// about formats a number that may be an estimate.
func about(n int64, isAbout bool) string {
	if isAbout {
		return fmt.Sprintf("about %d", n)
	}
	return fmt.Sprint(n)
}

// byteSize formats a size with three digits or so.
func byteSize(bytes int64) string {
	size, unit := float64(bytes), 0
	for ; size >= 1024 && unit < 4; unit++ {
		size /= 1024
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", bytes)
	}
	return fmt.Sprintf("%.1f %ciB", size, " KMGT"[unit])
}
