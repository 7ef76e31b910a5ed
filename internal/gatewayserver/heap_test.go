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
	"waxwing.im/waxwing/internal/testwait"
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
	ws, network, err := w.dial(nil)
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
	testwait.Until(w.t, fmt.Sprintf("%d sockets %s", sockets, what), func() bool {
		n := 0
		w.server.connections.Each(func(open connection) {
			if c, ok := open.(*socket); ok && check(c) {
				n++
			}
		})
		return n == sockets
	})
}

// patient lets stalled writes be for as long as a test takes.
func patient(s *setup) { s.door.WriteTimeout = time.Hour }

// TestUnansweredSendsHoldLittle: sockets that do not read their answers hold no more than the
// bounds of unanswered sends, for any frames.
func TestUnansweredSendsHoldLittle(t *testing.T) {
	sockets := testsize.Of(2, 40)
	w := newWorld(t, patient)
	w.narrowed()
	ann := ds.Caller{Account: ds.AccountID(w.person("ann").did)}
	must(t, w.apply(ann, core.Create{ConversationID: "c", Accounts: nil}))
	for i := range 4 { // more than the kernel takes
		_, err := w.core.Apply(context.Background(), ann, core.Send{ConversationID: "c", ID: ds.MessageID(fmt.Sprint(i)), Body: make([]byte, 64<<10), Encoding: ds.Binary})
		must(t, err)
	}
	id := strings.Repeat("i", 1000)
	long := strings.Repeat("m", gateway.FrameBytesMax-2<<10)
	frames := []string{`{"v":1,"t":"conv.subscribe","body":{"conv_id":"c","from_seq":1}}`}
	for i := range 3 * sendsUnderWayMax { // some are answered before the network is full
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
	most := int64(sockets) * (sendBytesUnderWayMax + 4*gateway.FrameBytesMax) // and one frame in several forms
	if grown := heap() - before; grown > most {
		t.Errorf("%d sockets hold %d KiB, want at most %d", sockets, grown>>10, most>>10)
	} else {
		t.Logf("%d sockets hold %d KiB", sockets, grown>>10)
	}
}

// TestConnectionsOfOneAccount: an account has so many sockets and streams and no more, and
// others have theirs.
func TestConnectionsOfOneAccount(t *testing.T) {
	w := newWorld(t)
	w.start("ann")
	ann := ds.AccountID(w.person("ann").did)
	for range accountConnectionsMax - 2 {
		must(t, w.server.connections.Enter(ann))
	}
	stream := func() string { return w.stream("ann", "?all=1", false) }
	w.deaf("ann", nil)
	if answer := stream(); answer != "" {
		t.Fatal(answer)
	}
	_, status, answer := openEvents(t, w.http.URL, w.person("ann").session, "?all=1", "")
	if want := `{"code":"limit_exceeded","message":"at most 1024 connections of one account","retry_after_s":0}`; status != 429 || answer != want {
		t.Errorf("one stream more: %d %s", status, answer)
	}
	start, err := gateway.EncodeFrame(gateway.TypeSessionStart, gateway.StringID("s"), gateway.Start{AuthToken: w.token("ann"), DeviceID: "phone"})
	must(t, err)
	w.open("ann")
	w.say("ann", string(start))
	if frame := w.hear("ann"); !strings.Contains(frame, `"t":"error","id":"s","body":{"code":"limit_exceeded"`) {
		t.Errorf("one socket more: %s", frame)
	}
	if frame := w.hear("ann"); frame != "closed 1000" {
		t.Errorf("and then: %s", frame)
	}
	w.join("bob")
	w.person("ann").events.stop()
	w.person("ann").events = nil
	testwait.Until(t, "the account may open another stream", func() bool { return stream() == "" })
}

// TestDeafReadersHoldLittle: readers that read nothing hold little memory for any request, and
// other readers are served meanwhile.
func TestDeafReadersHoldLittle(t *testing.T) {
	readers := testsize.Of(30, 300)
	onBoth(t, func(t *testing.T, url string) {
		w := newWorldOn(t, url, patient)
		w.narrowed()
		w.largeRoom()
		texts := 12
		for i := range texts { // the longest that the gateway takes, and pages of them
			ann := ds.Caller{Account: ds.AccountID(w.person("ann").did)}
			_, err := w.core.Apply(context.Background(), ann, core.Send{ConversationID: "c", ID: ds.MessageID(fmt.Sprint("t", i)),
				Body: []byte(strings.Repeat("\U0001F600", 250_000)), Encoding: ds.Text})
			must(t, err)
		}
		before := heap()
		features := [][]string{nil, {gateway.FeatureLarge}, {gateway.FeatureDevice, gateway.FeatureMarker}}
		for i := range readers {
			name := fmt.Sprint("reader", i%10)
			if i < 10 {
				must(t, w.apply(ds.Caller{Account: ds.AccountID(w.person("ann").did)}, core.Invite{ConversationID: "c", Accounts: []ds.AccountID{ds.AccountID(w.person(name).did)}}))
			}
			w.deaf(name, features[i%3], fmt.Sprintf(`{"v":1,"t":"conv.subscribe","body":{"conv_id":"c","from_seq":%d}}`, 1+i%texts))
		}
		w.join("bob").ws.SetReadLimit(gateway.FrameBytesMax)
		w.say("bob", `{"v":1,"t":"conv.subscribe","body":{"conv_id":"c","from_seq":1}}`)
		for i := range texts {
			if e := heardEvent(t, w.hear("bob")); e.Seq != int64(i+1) || e.Omitted != nil {
				t.Fatalf("bob reads %d in place of %d", e.Seq, i+1)
			}
		}
		grown, most := heap()-before, int64(160<<20)
		if grown > most {
			t.Errorf("%d readers hold %d KiB, want at most %d", readers, grown>>10, most>>10)
		}
		t.Logf("%d readers hold %d KiB", readers, grown>>10)
	})
}
