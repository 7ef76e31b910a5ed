package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/server"
	"waxwing.im/waxwing/internal/testwait"
)

// operate sends an act of the operator to a running server and decodes the result.
func operate(t *testing.T, c server.Config, request server.AdminRequest, result any) {
	t.Helper()
	body, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	answer := ask(t, c, string(body))
	if answer.Error != "" {
		t.Fatalf("%s: %s", request.Operation, answer.Error)
	}
	if result != nil {
		if err := json.Unmarshal(answer.Result, result); err != nil {
			t.Fatal(err)
		}
	}
}

// callXRPC calls a method for the account of a key, with a new token.
func callXRPC(ctx context.Context, t *testing.T, s *server.Server, key *identity.AccountKey, nsid string, header map[string]string) *http.Response {
	t.Helper()
	now := time.Now()
	token, err := identity.SignToken(key, identity.Claims{Issuer: key.DID(), Audience: s.DID(), Method: nsid, IssuedAt: now, ExpiresAt: now.Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(ctx, "GET", s.URL()+"/xrpc/"+nsid, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	for name, value := range header {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response
}

// TestExpel: an account that is expelled through one server loses what it has open on another, and
// both doors refuse it there, until an operator lets it in again.
func TestExpel(t *testing.T) {
	folder, database := t.TempDir(), pgtest.URL(t)
	config := func() server.Config {
		c := server.DefaultConfig(t.TempDir())
		c.Database, c.ServiceKey, c.PublicURL = database, filepath.Join(folder, "service.key"), "http://localhost:8420"
		return c
	}
	c := config()
	start(t, c)
	there := start(t, config())
	ctx, cancel := context.WithTimeout(context.Background(), foundByPoll)
	defer cancel()
	ann, err := identity.DeriveAccountKey([]byte("test seed"), "ann", identity.ES256)
	if err != nil {
		t.Fatal(err)
	}
	socket, err := dial(there, ann, "phone")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.ws.CloseNow()
	if err := socket.room(there, "room"); err != nil {
		t.Fatal(err)
	}
	const subscribe, list = chat + "subscribeEvents", chat + "getConvos"
	stream := callXRPC(ctx, t, there, ann, subscribe, map[string]string{"Accept": "text/event-stream"})
	if stream.StatusCode != http.StatusOK {
		t.Fatal(stream.Status)
	}
	if answer := callXRPC(ctx, t, there, ann, list, nil); answer.StatusCode != http.StatusOK {
		t.Fatal(answer.Status) // it is known to be admitted now
	}
	var accounts []server.Account
	operate(t, c, server.AdminRequest{Operation: server.AdminAccountsList}, &accounts)
	var shown identity.AccountDetails
	operate(t, c, server.AdminRequest{Operation: server.AdminAccountsShow, Name: ann.DID()}, &shown)
	if len(accounts) != 1 || string(accounts[0].ID) != ann.DID() || shown.Conversations != 1 || len(shown.Devices) != 1 || shown.Devices[0].Sessions != 1 {
		t.Errorf("listed %+v, shown %+v", accounts, shown)
	}

	var done server.Expulsion
	operate(t, c, server.AdminRequest{Operation: server.AdminAccountsExpel, Name: ann.DID()}, &done)
	if !done.IsRemoved {
		t.Error("it is not removed from its room")
	}
	for {
		_, text, err := socket.ws.Read(ctx)
		if websocket.CloseStatus(err) == websocket.StatusPolicyViolation {
			break
		}
		if err != nil {
			t.Fatalf("the socket ends by %v after %s", err, text)
		}
	}
	if _, err := io.Copy(io.Discard, bufio.NewReader(stream.Body)); ctx.Err() != nil {
		t.Errorf("the subscription goes on: %v", err)
	}
	testwait.Until(t, "the other server refuses tokens", func() bool {
		answer := callXRPC(ctx, t, there, ann, list, nil)
		text, _ := io.ReadAll(answer.Body)
		return answer.StatusCode == http.StatusForbidden && strings.Contains(string(text), "NotAllowed")
	})
	if status, answer := startSession(t, there, "ann", ""); status != http.StatusForbidden || answer["message"] != "expelled by the operator of the service" {
		t.Errorf("a session starts: %d %v", status, answer)
	}
	shown = identity.AccountDetails{}
	operate(t, c, server.AdminRequest{Operation: server.AdminAccountsShow, Name: ann.DID()}, &shown)
	if shown.ExpelledBy != fmt.Sprint("local:", os.Getuid()) || shown.Conversations != 0 || shown.FinishedMS != 0 {
		t.Errorf("shown %+v", shown)
	}
	operate(t, c, server.AdminRequest{Operation: server.AdminAllowAdd, Name: ann.DID()}, nil)
	if status, answer := startSession(t, there, "ann", ""); status != http.StatusOK {
		t.Errorf("let in again: %d %v", status, answer)
	}
	if answer := callXRPC(ctx, t, there, ann, list, nil); answer.StatusCode != http.StatusOK {
		t.Errorf("let in again: %s", answer.Status)
	}
}
