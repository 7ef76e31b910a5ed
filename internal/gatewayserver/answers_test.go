package gatewayserver

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/testwait"
)

// answer holds the fields of an answer to a pipelined frame that tests compare.
type answer struct {
	Type string `json:"t"`
	ID   string `json:"id"`
	Body struct {
		Seq     int64  `json:"seq"`
		MsgID   string `json:"msg_id"`
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"body"`
}

func (w *world) hearAnswer(name string) answer {
	w.t.Helper()
	var a answer
	text := w.hear(name)
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		w.t.Fatalf("%s hears %s", name, text)
	}
	return a
}

func sendFrame(id int, conversation, message string) string {
	return fmt.Sprintf(`{"v":1,"t":"conv.send","id":"%d","body":{"conv_id":%q,"msg_id":%q,"env":"e"}}`, id, conversation, message)
}

// stored is the log of a conversation as its message ids.
func (w *world) stored(name, conversation string) []string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	f := w.logs.NewFollower(ds.Caller{Account: ds.AccountID(w.person(name).did), Device: "reader"})
	defer f.Close()
	_, err := f.Follow(ctx, logs.Start{Conversation: ds.ConversationID(conversation), From: logs.FromSeq(1)})
	must(w.t, err)
	var ids []string
	for {
		page, err := f.Next(ctx)
		must(w.t, err)
		for _, r := range page.Records {
			if r.Seq > 0 {
				ids = append(ids, string(r.MessageID))
			}
		}
		if page.CaughtUp {
			return ids
		}
	}
}

// TestPipelinedFrames: whatever is sent without waiting is answered in the order of
// the frames, and stands in that order in each conversation.
func TestPipelinedFrames(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorldOn(t, url)
		w.join("ann", "bundle", "report")
		w.call2(t, "ann", "/v1/rooms/create", `{"conv_id":"c0"}`)
		w.call2(t, "ann", "/v1/rooms/create", `{"conv_id":"c1"}`)
		tests := []struct {
			frame string // ID is the id of the frame, ROUND its round
			want  string // of its answer: type, seq or code
		}{
			{`{"v":1,"t":"conv.send","id":"ID","body":{"conv_id":"c0","msg_id":"aROUND","env":"e"}}`, "conv.acked odd"},
			{`{"v":1,"t":"conv.send","id":"ID","body":{"conv_id":"c1","msg_id":"aROUND","env":"e"}}`, "conv.acked odd"},
			{`{"v":1,"t":"conv.send","id":"ID","body":{"conv_id":"c0","msg_id":"aROUND","env":"again"}}`, "conv.acked odd"},
			{`{"v":1,"t":"ping","id":"ID"}`, "pong"},
			{`{"v":1,"t":"conv.send","id":"ID","body":{"conv_id":"c0"}}`, "invalid_request"},
			{`{"v":1,"t":"conv.send","id":"ID","body":{"conv_id":"elsewhere","msg_id":"m","env":"e"}}`, "forbidden"},
			{`{"v":1,"t":"conv.ack","id":"ID","body":{"conv_id":"elsewhere","seq":1}}`, "forbidden"},
			{`{"v":1,"t":"nonsense","id":"ID"}`, "invalid_request"},
			{`{"v":2,"t":"ping","id":"ID"}`, "invalid_request"},
			{`{"v":1,"t":"conv.send","id":"ID","body":{"conv_id":"c0","msg_id":"bROUND","env":"e"}}`, "conv.acked even"},
			{`{"v":1,"t":"conv.send","id":"ID","body":{"conv_id":"c1","msg_id":"bROUND","env":"e"}}`, "conv.acked even"},
			{`{"v":1,"t":"client.report","id":"ID","body":{"kind":"nonsense"}}`, "invalid_request"},
		}
		const rounds = 40
		go func() {
			for n := range rounds * len(tests) {
				in := strings.NewReplacer("ID", fmt.Sprint(n), "ROUND", fmt.Sprint(n/len(tests)))
				w.say("ann", in.Replace(tests[n%len(tests)].frame))
			}
		}()
		for n := range rounds * len(tests) {
			got, want, round := w.hearAnswer("ann"), tests[n%len(tests)].want, int64(n/len(tests))
			what := got.Type
			switch {
			case got.Body.Code != "":
				what = got.Body.Code
			case got.Type == "conv.acked" && got.Body.Seq == 2*round+1:
				what += " odd"
			case got.Type == "conv.acked" && got.Body.Seq == 2*round+2:
				what += " even"
			}
			if got.ID != fmt.Sprint(n) || what != want {
				t.Fatalf("answer %d: got %+v, want %s", n, got, want)
			}
		}
		var want []string
		for n := range rounds {
			want = append(want, fmt.Sprint("a", n), fmt.Sprint("b", n))
		}
		for _, c := range []string{"c0", "c1"} {
			if got := w.stored("ann", c); !slices.Equal(got, want) {
				t.Errorf("%s holds %s", c, got)
			}
		}
	})
}

// TestPipelineFault: the database dies under a full pipeline. Every send is answered
// in its turn, what was acknowledged stands, and a repeat completes the rest, each once.
func TestPipelineFault(t *testing.T) {
	database := pgtest.Start(t, pgtest.Options{})
	w := newWorldOn(t, database.Database(t))
	w.join("ann")
	w.call2(t, "ann", "/v1/rooms/create", `{"conv_id":"c"}`)
	const n = 400
	acked := map[string]int64{}
	send := func(onAnswer func(i int)) (faults int) {
		go func() {
			for i := range n {
				w.say("ann", sendFrame(i, "c", fmt.Sprint("m", i)))
			}
		}()
		for i := range n {
			a := w.hearAnswer("ann")
			switch {
			case a.ID != fmt.Sprint(i):
				t.Fatalf("answer %d is to %s", i, a.ID)
			case a.Type == "conv.acked" && (acked[a.Body.MsgID] == 0 || acked[a.Body.MsgID] == a.Body.Seq):
				acked[a.Body.MsgID] = a.Body.Seq
			case a.Body.Code == "unavailable":
				faults++
			default:
				t.Fatalf("answer %d: %+v", i, a)
			}
			onAnswer(i)
		}
		return faults
	}
	if send(func(i int) {
		if i == n/4 {
			database.Kill()
		}
	}) == 0 {
		t.Error("the fault hit nothing")
	}
	must(t, database.Restart())
	for faults := n; faults > 0; {
		faults = send(func(int) {})
	}
	stored := w.stored("ann", "c")
	if len(stored) != n {
		t.Errorf("%d stand", len(stored))
	}
	for i, id := range stored {
		if acked[id] != int64(i+1) {
			t.Errorf("%s stands at %d and was acknowledged as %d", id, i+1, acked[id])
		}
	}
}

// hold keeps a conversation locked until the returned function is called, so that
// sends stay under way for as long as a test wants.
func hold(t *testing.T, url, conversation string) (release func()) {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	must(t, err)
	tx, err := conn.Begin(ctx)
	must(t, err)
	_, err = tx.Exec(ctx, `SELECT pos FROM logs WHERE log_id = $1 FOR UPDATE`, "c/"+conversation)
	must(t, err)
	return func() {
		must(t, tx.Rollback(ctx))
		must(t, conn.Close(ctx))
	}
}

// owing waits until the one socket of the world owes n answers, and returns it.
func (w *world) owing(n int) *socket {
	w.t.Helper()
	var found *socket
	testwait.Until(w.t, fmt.Sprintf("a socket owes %d answers", n), func() bool {
		w.server.connections.Each(func(open connection) {
			c, ok := open.(*socket)
			if !ok {
				return
			}
			c.answers.mu.Lock()
			defer c.answers.mu.Unlock()
			if len(c.answers.owed) == n {
				found = c
			}
		})
		return found != nil
	})
	return found
}

// TestPipelineIsBounded: a socket with enough under way is not read from, without an
// error; what it said in between waits in the network and is answered in turn.
func TestPipelineIsBounded(t *testing.T) {
	tests := []struct {
		name             string
		env              string
		limit, most, all int
	}{
		{"sends", "e", sendsUnderWayMax, sendsUnderWayMax, 5 * sendsUnderWayMax},
		{"bytes", strings.Repeat("x", sendBytesUnderWayMax/4), 3, 4, 12}, // each counts for a little more than its env; a pong for little
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			url := pgtest.URL(t)
			w := newWorldOn(t, url)
			w.join("ann")
			w.call2(t, "ann", "/v1/rooms/create", `{"conv_id":"c"}`)
			release := hold(t, url, "c")
			goroutines := runtime.NumGoroutine()
			said := make(chan struct{})
			go func() {
				defer close(said)
				for i := range test.all {
					w.say("ann", fmt.Sprintf(`{"v":1,"t":"conv.send","id":"%d","body":{"conv_id":"c","msg_id":"m%d","env":%q}}`, i, i, test.env))
				}
				w.say("ann", fmt.Sprintf(`{"v":1,"t":"ping","id":"%d"}`, test.all))
			}()
			c := w.owing(test.limit)
			if grown := runtime.NumGoroutine() - goroutines; grown > 8 {
				t.Errorf("%d goroutines for %d sends", grown, test.limit)
			}
			release()
			for i := range test.all {
				if got := w.hearAnswer("ann"); got.ID != fmt.Sprint(i) || got.Body.Seq != int64(i+1) {
					t.Fatalf("answer %d: %+v", i, got)
				}
				c.answers.mu.Lock()
				if n := len(c.answers.owed); n > test.most {
					t.Errorf("%d are owed", n)
				}
				c.answers.mu.Unlock()
			}
			if got := w.hearAnswer("ann"); got.Type != "pong" || got.ID != fmt.Sprint(test.all) {
				t.Errorf("got %+v", got)
			}
			<-said
		})
	}
}

// TestSendsUnderWay: whatever ends a socket with sends under way ends it cleanly, and
// the sends take effect, in their order.
func TestSendsUnderWay(t *testing.T) {
	const n = 10
	var want []string
	for i := range n {
		want = append(want, fmt.Sprint("m", i))
	}
	tests := []struct {
		name string
		end  func(w *world)
		hear func(w *world, answered int) bool // whether the end was heard after so many answers
	}{
		{"cut", func(w *world) { w.person("ann").cut() }, nil},
		{"drain", func(w *world) {
			go func() { _ = w.server.Shutdown(context.Background()) }()
			if got := w.hear("ann"); got != "closed 1001" {
				w.t.Errorf("got %s", got)
			}
		}, nil},
		{"logout", func(w *world) {
			w.call2(w.t.(*testing.T), "ann", "/v1/session/logout", "")
			if got := w.hear("ann"); !strings.Contains(got, "invalid session_token") {
				w.t.Errorf("got %s", got)
			}
			if got := w.hear("ann"); got != "closed 1008" {
				w.t.Errorf("got %s", got)
			}
		}, nil},
		{"a binary frame", func(w *world) {
			must(w.t, w.person("ann").ws.Write(context.Background(), 2, []byte("x")))
		}, func(w *world, answered int) bool {
			return answered == n && w.hear("ann") == "closed 1003"
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			url := pgtest.URL(t)
			w := newWorldOn(t, url)
			w.join("ann")
			w.call2(t, "ann", "/v1/rooms/create", `{"conv_id":"c"}`)
			release := hold(t, url, "c")
			for i := range n {
				w.say("ann", sendFrame(i, "c", want[i]))
			}
			w.owing(n)
			test.end(w)
			release()
			if test.hear != nil {
				for i := range n {
					if got := w.hearAnswer("ann"); got.ID != fmt.Sprint(i) || got.Body.Seq != int64(i+1) {
						t.Errorf("answer %d: %+v", i, got)
					}
				}
				if !test.hear(w, n) {
					t.Error("the socket did not end as it should")
				}
			}
			var got []string
			testwait.Until(t, "all are stored", func() bool {
				got = w.stored("ann", "c")
				return len(got) >= n
			})
			if !slices.Equal(got, want) {
				t.Errorf("stored %s", got)
			}
		})
	}
}

// TestDuplicatesUnderWay: the same message from two sockets, many times at once, is
// one record, and everybody is told where it stands.
func TestDuplicatesUnderWay(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorldOn(t, url)
		w.join("ann")
		w.join("bob")
		w.call2(t, "ann", "/v1/rooms/create", w.fill(`{"conv_id":"c","members":["$bob"]}`))
		const messages, times = 30, 4
		names := []string{"ann", "bob"}
		for _, name := range names {
			go func() {
				for i := range messages * times {
					w.say(name, sendFrame(i, "c", fmt.Sprint("m", i/times)))
				}
			}()
		}
		seqs := map[string]int64{}
		for _, name := range names {
			for i := range messages * times {
				a := w.hearAnswer(name)
				if known := seqs[a.Body.MsgID]; a.ID != fmt.Sprint(i) || a.Body.Seq < 1 || known != 0 && known != a.Body.Seq {
					t.Fatalf("%s, answer %d: %+v, elsewhere %d", name, i, a, known)
				}
				seqs[a.Body.MsgID] = a.Body.Seq
			}
		}
		for i, id := range w.stored("ann", "c") {
			if seqs[id] != int64(i+1) {
				t.Errorf("%s stands at %d and was acknowledged as %d", id, i+1, seqs[id])
			}
			delete(seqs, id)
		}
		if len(seqs) > 0 {
			t.Errorf("acknowledged and not there: %v", seqs)
		}
	})
}

// TestPipelineRests: the goroutine that writes answers ends when none come for a
// while, and begins again with the next.
func TestPipelineRests(t *testing.T) {
	w := newWorld(t)
	w.server.answersIdle = time.Millisecond
	w.join("ann")
	w.call2(t, "ann", "/v1/rooms/create", `{"conv_id":"c"}`)
	for i := range 50 {
		w.say("ann", sendFrame(i, "c", fmt.Sprint("m", i)))
		if got := w.hearAnswer("ann"); got.ID != fmt.Sprint(i) || got.Body.Seq != int64(i+1) {
			t.Fatalf("answer %d: %+v", i, got)
		}
		time.Sleep(time.Duration(i%5) * time.Millisecond)
	}
	c := w.owing(0)
	testwait.Until(t, "the goroutine ends", func() bool {
		c.answers.mu.Lock()
		defer c.answers.mu.Unlock()
		return !c.answers.isRunning
	})
}
