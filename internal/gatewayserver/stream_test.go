package gatewayserver

import (
	"context"
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
)

// TestPositionIDs moves a position at random, through logs that come later and ids
// that become too long: every id names exactly where the position stood.
func TestPositionIDs(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	stored := map[core.StreamID][]ds.Cursor{}
	var p position
	for i := range 20 {
		p.add(ds.ConversationLog(ds.ConversationID(fmt.Sprint(i))), 1+random.Int64N(1<<random.IntN(50)))
	}
	longest := 0
	for step := range 5000 {
		if step%50 == 0 {
			p.add(ds.ConversationLog(ds.ConversationID(fmt.Sprint("later ", step))), 1)
		}
		log := p.next[random.IntN(len(p.next))].Log
		p.advance(log, p.of(log)+1+random.Int64N(1<<random.IntN(30)))
		text, ok := p.appendID(nil)
		if !ok {
			name := core.StreamID{byte(step), byte(step >> 8)}
			stored[name] = slices.Clone(p.next)
			p.rebase(name, stored[name])
			if text, ok = p.appendID(nil); !ok {
				t.Fatal("no id behind what is stored")
			}
		}
		longest = max(longest, len(text))
		id, err := parseID(string(text))
		must(t, err)
		got, err := id.apply(stored[id.name])
		must(t, err)
		for log, next := range got {
			if p.of(log) != next {
				t.Fatalf("step %d: %s is at %d, want %d", step, log, next, p.of(log))
			}
		}
		for _, c := range p.next {
			if _, ok := got[c.Log]; !ok && c.Next != 1 {
				t.Fatalf("step %d: %s is missing", step, c.Log)
			}
		}
	}
	if longest >= 200 || longest < 190 {
		t.Errorf("the longest id has %d bytes", longest)
	}
}

func TestParseID(t *testing.T) {
	var p position
	p.add("c/a", 1)
	p.add("c/b", 1)
	p.rebase(core.StreamID{7}, slices.Clone(p.next))
	p.advance("c/b", 300)
	text, _ := p.appendID(nil)
	good := string(text)
	if _, err := parseID(good); err != nil {
		t.Fatal(err)
	}
	raw := func(b ...byte) string { return encodeID(append(append([]byte{1}, make([]byte, 16)...), b...)) }
	for name, bad := range map[string]string{
		"empty": "", "number": "17", "cut": good[:len(good)-2], "padded": good + "=", "doubled": good + good,
		"blank": good + " ", "other alphabet": "+" + good[1:], "not ASCII": "é", "long": strings.Repeat("A", 5000),
		"other version": encodeID(append([]byte{2}, make([]byte, 16)...)), "only a version": encodeID([]byte{1}),
		"gap without number": raw(0), "no move": raw(0, 0), "long form": raw(0x80, 0, 1), "long form of a number": raw(0, 0x81, 0),
		"huge gap": raw(0xff, 0xff, 0xff, 0x7f, 1), "huge number": raw(0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1),
		"endless number": raw(0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
	} {
		if _, err := parseID(bad); ds.CodeOf(err) != ds.InvalidRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, moves := range map[string][]byte{"beyond what is stored": {2, 1}, "overflow": {0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}} {
		id, err := parseID(raw(moves...))
		must(t, err)
		if _, err := id.apply([]ds.Cursor{{Log: "c/a", Next: 5}, {Log: "c/b", Next: 5}}); ds.CodeOf(err) != ds.InvalidRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzParseID: whatever is accepted is what appendID would write of it.
func FuzzParseID(f *testing.F) {
	f.Add(encodeID(append([]byte{1}, make([]byte, 16)...)), int64(1))
	f.Add(encodeID(append(append([]byte{1}, make([]byte, 16)...), 0, 5, 2, 0x80, 1)), int64(1<<62))
	f.Fuzz(func(t *testing.T, text string, start int64) {
		id, err := parseID(text)
		if err != nil {
			return
		}
		stored := make([]ds.Cursor, 100)
		var p position
		for i := range stored {
			stored[i] = ds.Cursor{Log: ds.ConversationLog(ds.ConversationID(fmt.Sprint(i))), Next: max(1, start)}
			p.add(stored[i].Log, stored[i].Next)
		}
		next, err := id.apply(stored)
		if err != nil {
			return
		}
		p.rebase(id.name, stored)
		for log, n := range next {
			p.advance(log, n)
		}
		if again, ok := p.appendID(nil); !ok || string(again) != text {
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
// while others write, on one server and then on another: every message comes, in
// order, exactly once, by nothing but the id of the last event that arrived.
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
						_, err := w.core.Send(context.Background(), who, core.Message{ID: ds.MessageID(fmt.Sprint(n)),
							ConversationID: ds.ConversationID(fmt.Sprint("c", i)), Body: []byte("e")})
						if err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		random := rand.New(rand.NewPCG(3, 4))
		seen, total, lastID, rounds := map[string]int64{}, 0, "", 0
		for total < conversations*messages {
			e, status, answer := openEvents(t, worlds[rounds%len(worlds)].http.URL, bob.session, "?"+query[1:], lastID)
			if e == nil {
				t.Fatal(status, answer)
			}
			for range 1 + random.IntN(150) {
				if total == conversations*messages {
					break
				}
				one, ok := e.next(t)
				if !ok || len(one.id) == 0 || len(one.id) >= 200 {
					t.Fatalf("%+v, %v", one, ok)
				}
				frame, err := gateway.DecodeFrame([]byte(one.data))
				must(t, err)
				var event gateway.Event
				must(t, frame.Decode(&event))
				if event.Seq != seen[event.ConvID]+1 {
					t.Fatalf("round %d: %s is at %d, then comes %d", rounds, event.ConvID, seen[event.ConvID], event.Seq)
				}
				seen[event.ConvID], lastID, total = event.Seq, one.id, total+1
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

// TestStreamIDsOfOthers: an id is good for the device that it was sent to, for a week.
func TestStreamIDsOfOthers(t *testing.T) {
	w := newWorld(t)
	w.start("ann")
	w.start("bob")
	w.call2(t, "ann", "/v1/rooms/create", w.fill(`{"conv_id":"c","members":["$bob"]}`))
	w.fillLog(t, "ann", "c", "e", 2)
	must(t, refusedAs(w.stream("ann", "?conv_id=c&from_seq=1", false), ""))
	w.item("ann")
	id := w.person("ann").lastID
	tests := []struct{ name, session, want string }{
		{"the same", w.person("ann").session, ""},
		{"another session of the device", w.start("ann").session, ""},
		{"another account", w.person("bob").session, "Last-Event-ID: unknown, expired or of another device"},
		{"another device", w.startDevice("ann", "laptop"), "Last-Event-ID: unknown, expired or of another device"},
	}
	for _, test := range tests {
		e, _, answer := openEvents(t, w.http.URL, test.session, "?conv_id=c", id)
		must(t, refusedAs(answer, test.want))
		if e != nil {
			if one, _ := e.next(t); !strings.Contains(one.data, `"seq":2`) {
				t.Errorf("%s: %+v", test.name, one)
			}
			e.stop()
		}
	}
	for _, garbage := range []string{"1", "null", strings.Repeat("A", 300), id + "A", id[1:], "\t"} {
		_, status, answer := openEvents(t, w.http.URL, w.person("ann").session, "?conv_id=c&from_seq=1", garbage)
		if strings.TrimSpace(garbage) != "" && (status != 400 || !strings.Contains(answer, "Last-Event-ID: not an id of an event")) {
			t.Errorf("%q: %d %s", garbage, status, answer)
		}
	}
	w.later.Store((6 * 24 * time.Hour).Milliseconds())
	e, _, answer := openEvents(t, w.http.URL, w.start("ann").session, "?conv_id=c", id)
	must(t, refusedAs(answer, ""))
	e.stop()
	w.later.Store((8 * 24 * time.Hour).Milliseconds())
	_, _, answer = openEvents(t, w.http.URL, w.start("ann").session, "?conv_id=c", id)
	must(t, refusedAs(answer, "unknown, expired"))
}

func refusedAs(answer, want string) error {
	if want == "" && answer != "" || !strings.Contains(answer, want) {
		return fmt.Errorf("answer %q, want %q", answer, want)
	}
	return nil
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
	deadline := time.Now().Add(10 * time.Second)
	for closes(t, registry, causeStalled) == 0 {
		if time.Now().After(deadline) {
			t.Fatal("a stalled stream is not cut off")
		}
		time.Sleep(20 * time.Millisecond)
	}
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
