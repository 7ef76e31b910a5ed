package gatewayserver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/memnet"
	"waxwing.im/waxwing/internal/testmetric"
	"waxwing.im/waxwing/internal/testwait"
)

func TestHostileMessages(t *testing.T) {
	w := newWorld(t)
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	tests := []struct {
		name     string
		isBinary bool
		message  string
		first    string // what is heard if it is the first message, and …
		later    string // … if it comes in a session
	}{
		{"binary", true, `{"v":1,"t":"ping"}`, "closed 1002", "closed 1003"},
		{"not UTF-8", false, "{\"v\":1,\"t\":\"\xff\"}", "closed 1007", "closed 1007"},
		{"too long", false, `{"v":1,"t":"ping","x":"` + strings.Repeat("x", gateway.FrameBytesMax) + `"}`, "closed 1009", "closed 1009"},
		{"empty", false, "", "closed 1002", "malformed json"},
		{"rubbish", false, "\x00\x01", "closed 1002", "malformed json"},
		{"list", false, "[]", "closed 1002", "invalid frame envelope"},
		{"null", false, "null", "closed 1002", "invalid frame envelope"},
		{"too deep", false, `{"v":1,"t":"ping","x":` + deep(32) + `}`, "nested too deep", "nested too deep"},
		{"very deep", false, strings.Repeat("[", gateway.FrameBytesMax), "nested too deep", "nested too deep"},
		{"NUL", false, `{"v":1,"t":"ping","id":"\u0000"}`, "a string holds NUL", "a string holds NUL"},
		{"NUL, with an id", false, `{"v":1,"t":"ping","x":"\u0000","id":"a"}`, `"id":"a","body":{"code":"invalid_request","message":"a string holds NUL"`, `"id":"a","body":{"code":"invalid_request","message":"a string holds NUL"`},
		{"lone surrogate, with an id", false, `{"v":1,"t":"ping","id":7,"x":"\udfff"}`, `"id":7,"body":{"code":"invalid_request"`, `"id":7,"body":{"code":"invalid_request"`},
		{"too deep, with an id", false, `{"v":1,"t":"ping","x":` + deep(32) + `,"id":"a"}`, `"id":"a","body":{"code":"invalid_request","message":"nested too deep"`, `"id":"a","body":{"code":"invalid_request","message":"nested too deep"`},
		{"lone surrogate", false, `{"v":1,"t":"ping","x":"\udfff"}`, "unpaired surrogate", "unpaired surrogate"},
		{"version as text", false, `{"v":"1","t":"session.start"}`, "unsupported version", "unsupported version"},
		{"version true", false, `{"v":true,"t":"session.start"}`, "unsupported version", "unsupported version"},
		{"names in capitals", false, `{"V":1,"T":"ping"}`, "unsupported version", "unsupported version"},
		{"many names", false, `{"v":1,"t":"ping"` + strings.Repeat(`,"a":0`, 100000) + `}`, "first frame must start session", `"t":"pong"`},
		{"as deep as allowed", false, `{"v":1,"t":"ping","x":` + deep(31) + `}`, "first frame must start session", `"t":"pong"`},
		{"doubled names", false, `{"v":2,"v":1,"t":"x","t":"ping"}`, "first frame must start session", `"t":"pong"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			kind := websocket.MessageText
			if test.isBinary {
				kind = websocket.MessageBinary
			}
			for i, want := range []string{test.first, test.later} {
				w.open("ann")
				if i == 1 {
					w.join("ann")
				}
				must(t, w.person("ann").ws.Write(context.Background(), kind, []byte(test.message)))
				if got := w.hear("ann"); !strings.Contains(got, want) {
					t.Errorf("got %s, want %s", got, want)
				}
				if i == 1 && !strings.HasPrefix(want, "closed") {
					w.say("ann", `{"v":1,"t":"ping"}`)
					if got := w.hear("ann"); got != `{"v":1,"t":"pong"}` {
						t.Errorf("the socket did not stay: %s", got)
					}
				}
			}
		})
	}
}

// TestBreaksOfTheProtocol writes below the WebSocket.
func TestBreaksOfTheProtocol(t *testing.T) {
	w := newWorld(t)
	tests := []struct {
		name  string
		bytes []byte
	}{
		{"unmasked", []byte{0x81, 2, '{', '}'}},
		{"reserved bit", []byte{0xC1, 0x82, 0, 0, 0, 0, '{', '}'}},
		{"unknown opcode", []byte{0x83, 0x80, 0, 0, 0, 0}},
		{"continuation of nothing", []byte{0x80, 0x80, 0, 0, 0, 0}},
		{"endless length", []byte{0x81, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0}},
		{"long ping", append([]byte{0x89, 0xFE, 0, 200, 0, 0, 0, 0}, make([]byte, 200)...)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := w.join("ann")
			_, err := p.network.Write(test.bytes)
			must(t, err)
			if got := w.hear("ann"); !strings.HasPrefix(got, "closed") {
				t.Errorf("got %s", got)
			}
		})
	}
}

// TestBadClose: a close whose reason is not UTF-8 is answered 1007, and a length that is
// written in more bytes than it takes 1002; what came before it is handled.
func TestBadClose(t *testing.T) {
	w := newWorld(t)
	for bytes, want := range map[string]string{
		"\x88\x83\x00\x00\x00\x00\x03\xe8\xff":                       "closed 1007",
		"\x88\x84\x00\x00\x00\x00\x03\xe8ok":                         "closed 1000",
		"\x81\xfe\x00\x02\x00\x00\x00\x00{}":                         "closed 1002",
		"\x81\xff\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00{}": "closed 1002",
		"\x88\xfe\x00\x03\x00\x00\x00\x00\x03\xe8o":                  "closed 1002",
		"\x8a\xfe\x00\x00\x00\x00\x00\x00":                           "closed 1002",
	} {
		p := w.join("ann")
		_, err := io.WriteString(p.network, "\x81\x94\x00\x00\x00\x00"+`{"v":1,"t":"ping"}  `+bytes)
		must(t, err)
		if got := w.hear("ann"); got != pong {
			t.Errorf("%q: before it %s", bytes, got)
		}
		if got := w.hear("ann"); got != want {
			t.Errorf("%q: %s, want %s", bytes, got, want)
		}
	}
}

// TestEarlyFrames is a client that does not wait for the upgrade.
func TestEarlyFrames(t *testing.T) {
	w := newWorld(t)
	network, err := net.Dial("tcp", strings.TrimPrefix(w.http.URL, "http://"))
	must(t, err)
	defer network.Close()
	frame := func(text string) string {
		if len(text) < 126 {
			return string([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}) + text
		}
		return string([]byte{0x81, 0xFE, byte(len(text) >> 8), byte(len(text)), 0, 0, 0, 0}) + text
	}
	_, err = io.WriteString(network, "GET /v1/ws HTTP/1.1\r\nHost: x\r\nOrigin: https://elsewhere.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"+
		frame(`{"v":1,"t":"session.start","body":{"auth_token":"`+w.token("ann")+`","device_id":"d"}}`)+frame(`{"v":1,"t":"ping"}`))
	must(t, err)
	must(t, network.SetReadDeadline(time.Now().Add(10*time.Second)))
	var got []byte
	for !strings.Contains(string(got), `"pong"`) {
		piece := make([]byte, 4096)
		n, err := network.Read(piece)
		must(t, err)
		got = append(got, piece[:n]...)
	}
	if text := string(got); !strings.Contains(text, "101 Switching") || !strings.Contains(text, "session.ready") || strings.Contains(text, "deflate") {
		t.Errorf("got %s", text)
	}
}

func TestFramesInPieces(t *testing.T) {
	w := newWorld(t)
	p := w.join("ann")
	writer, err := p.ws.Writer(context.Background(), websocket.MessageText)
	must(t, err)
	for _, piece := range []string{`{"v":1,`, `"t":"pi`, `ng","id":"x"}`} {
		_, err = io.WriteString(writer, piece)
		must(t, err)
	}
	must(t, writer.Close())
	if got := w.hear("ann"); got != `{"v":1,"t":"pong","id":"x"}` {
		t.Errorf("got %s", got)
	}
}

func TestLargestFrame(t *testing.T) {
	w := newWorld(t)
	w.join("ann")
	frame := `{"v":1,"t":"ping","x":"` + strings.Repeat("x", gateway.FrameBytesMax-25) + `"}`
	if len(frame) != gateway.FrameBytesMax {
		t.Fatal(len(frame))
	}
	w.say("ann", frame)
	if got := w.hear("ann"); got != `{"v":1,"t":"pong"}` {
		t.Errorf("got %s", got)
	}
}

// inBubble runs a test in virtual time, in a world on a network of memory.
func inBubble(t *testing.T, test func(w *world), change func(s *setup)) {
	synctest.Test(t, func(t *testing.T) {
		test(newWorld(t, change, func(s *setup) { s.memory = &memnet.Network{} }))
	})
}

func TestHeartbeat(t *testing.T) {
	for _, name := range []string{"silent before the session", "silent", "answering"} {
		inBubble(t, func(w *world) {
			w.open("ann")
			if name != "silent before the session" {
				w.join("ann")
			}
			for pings := range 8 {
				got := w.hear("ann")
				if got != `{"v":1,"t":"ping"}` {
					if name == "answering" || pings != 3 || got != "closed 1001" {
						t.Errorf("%s: %s after %d pings", name, got, pings)
					}
					break
				}
				if name == "answering" {
					w.say("ann", `{"v":1,"t":"pong"}`)
				}
			}
		}, func(s *setup) { s.door.PingInterval = time.Second })
	}
}

func TestNoSessionInTime(t *testing.T) {
	inBubble(t, func(w *world) {
		w.open("ann")
		for got := ""; got != "closed 1008"; got = w.hear("ann") {
			if got != "" && got != `{"v":1,"t":"ping"}` {
				t.Fatal(got)
			}
		}
	}, func(s *setup) { s.door.HandshakeTimeout, s.door.PingInterval = 5*time.Second, 4*time.Second })
}

func TestDrain(t *testing.T) {
	w := newWorld(t)
	w.join("ann", gateway.FeatureDrain)
	w.join("bob")
	w.open("carol")
	ended := make(chan error, 1)
	go func() { ended <- w.server.Shutdown(context.Background()) }()
	if got := w.hear("ann"); !strings.HasPrefix(got, `{"v":1,"t":"drain","body":{"reconnect_after_ms":1`) {
		t.Errorf("got %s", got)
	}
	for _, name := range []string{"ann", "bob", "carol"} {
		if got := w.hear(name); got != "closed 1001" {
			t.Errorf("%s: %s", name, got)
		}
	}
	must(t, <-ended)
	if status, answer, header := w.call("", "GET", "/v1/ws", ""); status != 503 || header.Get("Retry-After") != "1" {
		t.Errorf("got %d %s", status, answer)
	}
}

// TestShutdownCutsOff is a peer that says nothing to the goodbye.
func TestShutdownCutsOff(t *testing.T) {
	w := newWorld(t)
	w.join("ann")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := w.server.Shutdown(ctx); err == nil {
		t.Error("nothing was said of the socket that was cut off")
	}
}

func TestSessionEnds(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.door.PingInterval = time.Minute })
	p := w.join("ann")
	session, err := w.server.identity.Session(context.Background(), p.session)
	must(t, err)
	must(t, w.server.identity.Logout(context.Background(), session))
	if got := w.hear("ann"); got != `{"v":1,"t":"error","body":{"code":"unauthorized","message":"invalid session_token"}}` {
		t.Errorf("got %s", got)
	}
	if got := w.hear("ann"); got != "closed 1008" {
		t.Errorf("got %s", got)
	}
}

// event holds the fields of a frame that stories compare.
type event struct {
	Type string `json:"t"`
	Body struct {
		Seq     int64  `json:"seq"`
		MsgID   string `json:"msg_id"`
		Message string `json:"message"`
	} `json:"body"`
}

func (w *world) hearEvent(name string) event {
	w.t.Helper()
	var e event
	text := w.hear(name)
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		w.t.Fatalf("%s hears %s", name, text)
	}
	return e
}

// fillLog puts n messages into a conversation of name's, many at a time.
func (w *world) fillLog(t *testing.T, name, conversation, env string, n int) {
	t.Helper()
	who := ds.Caller{Account: ds.AccountID(w.person(name).did), Device: "phone"}
	var sending sync.WaitGroup
	for i := range n {
		sending.Go(func() {
			_, err := w.core.Apply(context.Background(), who, core.Send{ConversationID: ds.ConversationID(conversation),
				ID: ds.MessageID(fmt.Sprint("filler ", i)), Body: []byte(env)})
			if err != nil {
				t.Error(err)
			}
		})
	}
	sending.Wait()
}

// TestLongReplay: a reader that is 1300 messages behind and is cut off repeatedly, while
// another client sends, receives every message, in order, once per follow.
func TestLongReplay(t *testing.T) {
	w := newWorld(t)
	w.join("ann")
	w.start("bob")
	w.call2(t, "ann", "/v1/rooms/create", `{"conv_id":"c","members":["`+w.person("bob").did+`"]}`)
	const behind, live = 1300, 60
	w.fillLog(t, "ann", "c", "e", behind)
	var sending sync.WaitGroup
	sending.Go(func() {
		for i := range live {
			w.say("ann", fmt.Sprintf(`{"v":1,"t":"conv.send","body":{"conv_id":"c","msg_id":"live %d","env":"e"}}`, i))
		}
		for i := range live {
			if e := w.hearEvent("ann"); e.Type != "conv.acked" || e.Body.Seq != int64(behind+1+i) || e.Body.MsgID != fmt.Sprint("live ", i) {
				t.Errorf("got %+v", e)
				return
			}
		}
	})
	next, rounds, seen := int64(1), 0, map[string]bool{}
	for next <= behind+live {
		w.open("bob")
		w.say("bob", w.fill(`{"v":1,"t":"session.resume","body":{"resume_token":"$resume(bob)"}}`))
		w.hear("bob")
		w.say("bob", `{"v":1,"t":"conv.subscribe","body":{"conv_id":"c"}}`)
		for range 250 {
			if next > behind+live {
				break
			}
			e := w.hearEvent("bob")
			if e.Type != "conv.event" || e.Body.Seq != next || seen[e.Body.MsgID] {
				t.Fatalf("want %d, got %+v", next, e)
			}
			next, seen[e.Body.MsgID] = next+1, true
		}
		w.say("bob", fmt.Sprintf(`{"v":1,"t":"conv.ack","body":{"conv_id":"c","seq":%d}}`, next-1))
		w.say("bob", `{"v":1,"t":"ping"}`)
		for w.hearEvent("bob").Type != "pong" { // what was already under way comes again
		}
		w.person("bob").cut()
		rounds++
	}
	sending.Wait()
	if rounds < 5 {
		t.Errorf("only %d rounds", rounds)
	}
}

// call2 makes a call that must be done.
func (w *world) call2(t *testing.T, name, path, body string) {
	t.Helper()
	if w.person(name).session == "" {
		w.start(name)
	}
	if status, answer, _ := w.call(name, "POST", path, body); status != 200 {
		t.Fatalf("%s: %d %s", path, status, answer)
	}
}

// TestSlowReader: a peer that reads nothing while a long log is replayed to it costs little
// memory, does not affect others, and is cut off in the end.
func TestSlowReader(t *testing.T) {
	registry := prometheus.NewRegistry()
	w := newWorld(t, func(s *setup) {
		s.door.WriteTimeout, s.door.Registerer = 300*time.Millisecond, registry
	})
	w.start("ann")
	w.call2(t, "ann", "/v1/rooms/create", `{"conv_id":"c"}`)
	w.fillLog(t, "ann", "c", strings.Repeat("x", 200_000), 80)
	before := heap()
	p := w.join("ann")
	must(t, p.network.(*net.TCPConn).SetReadBuffer(4096))
	w.say("ann", `{"v":1,"t":"conv.subscribe","body":{"conv_id":"c"}}`)
	testwait.Until(t, "a stalled socket is cut off", func() bool { return closes(t, registry, causeStalled) > 0 })
	testwait.Until(t, "it is a slow reader", func() bool { return testmetric.Value(t, w.server.metrics.slow) == 1 })
	if grown := heap() - before; grown > 8<<20 {
		t.Errorf("a slow reader holds %d bytes", grown)
	}
	w.join("bob")
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func closes(t *testing.T, registry *prometheus.Registry, cause string) float64 {
	families, err := registry.Gather()
	must(t, err)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == "waxwing_transport_closes_total" && m.GetLabel()[0].GetValue() == cause {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// TestEventFrames compares the hand-made conv.event with what the wire type says.
func TestEventFrames(t *testing.T) {
	for _, test := range eventRecords {
		for _, extended := range []bool{false, true} {
			want := gateway.Event{ConvID: "c\"\n", Seq: test.Seq, MsgID: string(test.MessageID), Env: textOf(test.Body, test.Encoding),
				SenderDeviceID: string(test.Sender.ID), ConvHome: "home<", OriginGateway: "did"}
			if extended {
				want.Kind, want.Epoch = test.Kind.String(), &test.Epoch
			}
			var reader identity.Session
			if extended {
				reader.Features = gateway.Features
			}
			writer := newEventFrame("c\"\n", "home<", "did", reader)
			frame, err := gateway.DecodeFrame(writer.append(nil, &test))
			must(t, err)
			var got gateway.Event
			must(t, frame.Decode(&got))
			if frame.Type != gateway.TypeEvent || !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		}
	}
}
