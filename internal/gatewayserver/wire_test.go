package gatewayserver

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/ds"
)

var eventRecords = []ds.Record{
	{Seq: 1, MessageID: "m", Kind: ds.App, Encoding: ds.Text, Body: []byte("plain é <&> \u2028")},
	{Seq: 1 << 60, MessageID: "\\\"\t", Kind: ds.Commit, Epoch: 7, Encoding: ds.Base64, Body: []byte{0, 1, 2, 255}},
	{Seq: 3, MessageID: "\U0001F600", Kind: ds.Proposal, Encoding: ds.Binary, Sender: ds.Device{ID: "phone \""}},
	{Seq: 4, MessageID: "m", Kind: ds.App, Encoding: ds.Text, Body: []byte("control \x01 and \"quotes\"")},
}

func TestEveryCodeHasAName(t *testing.T) {
	for _, code := range ds.Codes {
		if _, ok := codes[code]; !ok {
			t.Errorf("%s has no wire name", code)
		}
	}
}

func TestAnswerTo(t *testing.T) {
	tests := []struct {
		err    error
		status int
		body   string
	}{
		{ds.Refuse(ds.Forbidden, "muted"), 403, `{"code":"forbidden","message":"muted"}`},
		{fmt.Errorf("wrapped: %w", ds.Refuse(ds.NotFound, "no")), 404, `{"code":"not_found","message":"no"}`},
		{&ds.Refusal{Code: ds.RateLimited, Message: "slow", RetryAfter: time.Millisecond}, 429, `{"code":"rate_limited","message":"slow","retry_after_s":1}`},
		{&ds.Refusal{Code: ds.RateLimited, Message: "slow", RetryAfter: 1001 * time.Millisecond}, 429, `{"code":"rate_limited","message":"slow","retry_after_s":2}`},
		{ds.Refuse(ds.LimitExceeded, "full"), 429, `{"code":"limit_exceeded","message":"full","retry_after_s":0}`},
		{&ds.Refusal{Code: ds.EpochConflict, Message: "late", CurrentEpoch: 0}, 409, `{"code":"epoch_conflict","message":"late","current_epoch":0}`},
		{&ds.Refusal{Code: ds.InvalidRequest, Message: "bad", Index: 0, HasIndex: true}, 400, `{"code":"invalid_request","message":"bad","index":0}`},
		{&ds.Refusal{Code: ds.ReplayWindowExceeded, Message: "gone", RequestedSeq: 1, EarliestSeq: 5, LatestSeq: 9}, 410,
			`{"code":"replay_window_exceeded","message":"gone","requested_from_seq":1,"earliest_seq":5,"latest_seq":9}`},
		{&ds.Refusal{Code: "no such code", Message: "x"}, 500, `{"code":"internal_error","message":"internal error"}`},
		{ds.Unavailable(errors.New("secret")), 503, `{"code":"unavailable","message":"try again","retry_after_s":1}`},
		{ds.UnavailableFor(errors.New("secret"), 5500*time.Millisecond), 503, `{"code":"unavailable","message":"try again","retry_after_s":6}`},
		{errors.New("secret"), 500, `{"code":"internal_error","message":"internal error"}`},
	}
	for _, test := range tests {
		status, body := answerTo(test.err)
		got, err := gateway.Marshal(body)
		if status != test.status || string(got) != test.body || err != nil {
			t.Errorf("%v: got %d %s", test.err, status, got)
		}
	}
	r, ok := replayRefusal(&ds.Refusal{Code: ds.ReplayWindowExceeded, RequestedSeq: 1, EarliestSeq: 5, LatestSeq: 9}).(*ds.Refusal)
	if !ok || r.Message != "requested_from_seq=1 earliest_seq=5" || r.LatestSeq != 9 {
		t.Errorf("got %+v", r)
	}
}

func TestBytesOf(t *testing.T) {
	mls := base64.StdEncoding.EncodeToString([]byte{0, 1, 0, 2, 'x'})
	tests := []struct {
		env      string
		encoding ds.Encoding
	}{
		{mls, ds.Base64},
		{"AAE=", ds.Base64},
		{"AAH/", ds.Base64},
		{"", ds.Text},
		{"AAE", ds.Text},                           // not padded
		{"AAF=", ds.Text},                          // unused bits set
		{mls + "\n", ds.Text},                      // a line break would not come back
		{mls[:4] + "\n" + mls[4:], ds.Text},        // nor here
		{strings.TrimRight(mls, "="), ds.Text},     // not padded
		{"AAI=", ds.Text},                          // version 2
		{"AAAA", ds.Text},                          // version 0
		{"AAH_", ds.Text},                          // the other alphabet
		{"hello world", ds.Text},                   // smoke tests send this
		{"AAE= ", ds.Text},                         // blank behind
		{"AAEé", ds.Text},                          // no base64 at all
		{"AAE=AAE=", ds.Text},                      // two in one
		{strings.Repeat("A", 4) + "AAE=", ds.Text}, // begins with zeros
	}
	for _, test := range tests {
		body, encoding := bytesOf(test.env)
		if encoding != test.encoding || textOf(body, encoding) != test.env {
			t.Errorf("%q: got %d, %q", test.env, encoding, textOf(body, encoding))
		}
	}
}

func TestStartOf(t *testing.T) {
	n := func(i int64) *int64 { return &i }
	tests := []struct {
		from, after *int64
		want        int64
		ok          bool
	}{
		{nil, nil, 0, true}, {n(1), nil, 1, true}, {n(0), nil, 0, false}, {n(-5), nil, 0, false},
		{nil, n(0), 1, true}, {nil, n(7), 8, true}, {nil, n(-1), 0, false}, {nil, n(1<<63 - 1), 1<<63 - 1, true},
		{n(3), n(7), 3, true}, {n(3), n(-7), 3, true},
	}
	for i, test := range tests {
		if got, err := startOf(test.from, test.after); got != test.want || (err == nil) != test.ok {
			t.Errorf("%d: got %d, %v", i, got, err)
		}
	}
}

func TestBodiesTooLong(t *testing.T) {
	w := newWorld(t)
	w.start("ann", gateway.FeatureBundle)
	pad := func(n int) string { return `,"x":"` + strings.Repeat("x", n) + `"}` }
	tests := []struct {
		name, path, body, want string
	}{
		{"room", "/v1/rooms/create", `{"conv_id":"a"` + pad(gateway.BodyBytesMax), "malformed json"},
		{"room within", "/v1/rooms/create", `{"conv_id":"a"` + pad(gateway.BodyBytesMax-30), `"ok"`},
		{"send", "/v1/inbox", `{"v":1,"t":"conv.send","body":{"conv_id":"a","msg_id":"m","env":"e"}` + pad(gateway.BodyBytesMax), "malformed json"},
		{"commit", "/v1/inbox", `{"v":1,"t":"conv.commit","body":{"conv_id":"a","msg_id":"m","commit":"AAEA"}` + pad(15<<20), "not an MLS commit"},
		{"huge", "/v1/inbox", `{"v":1,"t":"conv.commit","body":{"conv_id":"a","msg_id":"m","commit":"AAEA"}` + pad(16<<20), "malformed json"},
		{"not UTF-8", "/v1/rooms/create", "{\"conv_id\":\"\xff\"}", "malformed json"},
		{"deep", "/v1/rooms/create", strings.Repeat("[", 1<<20), "nested too deep"},
	}
	for _, test := range tests {
		if _, answer, _ := w.call("ann", "POST", test.path, test.body); !strings.Contains(answer, test.want) {
			t.Errorf("%s: got %s", test.name, answer)
		}
	}
}

func TestAuthorization(t *testing.T) {
	w := newWorld(t)
	token := w.start("ann").session
	for header, want := range map[string]int{
		"Bearer " + token: 200, "bearer " + token: 200, "Bearer  " + token: 200,
		token: 401, "Session " + token: 401, "Basic " + token: 401, "": 401, "Bearer": 401, "Bearer x" + token: 401,
	} {
		request, err := http.NewRequest("GET", w.http.URL+"/v1/conversations", nil)
		must(t, err)
		if header != "" {
			request.Header.Set("Authorization", header)
		}
		response, err := http.DefaultClient.Do(request)
		must(t, err)
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if response.StatusCode != want || response.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%q: got %d %v", header, response.StatusCode, response.Header)
		}
	}
}

// FuzzHTTP sends any body to any endpoint: there is always an answer, and never one
// that says that we are at fault.
func FuzzHTTP(f *testing.F) {
	w := newWorld(f)
	w.start("ann", gateway.Features...)
	paths := []string{"/v1/session/start", "/v1/session/resume", "/v1/inbox", "/v1/rooms/create", "/v1/rooms/invite",
		"/v1/dms/create", "/v1/keypackages", "/v1/keypackages/fetch", "/v1/keypackages/rotate",
		"/v1/rooms/remove", "/v1/rooms/leave", "/v1/session/revoke"}
	for i, body := range []string{
		`{"auth_token":"a.b.c","device_id":"d","features":["x"]}`, `{"resume_token":"rt_x"}`,
		`{"v":1,"t":"conv.send","body":{"conv_id":"c","msg_id":"m","env":"AAEAAgFnAAAAAAAAAAABAAFzAWM="}}`,
		`{"conv_id":"c","members":["a"]}`, `{"conv_id":"c","members":null}`, `{"peer_user_id":"p","conv_id":"dm_1"}`,
		`{"device_id":"phone","keypackages":["AAEABQAB"]}`, `{"user_id":"u","count":3}`, `{"device_id":"phone","revoke":true}`,
		`{"conv_id":"c","members":["a"]}`, `{"conv_id":"c","new_owner":"a"}`, `{"session_id":"sid_x","include_self":false}`,
	} {
		f.Add(i, []byte(body))
	}
	f.Fuzz(func(t *testing.T, which int, body []byte) {
		path := paths[uint(which)%uint(len(paths))]
		request := httptest.NewRequest("POST", path, strings.NewReader(string(body)))
		request.Header.Set("Authorization", "Bearer "+w.people["ann"].session)
		answer := httptest.NewRecorder()
		w.server.ServeHTTP(answer, request)
		if answer.Code >= 500 || answer.Body.Len() == 0 {
			t.Fatalf("%s %q: %d %s", path, body, answer.Code, answer.Body)
		}
	})
}

// recorder is a conn that keeps what is written.
type recorder struct{ written [][]byte }

func (r *recorder) Next() (bool, io.Reader, error) { return false, nil, io.EOF }
func (r *recorder) Write(messages ...[]byte) error {
	r.written = append(r.written, messages...)
	return nil
}
func (r *recorder) WritingSince() int64 { return 0 }
func (r *recorder) WrittenAt() int64    { return 0 }
func (r *recorder) Ping()               {}
func (r *recorder) Close(int, string)   {}
func (r *recorder) Abort()              {}

// FuzzFrames sends any two messages to a new socket and to one with a session: what
// is answered is a frame that this protocol accepts, and never our fault.
func FuzzFrames(f *testing.F) {
	w := newWorld(f)
	p := w.start("ann", gateway.Features...)
	f.Add([]byte(`{"v":1,"t":"session.start","id":"1","body":{"auth_token":"x","device_id":"d"}}`), true)
	f.Add([]byte(`{"v":1,"t":"conv.commit","id":2,"body":{"conv_id":"c","msg_id":"m","commit":"AAEA","welcome":{"env":"AAEA","to":[{"user_id":"u","device_id":"d","key_package_ref":"00"}]},"add":["a"]}}`), true)
	f.Add([]byte(`{"v":1,"t":"conv.subscribe","body":{"conv_id":"c","from_seq":1}}`), true)
	f.Add([]byte(`{"v":1,"t":"conv.send","body":{"conv_id":"c","msg_id":"m","env":"e"}}`), true)
	f.Add([]byte(`{"v":1,"t":"conv.ack","body":{"conv_id":"c","seq":1}}`), true)
	f.Add([]byte(`{"v":1,"t":"client.report","body":{"kind":"gap"}}`), true)
	f.Fuzz(func(t *testing.T, message []byte, isText bool) {
		for _, withSession := range []bool{false, true} {
			network := &recorder{}
			c := newSocket(w.server, network, "fuzz", "")
			if withSession {
				c.receive(true, []byte(`{"v":1,"t":"session.resume","body":{"resume_token":"`+p.resume+`"}}`))
				w.remember("ann", string(network.written[0]))
				network.written = nil
			}
			c.receive(isText, message)
			c.answers.awaitWritten()
			c.cancel()
			if c.isReady.Load() {
				c.follower.Close()
				c.detach()
			}
			c.following.Wait()
			for _, frame := range network.written {
				if _, err := gateway.DecodeFrame(frame); err != nil || strings.Contains(string(frame), "internal_error") {
					t.Fatalf("%q: %s", message, frame)
				}
			}
		}
	})
}
