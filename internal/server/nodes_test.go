package server_test

import (
	"context"
	"fmt"
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

const (
	// foundByPoll is well below the half minute after which a node finds by itself that a
	// session which it keeps alive is gone, and well above the second between two polls.
	foundByPoll = 15 * time.Second
	// soon is the longest time until a logout is seen on another node.
	soon = 2 * time.Second
)

// TestRevokedOnAnotherNode: of two servers on one database, each ends the sockets and
// streams of sessions that are ended through the other, idle or not, whatever their clocks
// say.
func TestRevokedOnAnotherNode(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"same time": 0, "the other is behind": -2 * time.Minute, "the other is ahead": 2 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			folder, database := t.TempDir(), pgtest.URL(t)
			node := func(ahead time.Duration) *server.Server {
				c := server.DefaultConfig(t.TempDir())
				c.Database, c.ServiceKey, c.PublicURL = database, filepath.Join(folder, "service.key"), "http://localhost:8420"
				c.Now = func() time.Time { return time.Now().Add(ahead) }
				return start(t, c)
			}
			here, there := node(0), node(ahead)
			fastest := time.Hour
			for i := range 3 { // of which one is not held up by whatever else the machine does
				fastest = min(fastest, logOutElsewhere(t, here, there, fmt.Sprint("ann", i)))
			}
			if fastest > soon {
				t.Errorf("a logout is seen on the other node after %s", fastest)
			}
		})
	}
}

// logOutElsewhere opens a socket and a stream on one node and ends their session on
// another. It returns how long they lived on.
func logOutElsewhere(t *testing.T, here, there *server.Server, name string) time.Duration {
	t.Helper()
	key, err := identity.DeriveAccountKey([]byte("nodes"), name, identity.ES256)
	if err != nil {
		t.Fatal(err)
	}
	socket, err := dial(here, key, "phone")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.ws.CloseNow()
	if err := socket.room(here, name); err != nil {
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
	stream := call(here, "GET", "/v1/sse?conv_id="+name)
	call(there, "POST", "/v1/session/logout")
	began := time.Now()
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
	return time.Since(began)
}
