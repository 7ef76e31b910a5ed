package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/mls"
)

// madeUpCursor is one of the middleman's, which leads back to the beginning.
const madeUpCursor = "more"

// xrpcMiddleman stands between a client over XRPC and the server. It changes answers,
// makes events up and counts what is called.
type xrpcMiddleman struct {
	w      *world
	server *httptest.Server

	mu      sync.Mutex
	rewrite func(nsid string, query url.Values, answer []byte) []byte // guarded by mu; nil: as they are
	calls   map[string]int                                            // by method; guarded by mu
	changed int                                                       // answers that are not what the server said; guarded by mu
	isDeaf  bool                                                      // the server's own events are not passed on; guarded by mu
	events  chan xrpc.Event                                           // for the client
}

func newXRPCMiddleman(w *world) *xrpcMiddleman {
	m := &xrpcMiddleman{w: w, calls: map[string]int{}, events: make(chan xrpc.Event)}
	target, err := url.Parse(w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			if query := r.Out.URL.Query(); query.Get("cursor") == madeUpCursor {
				query.Del("cursor")
				r.Out.URL.RawQuery = query.Encode()
			}
		},
		ModifyResponse: func(r *http.Response) error {
			body, err := io.ReadAll(r.Body)
			r.Body.Close()
			if err != nil {
				return err // the client has gone, and half an answer is none
			}
			if r.StatusCode == http.StatusOK {
				body = m.answer(strings.TrimPrefix(r.Request.URL.Path, "/xrpc/"), r.Request.URL.Query(), body)
			}
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			r.Header.Set("Content-Length", fmt.Sprint(len(body)))
			return nil
		},
	}
	mux := http.NewServeMux()
	mux.Handle("/", proxy)
	mux.HandleFunc("/xrpc/"+xrpc.SubscribeEvents, func(rw http.ResponseWriter, r *http.Request) { m.socket(rw, r, target) })
	m.server = httptest.NewServer(mux)
	w.t.Cleanup(func() { m.server.Close(); http.DefaultTransport.(*http.Transport).CloseIdleConnections() })
	return m
}

func (m *xrpcMiddleman) answer(nsid string, query url.Values, body []byte) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls[nsid]++
	if m.rewrite == nil {
		return body
	}
	out := m.rewrite(nsid, query, body)
	if !bytes.Equal(out, body) {
		m.changed++
	}
	return out
}

func (m *xrpcMiddleman) socket(rw http.ResponseWriter, r *http.Request, target *url.URL) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	address := target.JoinPath(r.URL.Path)
	address.RawQuery = r.URL.RawQuery
	up, _, err := websocket.Dial(ctx, address.String(), nil)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadGateway)
		return
	}
	defer up.CloseNow()
	down, err := websocket.Accept(rw, r, nil)
	if err != nil {
		return
	}
	defer down.CloseNow()
	down.CloseRead(ctx)
	frames := make(chan []byte)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer cancel()
		for {
			_, data, err := up.Read(ctx)
			if err != nil {
				return
			}
			select {
			case frames <- data:
			case <-ctx.Done():
				return
			}
		}
	})
	for err == nil && ctx.Err() == nil {
		select {
		case data := <-frames:
			m.mu.Lock()
			isDeaf := m.isDeaf
			m.mu.Unlock()
			if !isDeaf {
				err = down.Write(ctx, websocket.MessageBinary, data)
			}
		case event := <-m.events:
			var frame xrpc.Frame
			if frame, err = xrpc.NewFrame(event); err == nil {
				err = down.Write(ctx, websocket.MessageBinary, frame.Append(nil, 1))
			}
		case <-ctx.Done():
		}
	}
	cancel()
	reading.Wait()
}

// tells makes events up. When it returns the client's connection has taken all but the last.
func (m *xrpcMiddleman) tells(events ...xrpc.Event) {
	m.w.t.Helper()
	for _, event := range events {
		select {
		case m.events <- event:
		case <-m.w.ctx.Done():
			m.w.t.Fatal("nobody takes an event")
		}
	}
}

// lies lets the middleman change answers, or be honest, and gives how many it has changed.
func (m *xrpcMiddleman) lies(how func(nsid string, query url.Values, answer []byte) []byte) (changed int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed = m.changed
	m.rewrite, m.changed = how, 0
	return changed
}

func (m *xrpcMiddleman) lied() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

func (m *xrpcMiddleman) called() (all int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.calls {
		all += n
	}
	return all
}

// isBounded checks that the client does not call again and again: it waits between
// attempts, so that in a moment there are only a few.
func (m *xrpcMiddleman) isBounded(what string, most int) {
	m.w.t.Helper()
	before := m.called()
	pause(m.w.ctx, 600*time.Millisecond)
	if calls := m.called() - before; calls > most {
		m.w.t.Errorf("%s: %d calls in a moment", what, calls)
	}
}

// onAnswer changes the answers of one method.
func onAnswer[T any](t *testing.T, nsid string, change func(query url.Values, answer *T)) func(string, url.Values, []byte) []byte {
	return func(called string, query url.Values, body []byte) []byte {
		if called != nsid {
			return body
		}
		var answer T
		if err := json.Unmarshal(body, &answer); err != nil {
			t.Errorf("%s answers %s", nsid, body)
			return body
		}
		change(query, &answer)
		out, err := json.Marshal(answer)
		if err != nil {
			t.Error(err)
		}
		return out
	}
}

// onLog changes what getMessages answers about a conversation's log.
func onLog(t *testing.T, room string, change func(since string, answer *xrpc.GetMessagesOutput)) func(string, url.Values, []byte) []byte {
	return onAnswer(t, xrpc.GetMessages, func(query url.Values, answer *xrpc.GetMessagesOutput) {
		if query.Get("convoId") == room && query.Get("type") == "" {
			change(query.Get("sinceSeq"), answer)
		}
	})
}

// newHostileXRPCWorld is a world in which ann is at the server, and xara is over XRPC
// behind a middleman.
func newHostileXRPCWorld(t *testing.T) (w *world, middle *xrpcMiddleman, ann, xara *person) {
	w = newXRPCWorld(t, "xara")
	middle = newXRPCMiddleman(w)
	ann, xara = w.person("ann"), w.person("xara")
	xara.options.Server = middle.server.URL
	ann.open()
	xara.open()
	return w, middle, ann, xara
}

// TestXRPCHostileLog: whatever a server answers when the log is read, messages are
// neither lost nor doubled nor taken from elsewhere, and it is asked again with patience.
func TestXRPCHostileLog(t *testing.T) {
	w, middle, ann, xara := newHostileXRPCWorld(t)
	room := w.room(ann, xara)
	dm := ann.dm(xara)
	ann.says(dm, "in the other conversation")
	xara.reads("in the other conversation")
	var want []string
	var whole xrpc.GetMessagesOutput // the log as it was
	for _, story := range []struct {
		name string
		lie  func(since string, answer *xrpc.GetMessagesOutput)
	}{
		{"half an answer", nil},
		{"the log of another conversation", func(_ string, a *xrpc.GetMessagesOutput) {
			for i := range a.Messages {
				a.Messages[i].ConvoID = dm
			}
		}},
		{"its first message is missing", func(_ string, a *xrpc.GetMessagesOutput) { a.Messages = a.Messages[min(1, len(a.Messages)):] }},
		{"its second message is missing", func(_ string, a *xrpc.GetMessagesOutput) {
			if len(a.Messages) > 2 {
				a.Messages = slices.Delete(a.Messages, 1, 2)
			}
		}},
		{"every message twice", func(_ string, a *xrpc.GetMessagesOutput) {
			var out xrpc.List[xrpc.MessageView]
			for _, m := range a.Messages {
				out = append(out, m, m)
			}
			a.Messages = out
		}},
		{"a page that does not end", func(_ string, a *xrpc.GetMessagesOutput) {
			a.Messages, a.GapInfo = whole.Messages, &xrpc.GapInfo{TotalMessages: 1 << 40}
		}},
		{"places that no log comes to", func(_ string, a *xrpc.GetMessagesOutput) {
			for i := range a.Messages {
				a.Messages[i].Seq = 1<<62 + int64(i)
			}
			a.GapInfo = &xrpc.GapInfo{HasGaps: true, TotalMessages: 1<<63 - 1}
		}},
	} {
		t.Run(story.name, func(t *testing.T) {
			xara.close()
			for i := range 4 {
				text := fmt.Sprint(story.name, " ", i)
				want = append(want, text)
				ann.says(room, text)
			}
			if err := ann.Flush(w.ctx); err != nil {
				t.Fatal(err)
			}
			lie := func(nsid string, query url.Values, body []byte) []byte {
				if nsid == xrpc.GetMessages && query.Get("convoId") == room {
					return body[:len(body)/2]
				}
				return body
			}
			if story.lie != nil {
				lie = onLog(t, room, story.lie)
			}
			middle.lies(lie)
			xara.open()
			w.eventually("the lie is told again", func() bool { return middle.lied() >= 2 })
			middle.isBounded(story.name, 40)
			if n := xara.Stats().Connects; n > 1 {
				t.Errorf("all that xara does has begun again %d times", n-1)
			}
			middle.lies(onLog(t, room, func(_ string, a *xrpc.GetMessagesOutput) { whole.Messages = append(whole.Messages, a.Messages...) }))
			xara.net.cut() // rather than to wait until it is asked again
			last := want[len(want)-1]
			w.eventually("xara has read everything", func() bool { return slices.Contains(xara.transcript(room), last) })
			if got := xara.transcript(room); !slices.Equal(got, want) {
				t.Fatalf("xara has %q, want %q", got, want)
			}
			if s := xara.Stats(); s.Undecryptable+s.Rewinds+s.Rejoins != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
	if got := xara.transcript(dm); len(got) != 1 {
		t.Errorf("the other conversation has %q", got)
	}
	middle.lies(nil)
	w.agree(room, ann, xara)
}

// TestXRPCHostileCommit: a commit that the server has cut is not followed, and the device
// enters the group anew.
func TestXRPCHostileCommit(t *testing.T) {
	w, middle, ann, xara := newHostileXRPCWorld(t)
	room := w.room(ann, xara)
	before := xara.must(room).Epoch
	xara.close()
	if err := ann.Refresh(w.ctx, room); err != nil {
		t.Fatal(err)
	}
	w.eventually("the epoch ends", func() bool { return ann.must(room).Epoch > before })
	middle.lies(onLog(t, room, func(_ string, a *xrpc.GetMessagesOutput) {
		for i := range a.Messages {
			if m := &a.Messages[i]; m.MessageType == "commit" && m.Epoch == int64(before)+1 {
				m.Ciphertext = m.Ciphertext[:len(m.Ciphertext)/2]
			}
		}
	}))
	xara.open()
	xara.nextType(EventUndecryptable)
	xara.nextType(EventRejoined)
	w.agree(room, ann, xara)
	ann.says(room, "still here?")
	xara.reads("still here?")
	if middle.lies(nil) == 0 {
		t.Error("nothing was cut")
	}
}

// TestXRPCHostileEvents: events that the server has made up, or sends again and again,
// change nothing and cost a bounded number of calls.
func TestXRPCHostileEvents(t *testing.T) {
	w, middle, ann, xara := newHostileXRPCWorld(t)
	room := w.room(ann, xara)
	ann.says(room, "one")
	xara.reads("one")
	w.eventually("all is quiet", func() bool {
		before := middle.called()
		pause(w.ctx, 200*time.Millisecond)
		return middle.called() == before
	})
	message := xrpc.MessageView{ID: newMessageID(), ConvoID: room, Ciphertext: []byte("again"), Seq: 1, CreatedAt: xrpc.Time{Time: time.Now()}}
	before := middle.called()
	for range 200 {
		middle.tells(&xrpc.MessageEvent{Message: message}, &xrpc.InfoEvent{Info: "alive", InfoType: "heartbeat"})
	}
	if calls := middle.called() - before; calls > 20 {
		t.Errorf("events of what was read have made %d calls", calls)
	}
	for i := range 20 {
		unknown := fmt.Sprintf("%064x", i)
		message.ConvoID = unknown
		middle.tells(&xrpc.MessageEvent{Message: message}, &xrpc.MembershipChangeEvent{ConvoID: unknown, DID: xara.did(), Action: "left"},
			&xrpc.MembershipChangeEvent{ConvoID: unknown, DID: ann.did(), Action: "joined"}, &xrpc.EpochAdvanced{ConvoID: unknown})
	}
	for _, id := range []string{"", choreList, polledWelcomes} {
		message.ConvoID = id
		middle.tells(&xrpc.MessageEvent{Message: message}, &xrpc.MembershipChangeEvent{ConvoID: id, DID: xara.did(), Action: "joined"})
	}
	middle.tells(&xrpc.MembershipChangeEvent{ConvoID: room, DID: xara.did(), Action: "left"},
		&xrpc.MemberLeft{ConvoID: room, DID: xara.did(), Action: "removed"}, &xrpc.MemberLeft{ConvoID: room, DID: ann.did(), Action: "left"})
	ann.says(room, "two")
	xara.reads("two")
	middle.isBounded("after made up events", 40)
	if all, err := xara.Conversations(w.ctx); err != nil || len(all) != 1 || all[0].Phase != Joined || len(all[0].Members) != 2 {
		t.Errorf("xara has %+v, %v", all, err)
	}
	for e, err := range xara.Events(w.ctx, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == EventRemoved || e.Type == EventUndecryptable {
			t.Errorf("xara is told %+v", e)
		}
		if string(e.Text) == "two" {
			break
		}
	}
	xara.says(room, "three")
	ann.reads("three")
	// What the stream has passed over is read when it says so.
	middle.mu.Lock()
	middle.isDeaf = true
	middle.mu.Unlock()
	for i, about := range []string{room, ""} {
		text := fmt.Sprint("passed over ", i)
		ann.says(room, text)
		ann.reads(text)
		middle.tells(&xrpc.InfoEvent{Info: "compacted", ConvoID: about})
		xara.reads(text)
	}
}

// TestXRPCHostileList: a list of conversations that does not end is not read for ever.
func TestXRPCHostileList(t *testing.T) {
	w, middle, ann, xara := newHostileXRPCWorld(t)
	w.room(ann, xara)
	xara.close()
	middle.lies(onAnswer(t, xrpc.GetConvos, func(_ url.Values, a *xrpc.GetConvosOutput) { a.Cursor = madeUpCursor }))
	xara.open()
	w.eventually("the list is asked for", func() bool { return middle.lied() >= 3 })
	middle.isBounded("a list without an end", 40)
	middle.lies(nil)
	w.eventually("the list is whole", func() bool { list, err := xara.xrpcDoor().list(w.ctx); return err == nil && len(list) == 1 })
}

// TestXRPCHostileWelcome: a Welcome of somebody else, or into a group of the server's, is
// not taken, and the right one is, later.
func TestXRPCHostileWelcome(t *testing.T) {
	w := newXRPCWorld(t, "xara")
	middle := newXRPCMiddleman(w)
	ann, xara, eve := w.person("ann"), w.person("xara"), w.person("eve")
	xara.options.Server = middle.server.URL
	for _, p := range []*person{ann, xara, eve} {
		p.open()
		if err := p.WaitOnline(w.ctx); err != nil {
			t.Fatal(err)
		}
	}
	// published is a key package of somebody's, and welcome one into a group for it.
	published := func(of *person) (message []byte) {
		w.eventually(of.name+" has published", func() bool {
			for _, k := range of.packages() {
				if k.LastResort {
					message = of.message(k)
				}
			}
			return message != nil
		})
		return message
	}
	welcome := func(to *person) []byte {
		group, err := mls.NewGroup(groupSuite, bytes.Repeat([]byte{7}, groupIDBytes), eve.identity, mls.GroupOptions{})
		if err != nil {
			t.Fatal(err)
		}
		commit, err := group.Commit(mls.CommitOptions{Add: [][]byte{published(to)}})
		if err != nil {
			t.Fatal(err)
		}
		return commit.Welcome()
	}
	for _, story := range []struct {
		name    string
		welcome []byte
		isTold  bool
	}{
		{"of somebody else", welcome(ann), false},
		{"for another group", welcome(xara), true},
		{"noise", []byte("noise"), false},
	} {
		middle.lies(onAnswer(t, xrpc.GetGroupState, func(query url.Values, a *xrpc.GetGroupStateOutput) {
			if query.Get("include") == "welcome" {
				a.Welcome = xrpc.Blob{Data: story.welcome, Shape: xrpc.ShapeBytes}
			}
		}))
		room, err := ann.CreateRoom(w.ctx, xara.did())
		if err != nil {
			t.Fatal(err)
		}
		ann.joins(room)
		if story.isTold {
			if e := xara.nextType(EventProblem); e.Conversation != room || !errors.Is(e.Err(), ErrWelcome) {
				t.Errorf("%s: xara is told %+v", story.name, e)
			}
		}
		w.eventually("the lie is told", func() bool { return middle.lied() >= 1 })
		middle.isBounded(story.name, 40)
		if c, err := xara.Conversation(w.ctx, room); err == nil && (c.Phase == Joined || len(c.Members) != 0) {
			t.Errorf("%s: xara is in it: %+v", story.name, c)
		}
		middle.lies(nil)
		xara.net.cut()
		xara.joins(room)
		w.agree(room, ann, xara)
	}
}

// TestXRPCListAfterEnd: what the server's list says comes too late when the connection
// has ended meanwhile, and is dropped.
func TestXRPCListAfterEnd(t *testing.T) {
	w := newXRPCWorld(t)
	ann := w.people("ann")[0]
	if err := ann.WaitOnline(w.ctx); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		if err := ann.db.update(w.ctx, func(tx *tx) error {
			tx.addConversation(fmt.Sprintf("%064x", i), Waiting, conversationInfo{Kind: Room}, ann.now())
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	ann.xrpcDoor().mu.Lock()
	link := ann.xrpcDoor().link
	ann.xrpcDoor().mu.Unlock()
	if link == nil {
		t.Fatal("there is no connection")
	}
	link.close()
	door := &xrpcDoor{c: ann.Client, audience: ann.xrpcDoor().audience, link: link}
	if _, _, err := door.conversations(w.ctx, ""); err != nil {
		t.Fatal(err)
	}
}
