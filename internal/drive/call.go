package drive

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/identity"
)

const (
	callMax      = 20 * time.Second
	answerMax    = 16 << 20
	sessionStart = "/v1/session/start"
)

// Caller makes HTTP calls in a session of its own: to set up conversations and to read their
// state. It is not part of the tested system.
type Caller struct {
	base  string
	http  *http.Client
	token string
}

// SignIn starts a session at the server at base, http://HOST:PORT, with the DID audience.
func SignIn(ctx context.Context, base, audience string, key *identity.AccountKey, device string, features ...gateway.Feature) (*Caller, error) {
	return Route{URL: base}.signIn(ctx, audience, key, device, features...)
}

// signIn does the work of SignIn on a route, with features.
func (r Route) signIn(ctx context.Context, audience string, key *identity.AccountKey, device string, features ...gateway.Feature) (*Caller, error) {
	token, err := authToken(key, audience)
	if err != nil {
		return nil, err
	}
	transport := r.transport()
	transport.DisableKeepAlives = true // no connection outlives its call: the next call may go to another server
	c := &Caller{base: r.URL, http: &http.Client{Timeout: callMax, Transport: transport}}
	var ready gateway.Ready
	if err := c.Post(ctx, sessionStart, &gateway.Start{AuthToken: token, DeviceID: device, Features: features}, &ready); err != nil {
		return nil, err
	}
	c.token = ready.SessionToken
	return c, nil
}

// Token returns the token of the session.
func (c *Caller) Token() string { return c.token }

// CreateRoom creates a conversation owned by the caller.
func (c *Caller) CreateRoom(ctx context.Context, id string, members []string) error {
	var status gateway.Status
	return c.Post(ctx, "/v1/rooms/create", &gateway.RoomMembers{ConvID: id, Members: members}, &status)
}

// Heads lists the latest seq of each conversation that the caller is in.
func (c *Caller) Heads(ctx context.Context) (map[string]int64, error) {
	var list gateway.ConversationList
	if err := c.do(ctx, http.MethodGet, "/v1/conversations", nil, &list); err != nil {
		return nil, err
	}
	heads := map[string]int64{}
	for _, item := range list.Items {
		heads[item.ConvID] = 0
		if item.LatestSeq != nil {
			heads[item.ConvID] = *item.LatestSeq
		}
	}
	return heads, nil
}

// Post calls path with the JSON of in and decodes the answer into out. A refusal is a
// *gateway.Error.
func (c *Caller) Post(ctx context.Context, path string, in, out any) error {
	body, err := gateway.Marshal(in)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, path, body, out)
}

func (c *Caller) do(ctx context.Context, method, path string, body []byte, out any) error {
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, answerMax))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		refusal := &gateway.Error{}
		if err := json.Unmarshal(answer, refusal); err != nil || refusal.Code == "" {
			return fmt.Errorf("%s: status %d", path, response.StatusCode)
		}
		return fmt.Errorf("%s: %w", path, refusal)
	}
	return json.Unmarshal(answer, out)
}
