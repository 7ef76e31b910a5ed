package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/secretfile"
)

// defaultServer is the default address of `waxwing serve`.
const defaultServer = "http://127.0.0.1:8420"

const didDocumentBytesMax = 64 << 10

// seedOption is the secret from which, with a name, the key of an account is derived.
type seedOption struct {
	Seed string `placeholder:"TEXT" help:"Secret that account keys are derived from. By default the one in the configuration directory, made when missing. Prefer WAXWING_SEED: other users can see flags."`
}

// secret returns the seed to derive from.
func (o seedOption) secret(g *globals) ([]byte, error) {
	if o.Seed != "" {
		return []byte(o.Seed), nil
	}
	home, err := g.configHome()
	if err != nil {
		return nil, err
	}
	text, err := secretfile.Keep(filepath.Join(home, "seed"))
	return []byte(text), err
}

// configHome returns the user's configuration directory, which is independent of any home of
// chat.
func (g *globals) configHome() (string, error) {
	if g.ConfigHome != "" {
		return g.ConfigHome, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("%w; name a directory by --config-home", err)
	}
	return filepath.Join(dir, "waxwing"), nil
}

type didCommand struct {
	As  string `required:"" aliases:"name" env:"WAXWING_AS,WAXWING_NAME" placeholder:"NAME" help:"Name of the account among those of the seed."`
	Alg string `default:"ES256" enum:"ES256,ES256K,EdDSA" placeholder:"ALG" help:"Kind of key: ES256, ES256K or EdDSA. Each gives another account."`
	seedOption
}

// Run prints the DID.
func (c *didCommand) Run(std streams, g *globals) error {
	seed, err := c.secret(g)
	if err != nil {
		return err
	}
	key, err := identity.DeriveAccountKey(seed, c.As, c.Alg)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(std.out, key.DID())
	return err
}

type tokenCommand struct {
	As     string        `aliases:"name" env:"WAXWING_AS,WAXWING_NAME" placeholder:"NAME" help:"Name of the account among those of the seed."`
	Batch  bool          `help:"Read lines NAME [DEVICE] from standard input and answer each at once with a token. The device is ignored."`
	Alg    string        `default:"ES256" enum:"ES256,ES256K,EdDSA" placeholder:"ALG" help:"Kind of key: ES256, ES256K or EdDSA. Each gives another account."`
	Server string        `placeholder:"URL" help:"Service that the token is for; asked for its DID. By default http://127.0.0.1:8420."`
	Aud    string        `placeholder:"DID" help:"DID of the service that the token is for, in place of --server."`
	Lxm    string        `default:"im.waxwing.session.start" placeholder:"NSID" help:"Method that the token allows to call, once."`
	Exp    time.Duration `default:"60s" placeholder:"TIME" help:"How long the token is valid. Services refuse more than 5m."`
	seedOption
}

// Run prints one token per line and nothing else. Options that exclude each other are compared
// here: kong would count those of the environment too, which flags overrule.
func (c *tokenCommand) Run(ctx context.Context, std streams, g *globals, parsed *kong.Context) error {
	switch {
	case isFlag(parsed, "as") && isFlag(parsed, "batch"):
		return usageError{errors.New("--as and --batch can't be used together")}
	case isFlag(parsed, "server") && isFlag(parsed, "aud"):
		return usageError{errors.New("--server and --aud can't be used together")}
	}
	c.Batch = c.Batch && !isFlag(parsed, "as")
	if isFlag(parsed, "server") {
		c.Aud = ""
	}
	if c.As == "" && !c.Batch {
		return usageError{errors.New("want --as NAME or --batch")}
	}
	seed, err := c.secret(g)
	if err != nil {
		return err
	}
	if c.Aud == "" {
		if c.Aud, err = serviceDID(ctx, c.Server); err != nil {
			return err
		}
	}
	if !c.Batch {
		return c.print(std.out, seed, c.As)
	}
	lines := bufio.NewScanner(std.in)
	for number := 1; lines.Scan(); number++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 {
			continue
		}
		if len(fields) > 2 {
			return fmt.Errorf("line %d: want NAME [DEVICE]", number)
		}
		if err := c.print(std.out, seed, fields[0]); err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
	}
	return lines.Err()
}

// print writes one token, in one write: a reader of a pipe gets it at once.
func (c *tokenCommand) print(out io.Writer, seed []byte, name string) error {
	key, err := identity.DeriveAccountKey(seed, name, c.Alg)
	if err != nil {
		return err
	}
	now := time.Now()
	token, err := identity.SignToken(key, identity.Claims{
		Issuer: key.DID(), Audience: c.Aud, Method: c.Lxm, IssuedAt: now, ExpiresAt: now.Add(c.Exp),
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, token)
	return err
}

// serviceDID fetches the DID of a service.
func serviceDID(ctx context.Context, server string) (string, error) {
	if server == "" {
		server = defaultServer
	}
	address := strings.TrimRight(server, "/") + "/.well-known/did.json"
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", usageError{fmt.Errorf("server: %w", err)}
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", fmt.Errorf("ask the service for its DID: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("ask the service for its DID: %s answers %s", address, response.Status)
	}
	var document struct {
		ID string `json:"id"`
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, didDocumentBytesMax)).Decode(&document); err != nil || document.ID == "" {
		return "", fmt.Errorf("%s does not contain a DID document", address)
	}
	return document.ID, nil
}
