package gatewayserver

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/internal/doors"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/testwait"
)

// clientFrame is a masked frame of RFC 6455, section 5.2, with a mask of zeros.
func clientFrame(isLast bool, opcode byte, payload string) []byte {
	first := opcode
	if isLast {
		first |= 0x80
	}
	if len(payload) < 126 {
		return append([]byte{first, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...)
	}
	return append([]byte{first, 0xFE, byte(len(payload) >> 8), byte(len(payload)), 0, 0, 0, 0}, payload...)
}

// flood writes again and again until the other end has gone.
func flood(network net.Conn, data []byte, pause time.Duration) (gone <-chan struct{}) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, err := network.Write(data); err != nil {
				return
			}
			time.Sleep(pause)
		}
	}()
	return done
}

// TestSocketAttacks does below a WebSocket what no client does. Each attacker is gone
// in the end, for the reason that is counted, holds no memory, and meanwhile everybody
// else is answered.
func TestSocketAttacks(t *testing.T) {
	tests := []struct {
		name  string
		cause string
		write []byte // again and again
		pause time.Duration
	}{
		{"pings of the protocol, never reading", causeStalled, bytes.Repeat(clientFrame(true, 0x9, strings.Repeat("p", 125)), 1000), 0},
		{"ping frames, never reading", causeStalled, bytes.Repeat(clientFrame(true, 0x1, `{"v":1,"t":"ping","id":"`+strings.Repeat("p", 900)+`"}`), 100), 0},
		{"sends that are refused, never reading", causeStalled, bytes.Repeat(clientFrame(true, 0x1, `{"v":1,"t":"conv.send","id":"`+strings.Repeat("p", 900)+`","body":{}}`), 100), 0},
		{"a message that never ends", causeProtocol, bytes.Repeat(clientFrame(false, 0x0, strings.Repeat("x", 1000)), 50), 0},
		{"empty fragments without end", causeHeartbeat, bytes.Repeat(clientFrame(false, 0x0, ""), 50), time.Millisecond},
		{"a byte now and then", causeHeartbeat, []byte("x"), 20 * time.Millisecond},
		{"pongs nobody asked for", causeHeartbeat, bytes.Repeat(clientFrame(true, 0xA, "p"), 50), time.Millisecond},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			w := newWorld(t, func(s *setup) {
				s.door.Registerer, s.door.WriteTimeout, s.door.PingInterval = registry, 300*time.Millisecond, time.Hour
				if test.cause == causeHeartbeat {
					s.door.PingInterval = 100 * time.Millisecond
				}
			})
			p := w.join("ann")
			before := heap()
			switch { // how the endless message begins
			case strings.HasPrefix(test.name, "a byte"):
				_, err := p.network.Write(clientFrame(true, 0x1, strings.Repeat("x", 1000))[:8])
				must(t, err)
			case test.write[0]&0x0F == 0:
				_, err := p.network.Write(clientFrame(false, 0x1, `{"v":1,"x":"`))
				must(t, err)
			}
			gone := flood(p.network, test.write, test.pause)
			testwait.Until(t, "the attacker is cut off", func() bool {
				if status, _, _ := w.call("", "GET", "/healthz", ""); status != 200 {
					t.Errorf("others hear %d", status)
				}
				return closes(t, registry, test.cause) > 0
			})
			if grown := heap() - before; grown > 8<<20 {
				t.Errorf("the attacker held %d bytes", grown)
			}
			if test.cause != causeStalled {
				must(t, p.network.Close()) // else the server waits for a goodbye, for a while
			}
			<-gone
		})
	}
}

// TestManySubscribes: ten thousand of them in a row cost what the limit lets through;
// the others are refused one by one, and the socket stays.
func TestManySubscribes(t *testing.T) {
	const subscribes, allowed = 10_000, 1200
	w := newWorld(t, limited(t, fmt.Sprintf("%s=%d/m", limits.Subscribes, allowed)))
	w.join("ann")
	w.call2(t, "ann", "/v1/rooms/create", `{"conv_id":"c"}`)
	go func() {
		for i := range subscribes {
			w.say("ann", fmt.Sprintf(`{"v":1,"t":"conv.subscribe","id":"%d","body":{"conv_id":"c"}}`, i))
		}
		w.say("ann", `{"v":1,"t":"ping"}`)
	}()
	for i := allowed; i < subscribes; i++ {
		if a := w.hearAnswer("ann"); a.ID != fmt.Sprint(i) || a.Body.Code != "rate_limited" {
			t.Fatalf("subscribe %d: %+v", i, a)
		}
	}
	if got := w.hear("ann"); got != `{"v":1,"t":"pong"}` {
		t.Error(got)
	}
}

// holds waits until what has arrived from an address, or from all for "", and is not
// handled yet, comes to n bytes. A frame's count until its answer is written.
func (w *world) holds(address string, n int64) {
	w.t.Helper()
	testwait.Until(w.t, fmt.Sprintf("%q holds %d bytes", address, n), func() bool {
		got, total := w.server.intake.Held(address)
		if address == "" {
			got = total
		}
		return got == n
	})
}

// exhaust takes all there is for bodies once nothing is held any more, as if many
// addresses and accounts had brought some. The function that it returns gives it back.
func (w *world) exhaust() (release func()) {
	w.t.Helper()
	w.holds("", 0)
	const share = doors.AccountBodyBytesMax
	var owners []doors.Owner
	for i := range doors.TotalBodyBytesMax / share {
		o := doors.Owner{Account: ds.AccountID(fmt.Sprint("did:ex:", i))}
		must(w.t, w.server.intake.Take(o, share))
		owners = append(owners, o)
	}
	return func() {
		for _, o := range owners {
			w.server.intake.Release(o, share)
		}
	}
}

// TestBodiesInMemory: bodies that arrive and do not end are counted under the address
// that they come from, and refused there when they are too many, with a time to come
// back; everybody else is let through, and so is that address once they are gone.
func TestBodiesInMemory(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.door.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	token := w.start("ann").session
	const size = 15 << 20 // of the 16 MiB that are announced
	type attempt struct {
		network net.Conn
		answer  *bufio.Reader
	}
	post := func(address, token string) attempt {
		network, err := net.Dial("tcp", strings.TrimPrefix(w.http.URL, "http://"))
		must(t, err)
		t.Cleanup(func() { network.Close() })
		_, err = fmt.Fprintf(network, "POST /v1/inbox HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %s\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n", address, token, 16<<20)
		must(t, err)
		_, _ = network.Write(make([]byte, size)) // ends early when it is refused
		return attempt{network, bufio.NewReader(network)}
	}
	var stalled []attempt
	for range doors.AddressBodyBytesMax / size {
		stalled = append(stalled, post("192.0.2.1", token))
	}
	w.holds("192.0.2.1", int64(len(stalled))*(size-doors.FreeBytes))
	one := post("192.0.2.1", w.start("bob").session)
	response, err := http.ReadResponse(one.answer, nil)
	must(t, err)
	answer, err := io.ReadAll(response.Body)
	must(t, err)
	if response.StatusCode != 429 || response.Header.Get("Retry-After") != "1" || !strings.Contains(string(answer), `"retry_after_s":1}`) {
		t.Errorf("got %d %v %s", response.StatusCode, response.Header, answer)
	}
	again := post("192.0.2.2", token)
	if response, err = http.ReadResponse(again.answer, nil); err != nil || response.StatusCode != 429 {
		t.Errorf("more of the account: %v, %v", response, err)
	}
	other := post("192.0.2.2", w.person("bob").session)
	w.holds("192.0.2.2", size-doors.FreeBytes)
	other.network.Close()
	for _, a := range stalled {
		a.network.Close()
	}
	w.holds("192.0.2.1", 0)
	w.holds("192.0.2.2", 0)
	release := w.exhaust()
	for _, path := range []string{"/v1/session/start", "/v1/inbox", "/v1/keypackages"} {
		body := `{"x":"` + strings.Repeat("x", doors.FreeBytes) + `"}`
		if status, answer, header := w.call("ann", "POST", path, body); status != 503 || header.Get("Retry-After") != "1" || !strings.Contains(answer, `"unavailable"`) {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
	if status, _, _ := w.call("ann", "GET", "/v1/conversations", ""); status != 200 {
		t.Errorf("a request without a body: %d", status)
	}
	w.start("ann") // what is small passes
	release()
}

// TestFramesInMemory: frames that arrive and do not end count as bodies do, before a
// session and in one. A frame that is too much is answered with when to send it again, and
// the socket stays; small frames pass whatever there is.
func TestFramesInMemory(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.door.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	const size = 1<<20 - 100 // of the MiB that is announced
	unfinished := append([]byte{0x81, 0xFF, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0}, make([]byte, size)...)
	begin := func(name, address string) net.Conn {
		p := w.openFrom(name, http.Header{"X-Forwarded-For": {address}})
		_, _ = p.network.Write(unfinished) // ends early when it is refused
		return p.network
	}
	const counted = size/doors.FreeBytes*doors.FreeBytes - doors.FreeBytes // whole pieces beyond the first
	var stalled []net.Conn
	for i := range doors.AddressStrangerBodyBytesMax / counted {
		stalled = append(stalled, begin(fmt.Sprint("eve", i), "192.0.2.1"))
	}
	w.holds("192.0.2.1", int64(len(stalled))*counted)
	begin("mallory", "192.0.2.1")
	_, _ = w.person("mallory").network.Write(make([]byte, 100)) // the rest, without a reader
	if got := w.hear("mallory"); !strings.Contains(got, `"code":"rate_limited"`) || !strings.Contains(got, `"retry_after_s":1}`) {
		t.Error(got)
	}
	other := begin("bob", "192.0.2.2")
	w.holds("192.0.2.2", counted)
	for _, network := range append(stalled, other) {
		network.Close()
	}
	w.holds("192.0.2.1", 0)
	w.holds("192.0.2.2", 0)

	w.join("ann")
	ping := func(bytes int) string { return `{"v":1,"t":"ping","x":"` + strings.Repeat("x", bytes) + `"}` }
	for range 3 {
		w.say("ann", ping(900_000))
		if got := w.hear("ann"); got != `{"v":1,"t":"pong"}` {
			t.Error(got)
		}
	}
	release := w.exhaust()
	w.say("ann", ping(doors.FreeBytes/2))
	if got := w.hear("ann"); got != `{"v":1,"t":"pong"}` {
		t.Error(got)
	}
	for range 2 { // the socket stays
		w.say("ann", `{"v":1,"id":"7",`+ping(900_000)[1:])
		if got := w.hear("ann"); got != `{"v":1,"t":"error","id":"7","body":{"code":"unavailable","message":"try again","retry_after_s":1}}` {
			t.Error(got)
		}
	}
	release()
	w.say("ann", ping(900_000))
	if got := w.hear("ann"); got != `{"v":1,"t":"pong"}` {
		t.Error(got)
	}
}

// TestNoFramesAreCounted: what is no frame, or none that a session knows, is a refusal
// like others, under a name that no client can choose.
func TestNoFramesAreCounted(t *testing.T) {
	registry := prometheus.NewRegistry()
	w := newWorld(t, func(s *setup) { s.door.Registerer = registry })
	w.join("ann")
	for _, frame := range []string{"{", `{"v":2}`, `{"v":1,"t":"mine"}`, `{"v":1,"t":"conv.commit","body":{}}`} {
		w.say("ann", frame)
		w.hear("ann")
	}
	for _, first := range []string{`{"v":2}`, `{"v":1,"t":"mine"}`} {
		w.open("eve")
		w.say("eve", first)
		w.hear("eve")
	}
	families, err := registry.Gather()
	must(t, err)
	counted := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == "waxwing_requests_total" {
				counted[m.GetLabel()[0].GetValue()+" "+m.GetLabel()[1].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	if len(counted) != 2 || counted["none invalid_request"] != 6 || counted["session.start ok"] != 1 {
		t.Errorf("counted %v", counted)
	}
}

// TestLimitsBehindAProxy: over a real socket, limits count the address that a trusted proxy
// reports, and ignore the reports of others.
func TestLimitsBehindAProxy(t *testing.T) {
	for _, isTrusted := range []bool{true, false} {
		w := newWorld(t, limited(t, limits.AddressResumes+"=2/m"), func(s *setup) {
			if isTrusted {
				s.door.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
			}
		})
		resume := func(forwarded string) int {
			request, err := http.NewRequestWithContext(context.Background(), "POST", w.http.URL+"/v1/session/resume", strings.NewReader(`{"resume_token":"rt_AAAAAAAAAAAAAAAAAAAAAA"}`))
			must(t, err)
			request.Header.Set("X-Forwarded-For", forwarded)
			response, err := http.DefaultClient.Do(request)
			must(t, err)
			response.Body.Close()
			return response.StatusCode
		}
		third := 401 // loopback is not counted
		if isTrusted {
			third = 429
		}
		for i, want := range []int{401, 401, third, third} {
			if got := resume("203.0.113.9, 192.0.2.1"); got != want {
				t.Errorf("trusted %t, resume %d: %d, want %d", isTrusted, i, got, want)
			}
		}
		if got := resume("203.0.113.9, 192.0.2.2"); got != 401 {
			t.Errorf("another address: %d", got)
		}
	}
}
