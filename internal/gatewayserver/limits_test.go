package gatewayserver

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/limits"
)

// limited sets limits of a world.
func limited(t *testing.T, assignments ...string) func(*setup) {
	return func(s *setup) {
		for _, a := range assignments {
			must(t, s.limits.Set(a))
		}
	}
}

// TestLimitsKeepTokens: a start or a resume that is refused for its rate leaves the
// token good for another try.
func TestLimitsKeepTokens(t *testing.T) {
	w := newWorld(t, limited(t, limits.SessionStarts+"=1/m", limits.Resumes+"=1/30s"))
	w.start("ann")
	body := fmt.Sprintf(`{"auth_token":"%s","device_id":"phone"}`, w.token("ann"))
	expect := func(path, body string, want int) string {
		t.Helper()
		status, answer, header := w.call("", "POST", path, body)
		if status != want {
			t.Fatalf("%s: %d %s, want %d", path, status, answer, want)
		}
		if after := header.Get("Retry-After"); status == 429 && (after == "" || !strings.Contains(answer, `"retry_after_s":`+after+`}`)) {
			t.Errorf("%s: %v %s", path, header, answer)
		}
		return answer
	}
	for range 3 {
		expect("/v1/session/start", body, 429)
	}
	if name := "bob"; w.start(name).session == "" { // the limit is per account
		t.Error(name)
	}
	w.later.Store(time.Minute.Milliseconds() - 100)
	expect("/v1/session/start", body, 429)
	w.later.Store(time.Minute.Milliseconds() + 1)
	w.remember("ann", expect("/v1/session/start", body, 200))
	expect("/v1/session/start", body, 429)
	w.later.Store(2*time.Minute.Milliseconds() + 2)
	expect("/v1/session/start", body, 401) // used up by now

	resume := func() string { return `{"resume_token":"` + w.person("ann").resume + `"}` }
	first := resume()
	w.remember("ann", expect("/v1/session/resume", first, 200))
	for range 2 {
		expect("/v1/session/resume", first, 429)
		expect("/v1/session/resume", resume(), 429)
	}
	w.later.Add((30 * time.Second).Milliseconds() + 1)
	w.remember("ann", expect("/v1/session/resume", first, 200)) // the successor was not presented yet: it was refused
	w.later.Add((30 * time.Second).Milliseconds() + 1)
	expect("/v1/session/resume", resume(), 200)
	w.later.Add((30 * time.Second).Milliseconds() + 1)
	expect("/v1/session/resume", first, 401)
}

// TestLimitsPerAddress: what is made up costs nothing, so strangers are counted by
// where they come from, good token or not. Accounts that were here before pass, and
// loopback is never counted.
func TestLimitsPerAddress(t *testing.T) {
	w := newWorld(t, limited(t, limits.AddressStarts+"=4/m", limits.AddressResumes+"=2/m", limits.FirstContacts+"=2/m"))
	call := func(address, path, body string) (int, string) {
		r := httptest.NewRequest("POST", path, strings.NewReader(body))
		r.RemoteAddr = address
		answer := httptest.NewRecorder()
		w.server.ServeHTTP(answer, r)
		if answer.Code == 429 && answer.Header().Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", path)
		}
		return answer.Code, answer.Body.String()
	}
	start := func(address, name string) int {
		status, _ := call(address, "/v1/session/start", fmt.Sprintf(`{"auth_token":"%s","device_id":"phone"}`, w.token(name)))
		return status
	}
	steps := []struct {
		address, name string
		want          int
	}{
		{"192.0.2.1:1", "a", 200}, {"192.0.2.1:2", "b", 200},
		{"192.0.2.1:3", "c", 429},                                                                   // the third stranger from there
		{"192.0.2.1:4", "a", 200},                                                                   // is known
		{"192.0.2.1:5", "c", 429},                                                                   // the fifth start from there
		{"192.0.2.1:6", "a", 200},                                                                   // is known
		{"192.0.2.2:1", "c", 200},                                                                   // elsewhere
		{"[2001:db8::1]:1", "d", 200}, {"[2001:db8::2]:1", "e", 200}, {"[2001:db8::3]:1", "f", 429}, // one /64
		{"[2001:db8:0:1::1]:1", "f", 200},
	}
	for i, step := range steps {
		if got := start(step.address, step.name); got != step.want {
			t.Errorf("%d: %s from %s: %d, want %d", i, step.name, step.address, got, step.want)
		}
	}
	for i := range 20 {
		if got := start("127.0.0.1:1", fmt.Sprint("l", i)); got != 200 {
			t.Fatalf("loopback: %d", got)
		}
	}
	for i, want := range []int{401, 401, 429, 429} {
		if got, answer := call("192.0.2.9:1", "/v1/session/resume", `{"resume_token":"rt_AAAAAAAAAAAAAAAAAAAAAA"}`); got != want {
			t.Errorf("resume %d: %d %s", i, got, answer)
		}
	}
	// A session behind that address goes on.
	w.start("l")
	if got, answer := call("192.0.2.9:1", "/v1/session/resume", `{"resume_token":"`+w.person("l").resume+`"}`); got != 200 {
		t.Errorf("the resume of a session: %d %s", got, answer)
	}
	// The same over a socket.
	network := &recorder{}
	c := newSocket(w.server, network, "", "192.0.2.9")
	c.receive(true, []byte(`{"v":1,"t":"session.resume","id":"1","body":{"resume_token":"rt_AAAAAAAAAAAAAAAAAAAAAA"}}`))
	c.cancel()
	if got := string(network.written[0]); got != `{"v":1,"t":"error","id":"1","body":{"code":"rate_limited","message":"rate limited","retry_after_s":30}}` {
		t.Error(got)
	}
}

// TestReportsAreCounted: a report is cheap to make up, on a socket and in the inbox.
func TestReportsAreCounted(t *testing.T) {
	w := newWorld(t, limited(t, limits.Reports+"=2/m"))
	w.join("ann", gateway.FeatureReport)
	report := `{"v":1,"t":"client.report","id":"1","body":{"kind":"gap"}}`
	w.say("ann", report)
	if status, answer, _ := w.call("ann", "POST", "/v1/inbox", report); status != 200 || answer != `{"status":"ok"}` {
		t.Error(status, answer)
	}
	w.say("ann", `{"v":1,"t":"ping"}`)
	w.hear("ann")
	if status, _, header := w.call("ann", "POST", "/v1/inbox", report); status != 429 || header.Get("Retry-After") != "30" {
		t.Error(status, header)
	}
	w.say("ann", report)
	if got := w.hear("ann"); got != `{"v":1,"t":"error","id":"1","body":{"code":"rate_limited","message":"rate limited","retry_after_s":30}}` {
		t.Error(got)
	}
}

// TestUsage: answers say what is left of the caller's own limits, the tightest one, and nothing of
// limits that others use up too.
func TestUsage(t *testing.T) {
	w := newWorld(t, limited(t, limits.Sends+"=3/m", limits.KeyPackageFetches+"=9/m", limits.KeyPackageTargets+"=2/m", limits.SessionStarts+"=2/m",
		limits.Resumes+"=4/m", limits.Lists+"=8/m", limits.RoomCreates+"=off", limits.StoredBytes+"=1000000/24h", limits.Streams+"=100/m"))
	usage := func(name, method, path, body string, status int, policy, left string) {
		t.Helper()
		got, answer, header := w.call(name, method, path, body)
		if got != status || header.Get("RateLimit-Policy") != policy || header.Get("RateLimit") != left {
			t.Errorf("%s: %d %s\n%q, want %q\n%q, want %q", path, got, answer, header.Get("RateLimit-Policy"), policy, header.Get("RateLimit"), left)
		}
	}
	start := fmt.Sprintf(`{"auth_token":"%s","device_id":"phone"}`, w.token("ann"))
	status, answer, header := w.call("", "POST", "/v1/session/start", start)
	if status != 200 || header.Get("RateLimit-Policy") != `"session_starts";q=2;w=60` || header.Get("RateLimit") != `"session_starts";r=1;t=30` {
		t.Errorf("%d %v", status, header)
	}
	w.remember("ann", answer)
	w.start("bob")
	status, answer, header = w.call("ann", "POST", "/v1/rooms/create", `{"conv_id":"r","members":["`+w.person("bob").did+`"]}`)
	if status != 200 || header.Get("RateLimit-Policy") != `"stored_bytes";q=1000000;w=86400` {
		t.Errorf("%d %s %v", status, answer, header)
	}
	send := func(id string) string {
		return `{"v":1,"t":"conv.send","body":{"conv_id":"r","msg_id":"` + id + `","env":"hello"}}`
	}
	usage("ann", "POST", "/v1/inbox", send("1"), 200, `"sends";q=3;w=60`, `"sends";r=2;t=20`)
	usage("ann", "POST", "/v1/inbox", send("1"), 200, "", "") // a repeat is not counted
	usage("ann", "POST", "/v1/inbox", send("2"), 200, `"sends";q=3;w=60`, `"sends";r=1;t=40`)
	usage("ann", "POST", "/v1/inbox", send("3"), 200, `"sends";q=3;w=60`, `"sends";r=0;t=20`)
	usage("ann", "POST", "/v1/inbox", send("4"), 429, `"sends";q=3;w=60`, `"sends";r=0;t=20`)
	usage("bob", "GET", "/v1/conversations", "", 200, `"conversation_lists";q=8;w=60`, `"conversation_lists";r=7;t=8`)
	fetch := `{"user_id":"` + w.person("ann").did + `","count":1}`
	usage("bob", "POST", "/v1/keypackages/fetch", fetch, 200, `"keypackage_fetches";q=9;w=60`, `"keypackage_fetches";r=8;t=7`)
	usage("bob", "GET", "/v1/rooms/members?conv_id=r", "", 200, "", "")
	usage("", "POST", "/v1/session/resume", `{"resume_token":"`+w.person("ann").resume+`"}`, 200, `"resumes";q=4;w=60`, `"resumes";r=3;t=15`)
}

// TestHandshakesOfAnAddress: sockets without a session from one address are bounded, and neither
// those with one nor those of other addresses are refused for them.
func TestHandshakesOfAnAddress(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.door.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	from := func(address string) http.Header { return http.Header{"X-Forwarded-For": {address}} }
	first := w.openFrom("eve0", from("192.0.2.1"))
	for i := range 255 {
		w.openFrom(fmt.Sprint("eve", i+1), from("192.0.2.1"))
	}
	dial := func() (status int) {
		_, answer, err := websocket.Dial(t.Context(), w.http.URL+"/v1/ws", &websocket.DialOptions{HTTPHeader: from("192.0.2.1")})
		if err == nil || answer == nil {
			t.Fatalf("a socket beyond the bound: %v", err)
		}
		if answer.StatusCode == 429 && answer.Header.Get("Retry-After") != "1" {
			t.Errorf("answered %v", answer.Header)
		}
		return answer.StatusCode
	}
	if status := dial(); status != 429 {
		t.Errorf("the 257th socket is answered %d", status)
	}
	w.openFrom("bob", from("192.0.2.2"))
	w.say("eve0", `{"v":1,"t":"session.start","body":{"auth_token":"`+w.token("eve0")+`","device_id":"phone"}}`)
	if got := w.hear("eve0"); !strings.Contains(got, "session.ready") {
		t.Fatal(got)
	}
	w.openFrom("ann", from("192.0.2.1")) // in the place of one that is known by now
	if status := dial(); status != 429 {
		t.Errorf("the 258th socket is answered %d", status)
	}
	first.network.Close()
}
