package gatewayserver

import (
	"context"
	"fmt"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/testsize"
)

// narrow is a listener whose connections have small buffers in the kernel, so that a
// peer that does not read stops the server's writes at once.
type narrow struct{ net.Listener }

func (l narrow) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		err = conn.(*net.TCPConn).SetWriteBuffer(4 << 10)
	}
	return conn, err
}

// narrowed serves the world on a narrow listener from now on.
func (w *world) narrowed() {
	w.t.Helper()
	front := httptest.NewUnstartedServer(w.server)
	front.Listener = narrow{front.Listener}
	front.Start()
	w.http.Close()
	w.http = front
}

// deaf opens a socket that reads nothing beyond session.ready, and says frames on it.
func (w *world) deaf(name string, features []string, frames ...string) {
	w.t.Helper()
	ws, network, err := dial(w.http.URL, nil)
	must(w.t, err)
	must(w.t, network.(*net.TCPConn).SetReadBuffer(4<<10))
	w.t.Cleanup(func() { _ = ws.CloseNow() })
	start, err := gateway.EncodeFrame(gateway.TypeSessionStart, nil,
		gateway.Start{AuthToken: w.token(name), DeviceID: "phone", Features: features})
	must(w.t, err)
	must(w.t, ws.Write(context.Background(), websocket.MessageText, start))
	_, ready, err := ws.Read(context.Background())
	must(w.t, err)
	if !strings.Contains(string(ready), gateway.TypeReady) {
		w.t.Fatalf("no session: %s", ready)
	}
	go func() {
		for _, frame := range frames {
			if ws.Write(context.Background(), websocket.MessageText, []byte(frame)) != nil {
				return // the test is over
			}
		}
	}()
}

// await waits until check holds for every open socket.
func (w *world) await(what string, sockets int, check func(c *socket) bool) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		n := 0
		w.server.connections.each(func(open connection) {
			if c, ok := open.(*socket); ok && check(c) {
				n++
			}
		})
		if n == sockets {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%d of %d sockets %s", n, sockets, what)
		}
	}
}

// patient lets stalled writes be for as long as a test takes.
func patient(s *setup) { s.door.WriteTimeout = time.Hour }

// TestUnansweredSendsHoldLittle: sockets whose answers nobody reads hold no more than the
// bounds of what is under way say, whatever their frames were.
func TestUnansweredSendsHoldLittle(t *testing.T) {
	sockets := 4
	if testsize.IsFull() {
		sockets = 40
	}
	w := newWorld(t, patient)
	w.narrowed()
	ann := ds.Caller{Account: ds.AccountID(w.person("ann").did)}
	must(t, w.core.CreateRoom(context.Background(), ann, "c", nil))
	for i := range 4 { // more than the kernel takes
		_, err := w.core.Send(context.Background(), ann, core.Message{ConversationID: "c", ID: ds.MessageID(fmt.Sprint(i)), Body: make([]byte, 64<<10), Encoding: ds.Binary})
		must(t, err)
	}
	id := strings.Repeat("i", 1000)
	long := strings.Repeat("m", gateway.FrameBytesMax-2<<10)
	frames := []string{`{"v":1,"t":"conv.subscribe","body":{"conv_id":"c","from_seq":1}}`}
	for i := range 3 * core.SendsUnderWayMax { // some are answered before the network is full
		frame := `{"v":1,"t":"conv.send","id":"` + id + `","body":{"conv_id":"c","msg_id":"` + long + `","env":"e"}}`
		switch i % 3 {
		case 1:
			frame = `{"v":1,"t":"conv.send","id":"` + id + `","body":{"conv_id":"` + long + `","msg_id":"m","env":"e"}}`
		case 2:
			frame = `{"v":1,"t":"conv.send","id":"` + id + `","body":{"conv_id":"c","msg_id":"m","env":7,"more":"` + long + `"}}`
		}
		frames = append(frames, frame)
	}
	before := heap()
	for range sockets {
		w.deaf("ann", nil, frames...)
	}
	w.await("have as much under way as one may", sockets, func(c *socket) bool {
		c.answers.mu.Lock()
		defer c.answers.mu.Unlock()
		return c.answers.isWaited
	})
	most := int64(sockets) * (core.SendBytesUnderWayMax + 4*gateway.FrameBytesMax) // and one frame in several forms
	if grown := heap() - before; grown > most {
		t.Errorf("%d sockets hold %d KiB, want at most %d", sockets, grown>>10, most>>10)
	} else {
		t.Logf("%d sockets hold %d KiB", sockets, grown>>10)
	}
}
