package gatewayserver

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/testwait"
)

func TestParseID(t *testing.T) {
	w := newWorld(t)
	position := w.logs.Streams.NewPosition(ds.Caller{Account: "ann", Device: "phone"})
	position.Add("c/a", 1)
	position.Add("c/b", 1)
	must(t, position.Open(context.Background()))
	defer position.Close()
	position.Advance(1, 300)
	text, ok := appendID(nil, position)
	good := string(text)
	if id, err := parseID(good); err != nil || !ok || id.stream != position.ID() {
		t.Fatal(id, ok, err)
	}
	if id, err := parseID(encodeID(append([]byte{idVersionOld}, make([]byte, 16)...))); err != nil || id.stream != 0 {
		t.Errorf("an id of an earlier version: %v, %v", id, err)
	}
	raw := func(b ...byte) string { return encodeID(append(append([]byte{idVersion}, make([]byte, 8)...), b...)) }
	for name, bad := range map[string]string{
		"empty": "", "number": "17", "cut": good[:len(good)-1], "padded": good + "=", "doubled": strings.Repeat(good, 15),
		"blank": good + " ", "other alphabet": "+" + good[1:], "not ASCII": "é", "long": strings.Repeat("A", 5000),
		"other version": encodeID(append([]byte{3}, make([]byte, 16)...)), "only a version": encodeID([]byte{2}), "no moves": raw(),
	} {
		if _, err := parseID(bad); ds.CodeOf(err) != ds.InvalidRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzParseID: whatever is accepted is written the same again.
func FuzzParseID(f *testing.F) {
	f.Add(encodeID(append([]byte{idVersion}, make([]byte, 9)...)))
	f.Add(encodeID(append(append([]byte{idVersion}, make([]byte, 8)...), 0, 5, 2, 0x80, 1)))
	f.Add(encodeID(append([]byte{idVersionOld}, make([]byte, 16)...)))
	f.Fuzz(func(t *testing.T, text string) {
		id, err := parseID(text)
		if err != nil || id.stream == 0 {
			return
		}
		raw := append(binary.BigEndian.AppendUint64([]byte{idVersion}, uint64(id.stream)), id.moves...)
		if again := encodeID(raw); again != text {
			t.Fatalf("%q is written %q", text, again)
		}
	})
}

// FuzzStream asks for streams with any query and any last event: there is a stream or
// a refusal, and never one that says that we are at fault.
func FuzzStream(f *testing.F) {
	w := newWorld(f)
	w.start("ann", gateway.Features...)
	w.call("ann", "POST", "/v1/rooms/create", `{"conv_id":"c"}`)
	for _, query := range []string{"conv_id=c&from_seq=1", "all=1&device=1", "conv_id=c&conv_id=d&after_seq=1&after_seq=-1", "conv_id=%00", "%"} {
		f.Add(query, "AQ")
	}
	f.Fuzz(func(t *testing.T, query, lastID string) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // what would stream ends at once
		request := httptest.NewRequest("GET", "/v1/sse", nil).WithContext(ctx)
		request.URL.RawQuery = query
		request.Header.Set("Last-Event-ID", lastID)
		who, err := w.server.identity.Session(context.Background(), w.people["ann"].session)
		must(t, err)
		if _, err := parseStream(query, who); err != nil && ds.CodeOf(err) != ds.InvalidRequest {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+w.people["ann"].session)
		answer := httptest.NewRecorder()
		w.server.ServeHTTP(answer, request)
		if answer.Code == http.StatusInternalServerError {
			t.Fatalf("%q %q: %s", query, lastID, answer.Body)
		}
	})
}

// TestStreamResumes is a reader of many conversations who is cut off again and again
// while others write, on one server and then on another: every message comes, in order,
// by nothing but the last id that arrived, and those behind the event that had it come
// again. Events have an id while there is room in it for what moved within a second.
func TestStreamResumes(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		worlds := []*world{newWorldOn(t, url)}
		if strings.HasPrefix(url, "postgres") {
			worlds = append(worlds, newWorldOn(t, url))
		}
		w := worlds[0]
		const conversations, messages = 90, 12
		w.start("ann")
		bob := w.start("bob")
		query := ""
		for i := range conversations {
			w.call2(t, "ann", "/v1/rooms/create", fmt.Sprintf(`{"conv_id":"c%d","members":["%s"]}`, i, bob.did))
			query += fmt.Sprintf("&conv_id=c%d", i)
		}
		who := ds.Caller{Account: ds.AccountID(w.person("ann").did), Device: "phone"}
		var writing sync.WaitGroup
		for part := range 4 {
			writing.Go(func() {
				for n := range messages {
					for i := part; i < conversations; i += 4 {
						_, err := w.core.Apply(context.Background(), who, core.Send{ID: ds.MessageID(fmt.Sprint(n)),
							ConversationID: ds.ConversationID(fmt.Sprint("c", i)), Body: []byte("e")})
						if err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		random := rand.New(rand.NewPCG(3, 4))
		seen, atID, total, lastID, rounds := map[string]int64{}, map[string]int64{}, 0, "", 0
		for total < conversations*messages {
			seen, total = maps.Clone(atID), 0
			for _, seq := range seen {
				total += int(seq)
			}
			e, status, answer := openEvents(t, worlds[rounds%len(worlds)].http.URL, bob.session, "?"+query[1:], lastID)
			if e == nil {
				t.Fatal(status, answer)
			}
			moved := map[string]bool{}
			for range 1 + random.IntN(150) {
				if total == conversations*messages {
					break
				}
				one, ok := e.next(t)
				if !ok || len(one.id) >= 200 {
					t.Fatalf("%+v, %v", one, ok)
				}
				frame, err := gateway.DecodeFrame([]byte(one.data))
				must(t, err)
				var event gateway.Event
				must(t, frame.Decode(&event))
				if event.Seq != seen[event.ConvID]+1 {
					t.Fatalf("round %d: %s is at %d, then comes %d", rounds, event.ConvID, seen[event.ConvID], event.Seq)
				}
				seen[event.ConvID], total = event.Seq, total+1
				moved[event.ConvID] = true
				if one.id != "" {
					lastID, atID = one.id, maps.Clone(seen)
				} else if len(moved) < 60 {
					t.Fatalf("round %d: no id, with room for it", rounds)
				}
			}
			e.stop()
			rounds++
		}
		writing.Wait()
		if rounds < 5 || len(slices.Collect(maps.Keys(seen))) != conversations {
			t.Errorf("%d rounds, %d conversations", rounds, len(seen))
		}
	})
}

// TestStreamIDsOfOthers: an id is good for the device that it was sent to, for a week
// after the stream was in use. With any other a stream begins again, and says so first.
func TestStreamIDsOfOthers(t *testing.T) {
	w := newWorld(t)
	w.start("ann")
	w.start("bob")
	w.call2(t, "ann", "/v1/rooms/create", w.fill(`{"conv_id":"c","members":["$bob"]}`))
	w.fillLog(t, "ann", "c", "e", 2)
	must(t, refusedAs(w.stream("ann", "?conv_id=c&from_seq=1", false), ""))
	w.item("ann")
	id := w.person("ann").lastID
	const again = `{"v":1,"t":"stream.started","body":{"restarted":true,"cursors":[{"conv_id":"c","next_seq":1}]}}`
	tests := []struct{ name, session, want string }{
		{"the same", w.person("ann").session, ""},
		{"another session of the device", w.start("ann").session, ""},
		{"another account", w.person("bob").session, again},
		{"another device", w.startDevice("ann", "laptop"), again},
	}
	for _, test := range tests {
		e, _, answer := openEvents(t, w.http.URL, test.session, "?conv_id=c", id)
		must(t, refusedAs(answer, ""))
		if test.want != "" {
			if one, _ := e.next(t); one.event != gateway.TypeStreamStarted || one.data != test.want || one.id == "" {
				t.Errorf("%s: %+v", test.name, one)
			}
			if one, _ := e.next(t); !strings.Contains(one.data, `"seq":1`) {
				t.Errorf("%s: %+v", test.name, one)
			}
		}
		if one, _ := e.next(t); !strings.Contains(one.data, `"seq":2`) {
			t.Errorf("%s: %+v", test.name, one)
		}
		e.stop()
	}
	for _, garbage := range []string{"1", "null", strings.Repeat("A", 300), id + "A", id[1:], "\t"} {
		_, status, answer := openEvents(t, w.http.URL, w.person("ann").session, "?conv_id=c&from_seq=1", garbage)
		if strings.TrimSpace(garbage) != "" && (status != 400 || !strings.Contains(answer, "Last-Event-ID: not an id of an event")) {
			t.Errorf("%q: %d %s", garbage, status, answer)
		}
	}
	// While it is open, a stream is in use.
	e, _, answer := openEvents(t, w.http.URL, w.start("ann").session, "?conv_id=c&from_seq=1", "")
	must(t, refusedAs(answer, ""))
	one, _ := e.next(t)
	day := (24 * time.Hour).Milliseconds()
	for _, days := range []int64{5, 10} {
		w.later.Store(days * day)
		must(t, w.logs.Streams.Renew(context.Background()))
	}
	e.stop()
	for days, want := range map[int64]string{16: "", 18: again} {
		w.later.Store(days * day)
		e, _, answer := openEvents(t, w.http.URL, w.start("ann").session, "?conv_id=c", one.id)
		must(t, refusedAs(answer, ""))
		if first, _ := e.next(t); want != "" && first.data != want || want == "" && !strings.Contains(first.data, `"seq":2`) {
			t.Errorf("after %d days: %+v", days, first)
		}
		e.stop()
	}
}

func refusedAs(answer, want string) error {
	if want == "" && answer != "" || !strings.Contains(answer, want) {
		return fmt.Errorf("answer %q, want %q", answer, want)
	}
	return nil
}

// TestStreamBegins: a stream without events begins with a comment, long before the first ping.
func TestStreamBegins(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.door.StreamPing = time.Hour })
	w.start("ann")
	w.call2(t, "ann", "/v1/rooms/create", `{"conv_id":"c"}`)
	must(t, refusedAs(w.stream("ann", "?conv_id=c", false), ""))
	select {
	case <-w.person("ann").events.pings:
	case <-time.After(10 * time.Second):
		t.Fatal("no comment comes")
	}
}

func TestStreamHead(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.door.StreamPing = 30 * time.Millisecond })
	w.start("ann")
	w.call2(t, "ann", "/v1/rooms/create", `{"conv_id":"c"}`)
	must(t, refusedAs(w.stream("ann", "?conv_id=c", false), ""))
	e := w.person("ann").events
	for name, want := range map[string]string{"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store, no-transform",
		"Content-Encoding": "identity", "X-Accel-Buffering": "no"} {
		if got := e.header.Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	for range 3 {
		select {
		case <-e.pings:
		case <-time.After(10 * time.Second):
			t.Fatal("no ping comes")
		}
	}
	w.fillLog(t, "ann", "c", "e", 1)
	if got := w.item("ann"); !strings.HasPrefix(got, "conv.event {") {
		t.Error(got)
	}
	if status, _, header := w.call("ann", "HEAD", "/v1/sse?conv_id=c", ""); status != 200 || header.Get("Content-Type") != "text/event-stream; charset=utf-8" {
		t.Errorf("HEAD: %d", status)
	}
	if status, _, _ := w.call("ann", "POST", "/v1/sse?conv_id=c", ""); status != 405 {
		t.Errorf("POST: %d", status)
	}
}

// TestStalledStream is a reader who reads nothing while a long log is replayed: it
// costs next to no memory and is cut off in the end.
func TestStalledStream(t *testing.T) {
	registry := prometheus.NewRegistry()
	w := newWorld(t, func(s *setup) {
		s.door.WriteTimeout, s.door.Registerer = 300*time.Millisecond, registry
	})
	w.start("ann")
	w.call2(t, "ann", "/v1/rooms/create", `{"conv_id":"c"}`)
	w.fillLog(t, "ann", "c", strings.Repeat("x", 200_000), 80)
	before := heap()
	network, err := net.Dial("tcp", strings.TrimPrefix(w.http.URL, "http://"))
	must(t, err)
	defer network.Close()
	must(t, network.(*net.TCPConn).SetReadBuffer(4096))
	_, err = io.WriteString(network, "GET /v1/sse?conv_id=c HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+w.person("ann").session+"\r\n\r\n")
	must(t, err)
	testwait.Until(t, "a stalled stream is cut off", func() bool { return closes(t, registry, causeStalled) > 0 })
	if grown := heap() - before; grown > 8<<20 {
		t.Errorf("a slow reader holds %d bytes", grown)
	}
}

func TestStreamDrain(t *testing.T) {
	w := newWorld(t)
	w.start("ann", gateway.FeatureDrain)
	w.start("bob")
	w.call2(t, "ann", "/v1/rooms/create", w.fill(`{"conv_id":"c","members":["$bob"]}`))
	must(t, refusedAs(w.stream("ann", "?conv_id=c", false), ""))
	must(t, refusedAs(w.stream("bob", "?conv_id=c", false), ""))
	must(t, w.server.Shutdown(context.Background()))
	if got := w.item("ann"); !strings.HasPrefix(got, `drain {"v":1,"t":"drain","body":{"reconnect_after_ms":1`) {
		t.Error(got)
	}
	for _, name := range []string{"ann", "bob"} {
		if got := w.item(name); got != "ended" {
			t.Errorf("%s: %s", name, got)
		}
	}
	if answer := w.stream("bob", "?conv_id=c", false); !strings.HasPrefix(answer, "503 ") {
		t.Error(answer)
	}
}

// TestRemovalAtOnce removes idle readers: on a socket and on a stream, from the same
// server and from another.
func TestRemovalAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		here := newWorldOn(t, url)
		there := here
		if strings.HasPrefix(url, "postgres") {
			there = newWorldOn(t, url)
		}
		here.join("bob")
		here.start("bob")
		here.start("eve", gateway.FeatureDevice)
		there.call2(t, "ann", "/v1/rooms/create", here.fill(`{"conv_id":"c","members":["$bob","$eve"]}`))
		here.say("bob", `{"v":1,"t":"conv.subscribe","body":{"conv_id":"c"}}`)
		here.say("bob", `{"v":1,"t":"ping"}`)
		here.hear("bob")
		must(t, refusedAs(here.stream("bob", "?conv_id=c", false), ""))
		must(t, refusedAs(here.stream("eve", "?conv_id=c&device=1", false), ""))
		if got := here.item("eve"); !strings.HasPrefix(got, "members ") {
			t.Error(got)
		}
		there.call2(t, "ann", "/v1/rooms/remove", here.fill(`{"conv_id":"c","members":["$bob","$eve"]}`))
		began := time.Now()
		if got := here.hear("bob"); got != `{"v":1,"t":"error","body":{"code":"forbidden","message":"membership revoked"}}` {
			t.Error(got)
		}
		if got := here.item("bob"); got != "ended" {
			t.Error(got)
		}
		got := []string{here.item("eve"), here.item("eve")}
		slices.Sort(got)
		if !strings.Contains(got[0], `error {"v":1,"t":"error","body":{"code":"forbidden","message":"membership revoked","conv_id":"c"}}`) || !strings.HasPrefix(got[1], "members ") {
			t.Error(got)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("after %s", took)
		}
		here.say("bob", `{"v":1,"t":"ping"}`)
		if got := here.hear("bob"); got != `{"v":1,"t":"pong"}` {
			t.Error(got)
		}
	})
}

// TestComingAndGoing is a stream of everything while its reader is removed and invited
// again, faster than it may notice: it is sent what it missed, once.
func TestComingAndGoing(t *testing.T) {
	w := newWorld(t)
	w.start("ann")
	w.start("bob")
	w.call2(t, "ann", "/v1/rooms/create", w.fill(`{"conv_id":"c","members":["$bob"]}`))
	must(t, refusedAs(w.stream("bob", "?all=1", false), ""))
	for n := int64(1); n <= 30; n++ {
		w.call2(t, "ann", "/v1/inbox", fmt.Sprintf(`{"v":1,"t":"conv.send","body":{"conv_id":"c","msg_id":"%d","env":"e"}}`, n))
		w.call2(t, "ann", "/v1/rooms/remove", w.fill(`{"conv_id":"c","members":["$bob"]}`))
		w.call2(t, "ann", "/v1/rooms/invite", w.fill(`{"conv_id":"c","members":["$bob"]}`))
	}
	for n := 1; n <= 30; n++ {
		if got := w.item("bob"); !strings.Contains(got, fmt.Sprintf(`"seq":%d,`, n)) {
			t.Fatalf("want %d, got %s", n, got)
		}
	}
}

// TestStreamsOutliveTimeouts: the time that a server gives a request and its answer
// ends neither a stream nor a socket.
func TestStreamsOutliveTimeouts(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.door.StreamPing = 20 * time.Millisecond })
	w.http.Close()
	w.http = httptest.NewUnstartedServer(w.server)
	w.http.Config.ReadTimeout, w.http.Config.WriteTimeout = 150*time.Millisecond, 150*time.Millisecond
	w.http.Start()
	w.start("ann")
	w.call2(t, "ann", "/v1/rooms/create", `{"conv_id":"c"}`)
	must(t, refusedAs(w.stream("ann", "?conv_id=c", false), ""))
	w.join("ann")
	for range 30 { // 600 ms
		<-w.person("ann").events.pings
	}
	w.fillLog(t, "ann", "c", "e", 1)
	if got := w.item("ann"); !strings.HasPrefix(got, "conv.event {") {
		t.Error(got)
	}
	w.say("ann", `{"v":1,"t":"ping"}`)
	if got := w.hear("ann"); got != `{"v":1,"t":"pong"}` {
		t.Error(got)
	}
}
