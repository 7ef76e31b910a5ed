package server_test

import (
	"context"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/server"
)

// foundByPoll is well below the half minute after which a node finds by itself that a
// session which it keeps alive is gone, and well above the second between two polls.
const foundByPoll = 15 * time.Second

// TestRevokedOnAnotherNode: of two servers on one database, each ends the sockets and
// streams of sessions that are ended through the other, idle or not.
func TestRevokedOnAnotherNode(t *testing.T) {
	folder, database := t.TempDir(), pgtest.URL(t)
	node := func() *server.Server {
		c := server.DefaultConfig(t.TempDir())
		c.Database, c.ServiceKey, c.PublicURL = database, filepath.Join(folder, "service.key"), "http://localhost:8420"
		return start(t, c)
	}
	here, there := node(), node()
	key, err := identity.DeriveAccountKey([]byte("nodes"), "ann", identity.ES256)
	if err != nil {
		t.Fatal(err)
	}
	socket, err := dial(here, key, "phone")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.ws.CloseNow()
	if err := socket.room(here, "c"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), foundByPoll)
	defer cancel()
	call := func(s *server.Server, method, path string) *http.Response {
		request, err := http.NewRequestWithContext(ctx, method, s.URL()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+socket.token)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { response.Body.Close() })
		if response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", path, response.Status)
		}
		return response
	}
	stream := call(here, "GET", "/v1/sse?conv_id=c")
	call(there, "POST", "/v1/session/logout")
	_, last, err := socket.ws.Read(ctx)
	if err != nil || !strings.Contains(string(last), `"code":"unauthorized"`) {
		t.Fatalf("heard %s, %v", last, err)
	}
	if _, _, err := socket.ws.Read(ctx); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Errorf("the socket: %v", err)
	}
	if _, err := io.ReadAll(stream.Body); err != nil {
		t.Errorf("the stream: %v", err)
	}
}
