package xrpcserver

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/testwait"
)

func isTyping(is bool) *bool { return &is }

func TestAnnouncements(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.speaks("ben", xrpc.GenerationA)
		w.speaks("cid", xrpc.GenerationB)
		w.room("c1", "ann", "ben", "cid")
		w.room("c2", "eve")
		ann, ben, cid, eve := w.subscribe("ann", "", "c1"), w.subscribe("ben", "", "c1"), w.subscribe("cid", ""), w.subscribe("eve", "")
		ann.tell(xrpc.ClientTyping, xrpc.ClientFrame{ConvoID: "c1", IsTyping: isTyping(true)})
		ben.expect("typing ann true")
		cid.expect("typing ann true")
		must(t, w.core.Announce(context.Background(), w.as("cid"), "c1", logs.Announcement{Kind: logs.Read, MessageID: "m1"}))
		must(t, w.core.Announce(context.Background(), w.as("ann"), "c1", logs.Announcement{Kind: logs.Ephemeral, Body: []byte("hush")}))
		ben.expect("read cid m1", "ephemeral hush")
		cid.expect("ephemeral hush") // B knows no readEvent
		ann.expect("ephemeral hush") // its own typing is not sent to it

		// A stranger's typing is not announced, and a stranger receives none.
		if err := w.core.Announce(context.Background(), w.as("eve"), "c1", logs.Announcement{Kind: logs.Typing}); ds.CodeOf(err) != ds.Forbidden {
			t.Errorf("a stranger announces: %v", err)
		}
		eve.tell(xrpc.ClientTyping, xrpc.ClientFrame{ConvoID: "c1", IsTyping: isTyping(true)})
		eve.tell(xrpc.ClientPing, xrpc.ClientFrame{}) // answered behind it
		eve.expect("info alive heartbeat")
		// Who was removed hears nothing behind that, and is not heard.
		must(t, w.apply(w.as("ann"), core.Remove{ConversationID: "c1", Accounts: w.accounts("cid")}))
		must(t, w.core.Announce(context.Background(), w.as("ann"), "c1", logs.Announcement{Kind: logs.Ephemeral, Body: []byte("for two")}))
		cid.expect("change removed cid")
		cid.tell(xrpc.ClientTyping, xrpc.ClientFrame{ConvoID: "c1", IsTyping: isTyping(true)})
		cid.tell(xrpc.ClientPing, xrpc.ClientFrame{})
		cid.expect("info alive heartbeat")
		ben.expect("removed cid ann", "ephemeral for two")
		w.say("ann", "c1", "m1")
		ben.expect("app m1 1")
		ann.expect("ephemeral for two", "app m1 1")
	})
}

func TestClientFrames(t *testing.T) {
	w := newWorld(t)
	w.room("c1", "ann", "ben")
	typing, err := xrpc.EncodeClientFrame(xrpc.ClientTyping, xrpc.ClientFrame{ConvoID: "c1", IsTyping: isTyping(true)})
	must(t, err)
	const prefix = `{"$type":"blue.catbird.mls.subscribeConvoEvents#`
	tests := []struct {
		name   string
		isText bool
		data   string
		ends   websocket.StatusCode // 0: the stream goes on
		silent bool                 // no error frame
	}{
		{"ping in JSON", true, prefix + `ping"}`, 0, false},
		{"an ack", true, prefix + `ack","seq":12}`, 0, false},
		{"an ack of what never was", true, prefix + `ack","seq":9007199254740993}`, 0, false},
		{"a type of later", true, prefix + `dance"}`, 0, false},
		{"a type of nobody", true, `{"$type":"com.example#x","convoId":"c1"}`, 0, false},
		{"typing elsewhere", true, prefix + `typing","convoId":"nothing","isTyping":true}`, 0, false},
		{"typing in CBOR", false, string(typing), 0, false},
		{"no type", true, `{}`, websocket.StatusPolicyViolation, false},
		{"typing nowhere", true, prefix + `typing","isTyping":true}`, websocket.StatusPolicyViolation, false},
		{"a negative ack", true, prefix + `ack","seq":-1}`, websocket.StatusPolicyViolation, false},
		{"no JSON", true, `hello`, websocket.StatusPolicyViolation, false},
		{"a list", true, `[]`, websocket.StatusPolicyViolation, false},
		{"nothing", true, ``, websocket.StatusPolicyViolation, false},
		{"no CBOR", false, "\xff\xff", websocket.StatusPolicyViolation, false},
		{"CBOR and more", false, string(typing) + "\x00", websocket.StatusPolicyViolation, false},
		{"CBOR cut off", false, string(typing[:len(typing)-1]), websocket.StatusPolicyViolation, false},
		{"CBOR without end", false, "\x9b\xff\xff\xff\xff\xff\xff\xff\xff", websocket.StatusPolicyViolation, false},
		{"too long", true, strings.Repeat(" ", xrpc.ClientFrameMax+1), websocket.StatusMessageTooBig, true},
	}
	for _, test := range tests {
		ann := w.subscribe("ann", "", "c1")
		kind := websocket.MessageBinary
		if test.isText {
			kind = websocket.MessageText
		}
		must(t, ann.ws.Write(context.Background(), kind, []byte(test.data)))
		switch {
		case test.ends == 0:
			ann.tell(xrpc.ClientPing, xrpc.ClientFrame{})
			if got := w.word(ann.next()); got != "info alive heartbeat" {
				t.Errorf("%s: %s", test.name, got)
			}
			ann.close()
		case test.silent:
			ann.ends("", test.ends)
		default:
			ann.ends(xrpc.ErrorInvalidRequest, test.ends)
		}
		w.idle(t)
	}
	// What is said too often is passed over, and ends nothing.
	ann, ben := w.subscribe("ann", "", "c1"), w.subscribe("ben", "", "c1")
	for range 1000 {
		must(t, ann.ws.Write(context.Background(), websocket.MessageBinary, typing))
	}
	w.say("ann", "c1", "m1")
	ann.expect("app m1 1")
	for typings := 0; ; typings++ {
		if w.word(ben.next()) == "app m1 1" {
			break
		}
		if typings > 2*typingsAtOnce {
			t.Fatal("more typing than allowed is passed on")
		}
	}
}

// idle waits until no subscription is open.
func (w *world) idle(t *testing.T) {
	t.Helper()
	testwait.Until(t, "all subscriptions are closed", func() bool {
		_, n := w.server.subscriptions.streams.Entered("")
		return n == 0
	})
}

func FuzzClientFrame(f *testing.F) {
	f.Add([]byte(`{"$type":"#typing","convoId":"c1","isTyping":true}`), true)
	f.Add([]byte("\xa1\x65$type\x65#ping"), false)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, data []byte, isText bool) {
		frame, err := xrpc.DecodeClientFrame(data, isText)
		if err == nil && frame.Kind() == xrpc.ClientTyping && (frame.ConvoID == "" || frame.IsTyping == nil) {
			t.Errorf("%q is typing nowhere", data)
		}
	})
}

// FuzzPlaces holds that whatever is read as the cursor of several conversations is written
// the same again.
func FuzzPlaces(f *testing.F) {
	w := newWorld(f)
	p := &places{position: w.logs.Streams.NewPosition(w.as("ann"))}
	p.add("c1", 1)
	p.add("c2", 2)
	must(f, p.position.Open(context.Background()))
	defer p.position.Close()
	p.advance(1, 5)
	rest, _ := p.appendRest(nil)
	f.Add(formatCursor("c2", 5, 0) + string(rest))
	p.sent(1, 3)
	rest, _ = p.appendRest(nil)
	f.Add(formatCursor("c2", 5, partSub+2) + string(rest))
	f.Fuzz(func(t *testing.T, text string) {
		c, ok := parsePlaces(text)
		if !ok || c.partial >= 1<<20 || c.skip >= 1<<20 {
			return
		}
		raw := binary.AppendUvarint(binary.BigEndian.AppendUint64(nil, uint64(c.stream)), uint64(c.partial))
		if c.partial != 0 {
			raw = binary.AppendUvarint(raw, uint64(c.skip))
		}
		if again := crockford.EncodeToString(append(raw, c.moves...)); again != text[cursorSize:] {
			t.Errorf("%q is written %q", text[cursorSize:], again)
		}
	})
}

// In JSON the same events come as text, and over text/event-stream the ids are cursors.
func TestJSON(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.room("c1", "ann", "ben")
		ws, _, err := w.dial("ticket="+w.ticket("ben", "c1"), &websocket.DialOptions{Subprotocols: []string{jsonProtocol}})
		must(t, err)
		if ws.Subprotocol() != jsonProtocol {
			t.Errorf("the subprotocol is %q", ws.Subprotocol())
		}
		events, stop := w.events("ben", "c1", "", params("convoId", "c1").Encode())
		w.say("ann", "c1", "m1")
		w.say("ann", "c1", "m2")
		kind, data, err := ws.Read(context.Background())
		must(t, err)
		var e struct {
			Type    string `json:"$type"`
			Seq     int
			Cursor  string
			Message struct{ ID string }
		}
		must(t, json.Unmarshal(data, &e))
		if kind != websocket.MessageText || e.Type != xrpc.SubscribeEvents+"#messageEvent" || e.Seq != 1 || e.Message.ID != "m1" || e.Cursor != formatCursor("c1", 2, 0) {
			t.Errorf("got %s", data)
		}
		if first, second := <-events, <-events; first.word != "m1" || second.word != "m2" || first.id != e.Cursor {
			t.Errorf("over SSE: %v, %v", first, second)
		}
		stop()
		again, stop := w.events("ben", "", e.Cursor, "ticket="+w.ticket("ben", "c1"))
		if got := <-again; got.word != "m2" {
			t.Errorf("behind m1: %v", got)
		}
		must(t, w.apply(w.as("ann"), core.Remove{ConversationID: "c1", Accounts: w.accounts("ben")}))
		if got := <-again; got.word != "NotMember" {
			t.Errorf("at the end: %v", got)
		}
		if got, open := <-again; open {
			t.Errorf("behind the end: %v", got)
		}
		stop()
		for name, want := range map[string]int{"eve": http.StatusForbidden, "": http.StatusUnauthorized} {
			r := w.request(name, xrpc.SubscribeEvents, params("convoId", "c1"))
			r.Header.Set("Accept", "text/event-stream")
			response, err := http.DefaultClient.Do(r)
			must(t, err)
			response.Body.Close()
			if response.StatusCode != want {
				t.Errorf("%q: %d", name, response.StatusCode)
			}
		}
		w.call("ann", xrpc.SubscribeEvents, params("ticket", w.ticket("ann"))).refused("426 InvalidRequest")
	})
}

type item struct{ id, word string }

// events reads text/event-stream with a token of a person, or with what query has.
func (w *world) events(name, _, last, query string) (<-chan item, func()) {
	w.t.Helper()
	if strings.HasPrefix(query, "ticket=") {
		name = ""
	}
	r := w.request(name, xrpc.SubscribeEvents, params())
	r.URL.RawQuery = query
	ctx, cancel := context.WithCancel(context.Background())
	r = r.WithContext(ctx)
	r.Header.Set("Accept", "text/event-stream")
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	response, err := http.DefaultClient.Do(r)
	must(w.t, err)
	if response.StatusCode != http.StatusOK || !strings.HasPrefix(response.Header.Get("Content-Type"), "text/event-stream") {
		w.t.Fatalf("%d %s", response.StatusCode, response.Header.Get("Content-Type"))
	}
	items := make(chan item, 1000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(items)
		defer response.Body.Close()
		lines, id := bufio.NewScanner(response.Body), ""
		lines.Buffer(nil, 1<<24)
		for lines.Scan() {
			if text, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				id = text
			}
			text, ok := strings.CutPrefix(lines.Text(), "data: ")
			if !ok {
				continue
			}
			var e struct {
				Error   string
				Message json.RawMessage
			}
			_ = json.Unmarshal([]byte(text), &e)
			var m struct{ ID string }
			_ = json.Unmarshal(e.Message, &m)
			items <- item{id, m.ID + e.Error}
		}
	}()
	stop := func() { cancel(); <-done }
	w.t.Cleanup(stop)
	return items, stop
}
