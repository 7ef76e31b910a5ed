package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"text/tabwriter"
	"time"

	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/server"
)

// adminTimeout bounds an operation of the operator.
const adminTimeout = time.Minute

// adminOptions names the server that an operator's command is for.
type adminOptions struct {
	Data     string `default:"data" placeholder:"DIR" help:"Data directory of the server, which may be running."`
	Database string `placeholder:"URL" secret:"url" help:"PostgreSQL database of the servers, in place of the embedded one."`
}

// do sends the request to the running server, or, if none runs or the database is shared,
// carries it out on the database itself.
func (o adminOptions) do(ctx context.Context, request server.AdminRequest, result any) error {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	var answer server.AdminAnswer
	err := errNoServer
	if o.Database == "" {
		answer, err = askServer(ctx, filepath.Join(o.Data, server.AdminSocket), request)
	}
	if errors.Is(err, errNoServer) {
		answer, err = server.Administer(ctx, server.Config{Data: o.Data, Database: o.Database}, request)
	}
	if err != nil {
		return err
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer.Result, result)
}

var errNoServer = errors.New("no server runs here")

// askServer sends a request to the server behind a socket, or returns errNoServer.
func askServer(ctx context.Context, socket string, request server.AdminRequest) (server.AdminAnswer, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return server.AdminAnswer{}, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://admin/", bytes.NewReader(body))
	if err != nil {
		return server.AdminAnswer{}, err
	}
	response, err := client.Do(post)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return server.AdminAnswer{}, errNoServer // never started, or killed
	}
	if errors.Is(err, syscall.EINVAL) {
		return server.AdminAnswer{}, errNoServer // a socket cannot have so long a path
	}
	if err != nil {
		return server.AdminAnswer{}, fmt.Errorf("ask the server: %w", err)
	}
	defer response.Body.Close()
	var answer server.AdminAnswer
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return server.AdminAnswer{}, fmt.Errorf("ask the server: %w", err)
	}
	return answer, nil
}

type inviteCommand struct {
	Create inviteCreateCommand `cmd:"" help:"Make an invite and print its code, which is shown only now."`
	List   inviteListCommand   `cmd:"" help:"List invites with their uses. Codes are not kept."`
	Revoke inviteRevokeCommand `cmd:"" help:"End an invite. Accounts admitted with it stay admitted."`
}

type inviteCreateCommand struct {
	adminOptions
	Uses    int64         `default:"1" placeholder:"N" help:"How many accounts it can admit."`
	Expires time.Duration `default:"7d" placeholder:"TIME" help:"How long it is valid, as 12h, 7d or 2w. 0 for no end."`
	Note    string        `placeholder:"TEXT" help:"A note about it, shown by list."`
}

// Run prints the code.
func (c *inviteCreateCommand) Run(ctx context.Context, std streams) error {
	var invite identity.Invite
	request := server.AdminRequest{Operation: server.AdminInviteCreate, Uses: c.Uses, Life: c.Expires, Note: c.Note}
	if err := c.do(ctx, request, &invite); err != nil {
		return err
	}
	_, err := fmt.Fprintln(std.out, invite.Code)
	return err
}

type inviteListCommand struct {
	adminOptions
	JSON bool `name:"json" help:"Print a JSON list."`
}

// Run prints one invite per line.
func (c *inviteListCommand) Run(ctx context.Context, std streams) error {
	var invites []identity.Invite
	if err := c.do(ctx, server.AdminRequest{Operation: server.AdminInviteList}, &invites); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(std.out, invites)
	}
	w := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tUSES\tSTATE\tCREATED\tEXPIRES\tNOTE")
	for _, i := range invites {
		fmt.Fprintf(w, "%s\t%d/%d\t%s\t%s\t%s\t%s\n", i.ID, i.Uses, i.UsesMax, inviteState(i, time.Now()), minuteOrNever(i.CreatedMS), minuteOrNever(i.ExpiresMS), i.Note)
	}
	return w.Flush()
}

// inviteState describes whether an invite is usable, and why not.
func inviteState(i identity.Invite, now time.Time) string {
	switch {
	case i.RevokedMS != 0:
		return "revoked"
	case i.Uses >= i.UsesMax:
		return "used"
	case i.ExpiresMS != 0 && i.ExpiresMS <= now.UnixMilli():
		return "expired"
	}
	return "good"
}

// minuteOrNever formats a time for people, in UTC; 0 is "never".
func minuteOrNever(ms int64) string {
	if ms == 0 {
		return "never"
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04Z")
}

type inviteRevokeCommand struct {
	adminOptions
	Invite string `arg:"" help:"Id of the invite, or its code."`
}

// Run ends the invite.
func (c *inviteRevokeCommand) Run(ctx context.Context) error {
	return c.do(ctx, server.AdminRequest{Operation: server.AdminInviteRevoke, Name: c.Invite}, nil)
}

type allowCommand struct {
	Add    allowAddCommand    `cmd:"" help:"Add an account to the allowlist. An expelled one may return."`
	List   allowListCommand   `cmd:"" help:"List the allowlist."`
	Remove allowRemoveCommand `cmd:"" help:"Remove an account from the allowlist. An admitted account stays admitted."`
	Expel  allowExpelCommand  `cmd:"" help:"Expel an account, like waxwing admin accounts expel --yes."`
}

type allowAddCommand struct {
	adminOptions
	DID string `arg:"" name:"did" help:"The account: a did:key, did:plc or did:web."`
}

// Run adds the account to the list.
func (c *allowAddCommand) Run(ctx context.Context) error {
	return c.do(ctx, server.AdminRequest{Operation: server.AdminAllowAdd, Name: c.DID}, nil)
}

type allowListCommand struct {
	adminOptions
	JSON bool `name:"json" help:"Print a JSON list."`
}

// Run prints one account per line.
func (c *allowListCommand) Run(ctx context.Context, std streams) error {
	var allowed []identity.AllowedAccount
	if err := c.do(ctx, server.AdminRequest{Operation: server.AdminAllowList}, &allowed); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(std.out, allowed)
	}
	for _, a := range allowed {
		if _, err := fmt.Fprintln(std.out, a.Account); err != nil {
			return err
		}
	}
	return nil
}

type allowRemoveCommand struct {
	adminOptions
	DID string `arg:"" name:"did" help:"The account."`
}

// Run removes the account from the list.
func (c *allowRemoveCommand) Run(ctx context.Context) error {
	return c.do(ctx, server.AdminRequest{Operation: server.AdminAllowRemove, Name: c.DID}, nil)
}

type allowExpelCommand struct {
	adminOptions
	DID string `arg:"" name:"did" help:"The account."`
}

// Run expels the account.
func (c *allowExpelCommand) Run(ctx context.Context, std streams) error {
	return expel(ctx, c.adminOptions, c.DID, std)
}

func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
