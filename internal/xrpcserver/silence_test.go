package xrpcserver

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/xrpc"
)

// TestNoSilence: something is written to an idle subscription at each heartbeat, over
// WebSocket and as server-sent events.
func TestNoSilence(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.door.Heartbeat = 100 * time.Millisecond })
	w.room("c1", "ann")
	beats := make(chan struct{}, 1000)
	s := w.subscribeBy(&websocket.DialOptions{OnPingReceived: func(context.Context, []byte) bool {
		beats <- struct{}{}
		return true
	}}, "ann", "", "c1")
	go func() {
		if _, _, err := s.ws.Read(context.Background()); err == nil {
			t.Error("a ping is a message")
		}
	}()
	late := time.After(20 * time.Second)
	for range 5 {
		select {
		case <-beats:
		case <-late:
			t.Fatal("silence")
		}
	}
	r := w.request("ann", xrpc.SubscribeEvents, params("convoId", "c1"))
	r.Header.Set("Accept", "text/event-stream")
	response, err := http.DefaultClient.Do(r)
	must(t, err)
	defer response.Body.Close()
	for name, want := range map[string]string{"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store, no-transform",
		"Content-Encoding": "identity", "X-Accel-Buffering": "no"} {
		if got := response.Header.Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	var text []byte
	for strings.Count(string(text), ": alive\n\n") < 5 {
		piece := make([]byte, 100)
		n, err := response.Body.Read(piece)
		must(t, err)
		text = append(text, piece[:n]...)
	}
}

// TestSubprotocols: a WebSocket that offers subprotocols is accepted with the one that has
// a meaning here, or else with the first.
func TestSubprotocols(t *testing.T) {
	w := newWorld(t)
	w.room("c1", "ann")
	for _, test := range []struct{ offered, want string }{
		{"", ""}, {"chat", "chat"}, {"a.b,c", "a.b"}, {jsonProtocol, jsonProtocol}, {"a," + jsonProtocol, jsonProtocol},
	} {
		o := &websocket.DialOptions{}
		if test.offered != "" {
			o.Subprotocols = strings.Split(test.offered, ",")
		}
		ws, _, err := w.dial("ticket="+w.ticket("ann", "c1"), o)
		must(t, err)
		if got := ws.Subprotocol(); got != test.want {
			t.Errorf("%q: %q, want %q", test.offered, got, test.want)
		}
		must(t, ws.Close(websocket.StatusNormalClosure, ""))
	}
}

// TestBadClose: a close whose reason is not UTF-8 is answered 1007, and a length that is
// written in more bytes than it takes 1002.
func TestBadClose(t *testing.T) {
	w := newWorld(t)
	w.room("c1", "ann")
	for bytes, want := range map[string]websocket.StatusCode{
		"\x88\x83\x00\x00\x00\x00\x03\xe8\xff": 1007,
		"\x81\xfe\x00\x02\x00\x00\x00\x00{}":   1002,
	} {
		var network net.Conn
		transport := &http.Transport{DialContext: func(ctx context.Context, n, address string) (_ net.Conn, err error) {
			network, err = (&net.Dialer{}).DialContext(ctx, n, address)
			return network, err
		}}
		ws, _, err := w.dial("ticket="+w.ticket("ann", "c1"), &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
		must(t, err)
		_, err = io.WriteString(network, bytes)
		must(t, err)
		if _, _, err := ws.Read(context.Background()); websocket.CloseStatus(err) != want {
			t.Errorf("%q: %v, want %d", bytes, err, want)
		}
	}
}
