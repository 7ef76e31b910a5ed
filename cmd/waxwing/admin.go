package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"golang.org/x/term"

	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/server"
)

type adminCommand struct {
	Accounts struct {
		List  accountsListCommand  `cmd:"" help:"List the admitted and expelled accounts."`
		Show  accountsShowCommand  `cmd:"" help:"Show what is known of an account."`
		Expel accountsExpelCommand `cmd:"" help:"Expel an account: it is refused until waxwing allow add, its sessions end, it is removed from all conversations, and its devices and key packages are deleted."`
	} `cmd:"" help:"See and expel accounts."`
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

type accountsListCommand struct {
	adminOptions
	Prefix string `placeholder:"TEXT" help:"Only accounts that begin with this."`
	After  string `name:"after" placeholder:"DID" help:"Begin after this account, the last one of the page before."`
	Limit  int    `default:"1000" placeholder:"N" help:"At most so many, up to 1000."`
	JSON   bool   `name:"json" help:"Print a JSON list."`
}

// Run prints one account per line.
func (c *accountsListCommand) Run(ctx context.Context, std streams) error {
	if c.Limit < 1 || c.Limit > identity.AccountsMax {
		return usageError{fmt.Errorf("--limit: want 1 to %d", identity.AccountsMax)}
	}
	list := []server.Account{}
	request := server.AdminRequest{Operation: server.AdminAccountsList, Name: c.Prefix, After: c.After, Limit: c.Limit}
	if err := c.do(ctx, request, &list); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(std.out, list)
	}
	w := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	for _, a := range list {
		fmt.Fprintf(w, "%s\t%s\n", a.ID, accountState(a))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(list) == c.Limit {
		fmt.Fprintf(std.err, "there may be more: --after %s\n", list[len(list)-1].ID)
	}
	return nil
}

// accountState describes how an account stands with the server, and since when.
func accountState(a server.Account) string {
	switch {
	case a.ExpelledMS != 0 && a.FinishedMS == 0:
		return fmt.Sprintf("expelled %s by %s, being removed", minuteOrNever(a.ExpelledMS), a.ExpelledBy)
	case a.ExpelledMS != 0:
		return fmt.Sprintf("expelled %s by %s", minuteOrNever(a.ExpelledMS), a.ExpelledBy)
	case a.AdmittedMS == 0:
		return "admitted"
	case a.Invite != "":
		return fmt.Sprintf("admitted %s with %s", minuteOrNever(a.AdmittedMS), a.Invite)
	}
	return "admitted " + minuteOrNever(a.AdmittedMS)
}

type accountsShowCommand struct {
	adminOptions
	DID  string `arg:"" name:"did" help:"The account."`
	JSON bool   `name:"json" help:"Print a JSON object."`
}

// Run prints the account, and then one device per line.
func (c *accountsShowCommand) Run(ctx context.Context, std streams) error {
	var a identity.AccountDetails
	if err := c.do(ctx, server.AdminRequest{Operation: server.AdminAccountsShow, Name: c.DID}, &a); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(std.out, a)
	}
	w := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "account\t%s\n", a.ID)
	fmt.Fprintf(w, "state\t%s\n", accountState(a.Account))
	if a.IsAllowed {
		fmt.Fprintf(w, "allowlist\tyes\n")
	}
	fmt.Fprintf(w, "conversations\t%d\n", a.Conversations)
	fmt.Fprintf(w, "stored\t%s of key packages and device events\n", byteSize(a.StoredBytes))
	if err := w.Flush(); err != nil || len(a.Devices) == 0 {
		return err
	}
	fmt.Fprintln(w, "DEVICE\tNAME\tSEEN\tSESSIONS\tKEY PACKAGES\tLAST RESORT")
	for _, d := range a.Devices {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\n", d.ID, printable(d.Name), minuteOrNever(d.SeenMS), d.Sessions, d.KeyPackages, d.LastResort)
	}
	return w.Flush()
}

// printable replaces what a name of a stranger could do to a terminal or a table.
func printable(name string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, name)
}

type accountsExpelCommand struct {
	adminOptions
	DID string `arg:"" name:"did" help:"The account."`
	Yes bool   `help:"Do not ask."`
}

// Run asks whether it is meant, and expels the account.
func (c *accountsExpelCommand) Run(ctx context.Context, std streams) error {
	if !c.Yes {
		in, ok := std.in.(*os.File)
		if !ok || !term.IsTerminal(int(in.Fd())) {
			return usageError{errors.New("expelling an account ends its sessions and its memberships: give --yes")}
		}
		var a identity.AccountDetails
		if err := c.do(ctx, server.AdminRequest{Operation: server.AdminAccountsShow, Name: c.DID}, &a); err != nil {
			return err
		}
		fmt.Fprintf(std.err, "Expel %s? Its sessions end, it is removed from %d conversations, and its key packages are deleted. [y/N] ", a.ID, a.Conversations)
		answer, _ := bufio.NewReader(in).ReadString('\n') // the end of the input is a no
		if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
			return errors.New("not expelled")
		}
	}
	return expel(ctx, c.adminOptions, c.DID, std)
}

// expel expels an account and prints what is still to be done.
func expel(ctx context.Context, o adminOptions, did string, std streams) error {
	var done server.Expulsion
	if err := o.do(ctx, server.AdminRequest{Operation: server.AdminAccountsExpel, Name: did}, &done); err != nil {
		return err
	}
	if !done.IsRemoved {
		fmt.Fprintf(std.err, "%s is expelled, and still being removed from conversations; a running server goes on with that\n", did)
	}
	return nil
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
