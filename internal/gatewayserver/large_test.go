package gatewayserver

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/testsize"
)

// allowLarge lets messages be as long as an operator can choose.
func allowLarge(s *setup) { s.core.MessageBytes = 10 << 20 }

// largeRoom has messages of many sizes, as only the AT Protocol door takes them, and a text
// that is short as it comes and long as it is told.
func (w *world) largeRoom(sizes ...int) {
	w.t.Helper()
	ann := ds.Caller{Account: ds.AccountID(w.person("ann").did)}
	must(w.t, w.apply(ann, core.Create{ConversationID: "c", Accounts: []ds.AccountID{ds.AccountID(w.person("bob").did)}}))
	for i, size := range sizes {
		w.largeMessage(i+1, size)
	}
}

func (w *world) largeMessage(seq, size int) {
	w.t.Helper()
	ann := ds.Caller{Account: ds.AccountID(w.person("ann").did)}
	m := core.Send{ConversationID: "c", ID: ds.MessageID(fmt.Sprint("m", seq)), Body: []byte(strings.Repeat("x", max(size, 0))), Encoding: ds.Binary, Application: true}
	if size < 0 {
		m.Body, m.Encoding = []byte(longText(-size)), ds.Text
	}
	_, err := w.core.Apply(context.Background(), ann, m)
	must(w.t, err)
}

// longText has twice as many bytes in JSON: a quote makes everything be escaped that may be.
func longText(n int) string { return "\"" + strings.Repeat("\u2028", max(n, 0)) }

// heardEvent decodes the next conv.event.
func heardEvent(t *testing.T, frame string) (e gateway.Event) {
	t.Helper()
	f, err := gateway.DecodeFrame([]byte(frame))
	must(t, err)
	if f.Type != gateway.TypeEvent {
		t.Fatalf("not an event: %.200s", frame)
	}
	must(t, f.Decode(&e))
	return e
}

// TestFramesFitTheirReader: what would be longer than a session takes comes without its
// env, as it is written and out of the store, over both transports, and GET /v1/records
// has it whole.
func TestFramesFitTheirReader(t *testing.T) {
	sizes := []int{100, 10 << 20, 700 << 10, 760 << 10, 800 << 10, 2 << 20, -200_000, -100_000, 300, testsize.Of(2, 10) << 20}
	isLong := []bool{false, true, false, false, true, true, true, false, false, true}
	onBoth(t, func(t *testing.T, url string) {
		w := newWorldOn(t, url, allowLarge)
		w.largeRoom()
		hear := func(name, how string, isLarge bool, next func() string) {
			t.Helper()
			for i, size := range sizes {
				frame := next()
				e := heardEvent(t, frame)
				length := base64.StdEncoding.EncodedLen(max(size, 0))
				if size < 0 {
					length = len(longText(-size))
				}
				switch {
				case e.Seq != int64(i+1):
					t.Fatalf("%s, %s: %d in place of %d", name, how, e.Seq, i+1)
				case isLarge || !isLong[i]:
					if e.Omitted != nil || len(e.Env) != length {
						t.Errorf("%s, %s: %d has an env of %d bytes, want %d", name, how, i+1, len(e.Env), length)
					}
				case len(frame) > 4<<10 || e.Env != "" || e.Omitted == nil || e.Omitted.Bytes != int64(length) || e.MsgID != fmt.Sprint("m", i+1):
					t.Errorf("%s, %s: %d: %.300s", name, how, i+1, frame)
				}
				if len(frame) > gateway.FrameBytesMax && !isLarge {
					t.Errorf("%s, %s: a frame of %d bytes", name, how, len(frame))
				}
			}
		}
		subscribe := `{"v":1,"t":"conv.subscribe","body":{"conv_id":"c","from_seq":1}}`
		small, large := w.join("bob"), w.join("ann", gateway.FeatureLarge)
		small.ws.SetReadLimit(gateway.FrameBytesMax)
		large.ws.SetReadLimit(gateway.LargeFrameBytesMax)
		w.say("bob", subscribe)
		w.say("ann", subscribe)
		w.say("bob", `{"v":1,"t":"ping"}`)
		w.hear("bob") // it is followed
		w.say("ann", `{"v":1,"t":"ping"}`)
		w.hear("ann")
		for i, size := range sizes {
			w.largeMessage(i+1, size)
		}
		hear("bob", "live", false, func() string { return w.hear("bob") })
		hear("ann", "live", true, func() string { return w.hear("ann") })
		w.person("bob").cut()
		w.join("bob").ws.SetReadLimit(gateway.FrameBytesMax)
		w.say("bob", subscribe)
		hear("bob", "out of the store", false, func() string { return w.hear("bob") })
		if answer := w.stream("bob", "?conv_id=c&from_seq=1", false); answer != "" {
			t.Fatal(answer)
		}
		hear("bob", "as a stream", false, func() string {
			one, ok := w.person("bob").events.next(t)
			if !ok {
				t.Fatal("the stream has ended")
			}
			return one.data
		})
		for i, size := range sizes {
			status, answer, _ := w.call("bob", "GET", fmt.Sprintf("/v1/records?conv_id=c&seq=%d", i+1), "")
			var e gateway.Event
			if err := json.Unmarshal([]byte(answer), &e); status != http.StatusOK || err != nil || e.Seq != int64(i+1) || e.Omitted != nil {
				t.Fatalf("record %d: %d %.200s", i+1, status, answer)
			}
			want := longText(-size)
			if size > 0 {
				want = base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", size)))
			}
			if e.Env != want {
				t.Errorf("record %d has an env of %d bytes", i+1, len(e.Env))
			}
		}
	})
}

// TestRecords: GET /v1/records shows a record to those only who read it in its place.
func TestRecords(t *testing.T) {
	w := newWorld(t)
	w.largeRoom(100, 200)
	w.start("ann")
	w.start("bob", gateway.FeatureDevice)
	w.start("eve")
	ann := ds.Caller{Account: ds.AccountID(w.person("ann").did)}
	ask := func(name, query string) string {
		status, answer, _ := w.call(name, "GET", "/v1/records?"+query, "")
		return fmt.Sprintf("%d %.60s", status, answer)
	}
	steps := []struct{ name, query, want string }{
		{"ann", "conv_id=c&seq=2", `200 {"conv_id":"c","seq":2,"msg_id":"m2","env":"`},
		{"bob", "conv_id=c&seq=1", `200 {"conv_id":"c","seq":1,"msg_id":"m1","env":"`},
		{"eve", "conv_id=c&seq=1", `403 {"code":"forbidden","message":"not a member"}`},
		{"eve", "conv_id=nothing&seq=1", `403 {"code":"forbidden","message":"not a member"}`},
		{"ann", "conv_id=c&seq=3", `404 {"code":"not_found","message":"no such record"}`},
		{"ann", "conv_id=c&seq=0", `400 {"code":"invalid_request"`},
		{"ann", "conv_id=c&seq=x", `400 {"code":"invalid_request"`},
		{"ann", "conv_id=c", `400 {"code":"invalid_request"`},
		{"ann", "seq=1", `400 {"code":"invalid_request"`},
		{"ann", "conv_id=c&seq=9223372036854775807", `404 {"code":"not_found"`},
		{"ann", "welcome_id=w", `400 {"code":"invalid_request","message":"the session`},
		{"bob", "welcome_id=w", `404 {"code":"not_found","message":"no such welcome"}`},
		{"", "conv_id=c&seq=1", `401`},
	}
	for _, step := range steps {
		if got := ask(step.name, step.query); !strings.HasPrefix(got, step.want) {
			t.Errorf("%s, %s: %s", step.name, step.query, got)
		}
	}
	must(t, w.apply(ann, core.Remove{ConversationID: "c", Accounts: []ds.AccountID{ds.AccountID(w.person("bob").did)}}))
	w.largeMessage(3, 100)
	for query, want := range map[string]string{"conv_id=c&seq=2": "200", "conv_id=c&seq=3": `404 {"code":"not_found"`} {
		if got := ask("bob", query); !strings.HasPrefix(got, want) { // with device events a former member reads to the end of its stay
			t.Errorf("removed, %s: %s", query, got)
		}
	}
	must(t, w.apply(ann, core.Invite{ConversationID: "c", Accounts: []ds.AccountID{ds.AccountID(w.person("bob").did)}}))
	w.largeMessage(4, 100)
	must(t, w.apply(ann, core.Remove{ConversationID: "c", Accounts: []ds.AccountID{ds.AccountID(w.person("bob").did)}}))
	for query, want := range map[string]string{"conv_id=c&seq=2": `404 {"code":"not_found"`, "conv_id=c&seq=4": "200"} {
		if got := ask("bob", query); !strings.HasPrefix(got, want) { // of its last stay, as on a stream
			t.Errorf("removed again, %s: %s", query, got)
		}
	}
	w.start("bob")
	if got := ask("bob", "conv_id=c&seq=2"); !strings.HasPrefix(got, "403") {
		t.Errorf("removed, without device events: %s", got)
	}
}

// TestRecordReadsAreLimited: each record counts against the limit of the account.
func TestRecordReadsAreLimited(t *testing.T) {
	w := newWorld(t, limited(t, "record_reads=2/1m"))
	w.largeRoom(100)
	w.start("ann")
	for i, want := range []int{200, 200, 429} {
		if status, answer, _ := w.call("ann", "GET", "/v1/records?conv_id=c&seq=1", ""); status != want {
			t.Errorf("call %d: %d %s", i, status, answer)
		}
	}
}
