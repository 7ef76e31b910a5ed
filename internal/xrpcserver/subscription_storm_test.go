package xrpcserver

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/testmetric"
	"waxwing.im/waxwing/internal/testwait"
	"waxwing.im/waxwing/mls/wire"
)

const lastMessage = "last"

// everything reads a conversation from its beginning to the last message, in one go.
func (w *world) everything(name, id string) (words []string) {
	w.t.Helper()
	s := w.subscribe(name, formatCursor(ds.ConversationID(id), 0, 0), id)
	defer s.close()
	for {
		word := w.word(s.next())
		words = append(words, word)
		if strings.HasPrefix(word, "app "+lastMessage) {
			return words
		}
	}
}

// live makes everything happen in a conversation that can happen, at random.
func (w *world) live(id string, n int, random *rand.Rand) {
	w.t.Helper()
	ctx, ann, epoch := context.Background(), w.as("ann"), uint64(0)
	conversation := ds.ConversationID(id)
	for i := range n {
		var err error
		switch random.IntN(8) {
		case 0:
			must(w.t, w.bind(id, epoch))
			epoch++
		case 1:
			w.say("ann", id, fmt.Sprint("r", i))
			_, err = w.core.Apply(ctx, ann, core.Reaction{ConversationID: conversation, MessageID: ds.MessageID(fmt.Sprint("r", i)), Reaction: "+"})
		case 2:
			err = w.apply(ann, core.Invite{ConversationID: conversation, Accounts: w.accounts(fmt.Sprint("guest", i), fmt.Sprint("friend", i), fmt.Sprint("third", i))})
		case 3:
			guests := w.accounts("guest", "friend")
			if err = w.apply(ann, core.Invite{ConversationID: conversation, Accounts: guests}); err == nil {
				err = w.apply(ann, core.Remove{ConversationID: conversation, Accounts: guests})
			}
		case 4:
			err = w.apply(ann, core.Readdition{ConversationID: conversation})
		case 5:
			err = w.core.Announce(ctx, ann, conversation, logs.Announcement{Kind: logs.Ephemeral, Body: []byte("x")})
		default:
			w.say("ann", id, fmt.Sprint("m", i))
		}
		must(w.t, err)
	}
	w.say("ann", id, lastMessage)
}

// bind is a commit out of an epoch.
func (w *world) bind(id string, epoch uint64) error {
	_, err := w.core.Apply(context.Background(), w.as("ann"), core.Send{ConversationID: ds.ConversationID(id), ID: ds.MessageID(fmt.Sprint("commit", epoch)),
		Encoding: ds.Binary, Body: wire.Marshal(&wire.Message{WireFormat: wire.PrivateMessageFormat, Private: &wire.PrivateMessage{
			GroupID: []byte(id), Epoch: epoch, ContentType: wire.CommitContent, EncryptedSenderData: []byte("s"), Ciphertext: []byte("c")}})})
	return err
}

// storm reads conversations through disconnects at random, until it has the last
// message of each.
func storm(t *testing.T, worlds []*world, name, cursor string, random *rand.Rand, ids []string, only ...string) map[string][]string {
	got, lasts, left := map[string][]string{}, map[string]string{}, len(ids)
	for left > 0 {
		w := worlds[random.IntN(len(worlds))]
		s := w.subscribe(name, cursor, only...)
		s.last = lasts
		for range 1 + random.IntN(12) {
			event := s.next()
			cursor = s.cursor
			word := w.word(event)
			if strings.HasPrefix(word, "ephemeral") {
				continue // misses absent readers
			}
			id := idOf(event)
			got[id] = append(got[id], word)
			if strings.HasPrefix(word, "app "+lastMessage) {
				if left--; left == 0 {
					break
				}
			}
		}
		if random.IntN(2) == 0 {
			s.close()
		} else {
			_ = s.ws.CloseNow()
		}
		testwait.Until(w.t, "there is room again", func() bool {
			n, _ := w.server.subscriptions.streams.Entered(w.as(name).Account)
			return n < socketsMax-1
		})
	}
	return got
}

// idOf is the conversation of an event.
func idOf(event xrpc.Event) string {
	switch e := event.(type) {
	case *xrpc.MessageEvent:
		return e.Message.ConvoID
	case *xrpc.ReactionEvent:
		return e.ConvoID
	case *xrpc.InfoEvent:
		return e.ConvoID
	case *xrpc.MemberJoined:
		return e.ConvoID
	case *xrpc.MemberLeft:
		return e.ConvoID
	case *xrpc.EpochAdvanced:
		return e.ConvoID
	case *xrpc.MembershipChangeEvent:
		return e.ConvoID
	case *xrpc.ReadditionRequestedEvent:
		return e.ConvoID
	}
	return "?"
}

func testStorm(t *testing.T, worlds []*world) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := worlds[0]
	people := map[string]xrpc.Generation{"ben": xrpc.GenerationA, "cid": xrpc.GenerationB, "dan": xrpc.GenerationUnknown}
	for name, generation := range people {
		if generation != xrpc.GenerationUnknown {
			w.speaks(name, generation)
		}
	}
	ids := []string{"c1", "c2", "c3", "c4"}
	for _, id := range ids[:3] {
		w.room(id, "ann", "ben", "cid", "dan")
	}
	for _, w := range worlds { // all know everybody's name
		for i := range 40 {
			w.accounts(fmt.Sprint("guest", i), fmt.Sprint("friend", i), fmt.Sprint("third", i))
		}
		w.accounts("ann", "ben", "cid", "dan", "guest", "friend")
	}
	// From the beginning of each, which is where the first subscription finds the head.
	firsts := map[string]string{}
	for name := range people {
		s := w.subscribe(name, "")
		s.tell(xrpc.ClientPing, xrpc.ClientFrame{})
		s.expect("info alive heartbeat")
		firsts[name] = s.cursor
		s.close()
	}
	w.idle(t)
	var running sync.WaitGroup
	for i, id := range ids {
		running.Go(func() {
			if i == 3 { // one that they come into while they read
				w.room(id, "ann", "ben", "cid", "dan")
			}
			worlds[i%len(worlds)].live(id, 40, rand.New(rand.NewPCG(seed, uint64(i))))
		})
	}
	var mu sync.Mutex
	all, single := map[string]map[string][]string{}, map[string][]string{}
	n := uint64(100)
	for name := range people {
		n++
		random, random2 := rand.New(rand.NewPCG(seed, n)), rand.New(rand.NewPCG(seed, 2*n))
		running.Go(func() {
			got := storm(t, worlds, name, firsts[name], random, ids)
			mu.Lock()
			defer mu.Unlock()
			all[name] = got
		})
		running.Go(func() {
			got := storm(t, worlds, name, formatCursor("c1", 0, 0), random2, ids[:1], "c1")
			mu.Lock()
			defer mu.Unlock()
			single[name] = got["c1"]
		})
	}
	running.Wait()
	w.idle(t)
	for name := range people {
		for i, id := range ids {
			want := w.everything(name, id)
			if i == 0 && !slices.Equal(single[name], want) {
				t.Errorf("%s reads %s as\n%q\nand it is\n%q", name, id, single[name], want)
			}
			if i < 3 { // these began behind the record that made them
				want = want[slices.IndexFunc(want, func(word string) bool {
					return !strings.Contains("joined ann joined ben joined cid joined dan change joined ann change joined ben change joined cid change joined dan", word)
				}):]
			}
			if !slices.Equal(all[name][id], want) {
				t.Errorf("%s reads %s among all as\n%q\nand it is\n%q", name, id, all[name][id], want)
			}
		}
		w.idle(t)
	}
}

func TestResumeStorm(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) { testStorm(t, []*world{w}) })
}

func TestResumeStormOnTwoServers(t *testing.T) {
	url := pgtest.URL(t)
	testStorm(t, []*world{newWorldOn(t, url), newWorldOn(t, url)})
}

// A ticket is good on any node, and once on all of them.
func TestTicketOnTwoServers(t *testing.T) {
	url := pgtest.URL(t)
	one, two := newWorldOn(t, url), newWorldOn(t, url)
	one.room("c1", "ann")
	ticket := one.ticket("ann", "c1")
	ws, _, err := two.dial("ticket="+ticket, nil)
	must(t, err)
	_ = ws.CloseNow()
	one.refusedSocket("used elsewhere", "ticket="+ticket, "401 InvalidTicket")
}

// narrow is a client of a network with small buffers.
func narrow(bufferBytes int) *websocket.DialOptions {
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			err = conn.(*net.TCPConn).SetReadBuffer(bufferBytes)
		}
		return conn, err
	}
	return &websocket.DialOptions{HTTPClient: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// More than such a network takes.
const (
	slowCount = 80
	slowBytes = 64 << 10
)

// TestSlowReader: a client that does not read for a while misses nothing, and delays no other.
func TestSlowReader(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.door.Heartbeat = 10 * time.Minute })
	w.server.subscriptions.writeTimeout.Store((10 * time.Minute).Milliseconds()) // however slow the machine is
	w.room("c1", "ann", "ben")
	slow, quick := w.subscribeBy(narrow(256<<10), "ben", "", "c1"), w.subscribe("ann", "", "c1")
	slow.sets, quick.sets = nil, nil // so much text takes its time, and other tests hold it against the lexicons
	body := []byte(strings.Repeat("x", slowBytes))
	for i := range slowCount {
		_, err := w.core.Apply(context.Background(), w.as("ann"), core.Send{ConversationID: "c1", ID: ds.MessageID(fmt.Sprint("m", i)), Body: body, Encoding: ds.Binary})
		must(t, err)
		must(t, w.core.Announce(context.Background(), w.as("ann"), "c1", logs.Announcement{Kind: logs.Typing, IsTyping: true})) // may be missed
		quick.expect(fmt.Sprintf("app m%d %d", i, i+1))
	}
	for i := 0; i < slowCount; {
		if word := w.word(slow.next()); !strings.HasPrefix(word, "typing") {
			if want := fmt.Sprintf("app m%d %d", i, i+1); word != want {
				t.Fatalf("got %q, want %q", word, want)
			}
			i++
		}
	}
}

// Who reads nothing at all is cut off, and goes on from its cursor.
func TestStalledReader(t *testing.T) {
	w := newWorld(t)
	w.server.subscriptions.writeTimeout.Store((20 * time.Millisecond).Milliseconds())
	w.room("c1", "ann", "ben")
	stalled := w.subscribeBy(narrow(4<<10), "ben", "", "c1")
	w.say("ann", "c1", "first")
	stalled.expect("app first 1")
	body := []byte(strings.Repeat("x", slowBytes))
	for i := range slowCount {
		_, err := w.core.Apply(context.Background(), w.as("ann"), core.Send{ConversationID: "c1", ID: ds.MessageID(fmt.Sprint("m", i)), Body: body, Encoding: ds.Binary})
		must(t, err)
	}
	w.idle(t)
	if n := testmetric.Value(t, w.server.metrics.slow); n != 1 {
		t.Errorf("%g slow readers are counted", n)
	}
	w.server.subscriptions.writeTimeout.Store((10 * time.Minute).Milliseconds())
	again := w.subscribe("ben", stalled.cursor, "c1")
	again.sets = nil // as above
	for i := range slowCount {
		again.expect(fmt.Sprintf("app m%d %d", i, i+2))
	}
}

func TestEndsOfSubscriptions(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		w.room("c1", "ann", "ben", "cid")
		w.room("c2", "ann", "ben")
		ben, both, cursor := w.subscribe("ben", "", "c1"), w.subscribe("ben", "", "c1", "c2"), formatCursor("c1", 1, 0)
		w.say("ann", "c1", "m1")
		ben.expect("app m1 1")
		both.expect("app m1 1")
		late := w.ticket("ben", "c1")
		must(t, w.apply(w.as("ann"), core.Remove{ConversationID: "c1", Accounts: w.accounts("ben")}))
		w.say("ann", "c1", "m2")
		ben.ends("NotMember", websocket.StatusPolicyViolation) // of neither generation, it is told of nothing else
		w.say("ann", "c2", "n1")
		both.expect("app n1 1")
		// What came before the removal is still its, and nothing behind it.
		ws, _, err := w.dial(params("ticket", late, "cursor", cursor).Encode(), nil)
		must(t, err)
		again := &subscriber{w: w, ws: ws, last: map[string]string{}}
		again.expect("app m1 1")
		again.ends("NotMember", websocket.StatusPolicyViolation)

		cid := w.subscribe("cid", "", "c1")
		events, stop := w.events("cid", "", "", "")
		defer stop()
		shutdown, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		both.close()
		ended := make(chan error, 1)
		go func() { ended <- w.server.Shutdown(shutdown) }()
		cid.ends("", websocket.StatusGoingAway) // and answers the goodbye
		must(t, <-ended)
		if got, open := <-events; open {
			t.Errorf("behind the end: %v", got)
		}
		_, response, err := w.dial("ticket="+w.ticket("ann"), nil)
		if err == nil || response.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("after the end: %v", err)
		}
	})
}

// A client that does not answer is found out.
func TestDeadSocket(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.door.Heartbeat, s.door.PongTimeout = 10*time.Millisecond, 50*time.Millisecond })
	w.room("c1", "ann")
	w.subscribe("ann", "", "c1") // reads nothing, so it answers nothing
	w.idle(t)
}

func TestCursorsThatSayNothing(t *testing.T) {
	w := newWorld(t)
	w.room("c1", "ann")
	w.room("c2", "ann")
	w.say("ann", "c1", "m1")
	for i, cursor := range []string{"01ARZ3NDEKTSV4RRFFQ69G5FAV", "12", "x", formatCursor("c2", 1, 0), formatCursor("c1", 99, 0)} {
		s := w.subscribe("ann", cursor, "c1")
		s.expect("info compacted")
		before := s.cursor
		s.close()
		w.idle(t)
		s = w.subscribe("ann", before, "c1")
		id := fmt.Sprint("after-", i)
		w.say("ann", "c1", id)
		if m, ok := s.next().(*xrpc.MessageEvent); !ok || m.Message.ID != id {
			t.Errorf("%s: goes on with %v", cursor, m)
		}
		s.close()
		all := w.subscribe("ann", cursor)
		all.expect("info compacted")
		all.close()
		w.idle(t)
	}
}

// TestPartOfNoRecord: a cursor that claims a part of a record which does not exist keeps
// nothing of the other conversations back.
func TestPartOfNoRecord(t *testing.T) {
	w := newWorld(t)
	w.room("c1", "ann")
	w.room("c2", "ann")
	s := w.subscribe("ann", "")
	w.say("ann", "c1", "m1")
	w.say("ann", "c2", "m2")
	s.next()
	s.next()
	s.close()
	w.idle(t)
	parsed, ok := parsePlaces(s.cursor)
	if !ok {
		t.Fatalf("cursor %q", s.cursor)
	}
	forged := binary.AppendUvarint(binary.BigEndian.AppendUint64(nil, uint64(parsed.stream)), 1) // a part of the first
	forged = append(binary.AppendUvarint(forged, 1), parsed.moves...)
	s = w.subscribe("ann", formatCursor("c1", 2, partSub)+crockford.EncodeToString(forged))
	w.say("ann", "c2", "m3")
	if m, ok := s.next().(*xrpc.MessageEvent); !ok || m.Message.ID != "m3" {
		t.Errorf("goes on with %v", m)
	}
}

func BenchmarkFanOut(b *testing.B) {
	const readers = 200
	w := newWorld(b)
	names := make([]string, readers/socketsMax)
	for i := range names {
		names[i] = fmt.Sprint("reader", i)
	}
	w.room("c1", append([]string{"ann"}, names...)...)
	var reading sync.WaitGroup
	for i := range readers {
		s := w.subscribe(names[i%len(names)], "", "c1")
		reading.Go(func() {
			for range b.N {
				if _, _, err := s.ws.Read(context.Background()); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	b.ResetTimer()
	var sending sync.WaitGroup
	for sender := range 16 {
		sending.Go(func() {
			for i := sender; i < b.N; i += 16 {
				_, err := w.core.Apply(context.Background(), w.as("ann"), core.Send{ConversationID: "c1", ID: ds.MessageID(fmt.Sprint("m", i)), Body: make([]byte, 512), Encoding: ds.Binary})
				must(b, err)
			}
		})
	}
	sending.Wait()
	reading.Wait()
	b.ReportMetric(float64(b.N*readers)/b.Elapsed().Seconds(), "deliveries/s")
}
