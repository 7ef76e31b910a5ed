package gatewayserver

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// within waits for n signals.
func within(t *testing.T, what string, signals <-chan struct{}, n int) {
	t.Helper()
	late := time.After(20 * time.Second)
	for range n {
		select {
		case <-signals:
		case <-late:
			t.Fatalf("%s: silence", what)
		}
	}
}

// TestNoSilence: to a socket that is idle or answers every question, and to a stream,
// something is written at each heartbeat, and no application sees it.
func TestNoSilence(t *testing.T) {
	w := newWorld(t, func(s *setup) {
		s.door.Heartbeat, s.door.PingInterval, s.door.StreamPing = 100*time.Millisecond, time.Hour, time.Hour
	})
	w.join("ann")
	pings := make(chan struct{}, 1000)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, w.http.URL+"/v1/ws", &websocket.DialOptions{
		OnPingReceived: func(context.Context, []byte) bool { pings <- struct{}{}; return true }})
	must(t, err)
	defer ws.CloseNow()
	must(t, ws.Write(ctx, websocket.MessageText, []byte(`{"v":1,"t":"session.resume","body":{"resume_token":"`+w.person("ann").resume+`"}}`)))
	frames := make(chan string, 10)
	go func() {
		for {
			_, frame, err := ws.Read(ctx)
			if err != nil {
				close(frames)
				return
			}
			frames <- string(frame)
		}
	}()
	if got := <-frames; !strings.Contains(got, "session.ready") {
		t.Fatal(got)
	}
	within(t, "socket", pings, 5)
	must(t, ws.Write(ctx, websocket.MessageText, []byte(`{"v":1,"t":"ping"}`)))
	if got := <-frames; got != `{"v":1,"t":"pong"}` {
		t.Errorf("heard %s", got)
	}
	w.call2(t, "ann", "/v1/rooms/create", `{"conv_id":"c"}`)
	must(t, refusedAs(w.stream("ann", "?conv_id=c", false), ""))
	within(t, "stream", w.person("ann").events.pings, 5)
}

// TestSubprotocols: a WebSocket that offers subprotocols is accepted with the first.
func TestSubprotocols(t *testing.T) {
	w := newWorld(t)
	for offered, want := range map[string][]string{
		"": nil, "chat": {"chat"}, "a.b, c": {"a.b"}, " ,x": {"x"},
	} {
		r, err := http.NewRequest("GET", w.http.URL+"/v1/ws", nil)
		must(t, err)
		for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
			"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": offered} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		response, err := http.DefaultTransport.RoundTrip(r)
		must(t, err)
		response.Body.Close()
		got := response.Header.Values("Sec-WebSocket-Protocol")
		if response.StatusCode != http.StatusSwitchingProtocols || strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("%q: %d %q, want %q", offered, response.StatusCode, got, want)
		}
	}
}
