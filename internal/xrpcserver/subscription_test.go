package xrpcserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/lexicons"
)

// as is a person as core knows it.
func (w *world) as(name string) ds.Caller { return ds.Caller{Account: ds.AccountID(w.did(name))} }

func (w *world) accounts(names ...string) []ds.AccountID {
	var list []ds.AccountID
	for _, name := range names {
		list = append(list, ds.AccountID(w.did(name)))
	}
	return list
}

// room is a conversation, the first its owner.
func (w *world) room(id string, names ...string) {
	w.t.Helper()
	must(w.t, w.apply(w.as(names[0]), core.Create{ConversationID: ds.ConversationID(id), Accounts: w.accounts(names[1:]...)}))
}

func (w *world) say(name, id, message string) {
	w.t.Helper()
	_, err := w.core.Apply(context.Background(), w.as(name), core.Send{ConversationID: ds.ConversationID(id), ID: ds.MessageID(message),
		Body: []byte("body of " + message), Encoding: ds.Binary})
	must(w.t, err)
}

// speaks makes the devices of a person be of a generation.
func (w *world) speaks(name string, generation xrpc.Generation) {
	w.t.Helper()
	must(w.t, w.store.Update(context.Background(), func(tx *store.Tx) error {
		return tx.Devices.Register(store.Registration{Device: ds.Device{Account: w.as(name).Account, ID: ds.DeviceID(name + "-phone")}, Name: "phone",
			SignatureKey: []byte(name), Generation: int(generation)})
	}))
}

func (w *world) ticket(name string, ids ...string) string {
	w.t.Helper()
	var out xrpc.GetSubscriptionTicketOutput
	w.call(name, xrpc.GetSubscriptionTicket, object{"convoIds": append([]string{}, ids...)}).into(&out)
	return out.Ticket
}

// subscriber is a client of subscribeEvents.
type subscriber struct {
	w      *world
	ws     *websocket.Conn
	sets   []lexicons.Set
	seq    int64
	cursor string            // of the last event
	last   map[string]string // cursors by conversation
}

func (w *world) dial(query string, o *websocket.DialOptions) (*websocket.Conn, *http.Response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	ws, response, err := websocket.Dial(ctx, strings.Replace(w.http.URL, "http", "ws", 1)+"/xrpc/"+xrpc.SubscribeEvents+"?"+query, o)
	if err == nil {
		ws.SetReadLimit(1 << 26)
		w.t.Cleanup(func() { _ = ws.CloseNow() })
	}
	return ws, response, err
}

// subscribe opens a subscription of a person, who speaks as its devices do, or of neither
// generation.
func (w *world) subscribe(name, cursor string, ids ...string) *subscriber {
	w.t.Helper()
	return w.subscribeBy(nil, name, cursor, ids...)
}

func (w *world) subscribeBy(o *websocket.DialOptions, name, cursor string, ids ...string) *subscriber {
	w.t.Helper()
	ws, _, err := w.dial(params("ticket", w.ticket(name, ids...), "cursor", cursor).Encode(), o)
	must(w.t, err)
	generation, err := w.directory.RememberedGeneration(context.Background(), w.as(name).Account)
	must(w.t, err)
	sets := map[xrpc.Generation][]lexicons.Set{xrpc.GenerationA: {lexicons.A}, xrpc.GenerationB: {lexicons.B}, xrpc.GenerationUnknown: {lexicons.A, lexicons.B}}
	return &subscriber{w: w, ws: ws, sets: sets[xrpc.Generation(generation)], last: map[string]string{}}
}

// next reads an event and holds it against the lexicons, the counter and the order of
// cursors.
func (s *subscriber) next() xrpc.Event {
	s.w.t.Helper()
	event, err := s.read()
	must(s.w.t, err)
	return event
}

func (s *subscriber) read() (xrpc.Event, error) {
	s.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	kind, data, err := s.ws.Read(ctx)
	if err != nil {
		return nil, err
	}
	if kind != websocket.MessageBinary {
		s.w.t.Errorf("a text frame: %s", data)
	}
	event, seq, err := xrpc.DecodeFrame(data)
	if err != nil {
		return nil, err
	}
	s.check(event, seq)
	return event, nil
}

func (s *subscriber) check(event xrpc.Event, seq int64) {
	s.w.t.Helper()
	if s.seq++; seq != s.seq {
		s.w.t.Errorf("frame %d has the number %d", s.seq, seq)
	}
	text, err := xrpc.EventJSON(event, 0)
	must(s.w.t, err)
	for _, set := range s.sets {
		if err := lexicons.Validate(set, xrpc.SubscribeEvents, "message", text); err != nil {
			s.w.t.Errorf("%s is not what the lexicon of generation %v says: %v", text, set, err)
		}
	}
	var fields struct {
		Cursor, ConvoID string
		Message         struct{ ConvoID string }
	}
	must(s.w.t, json.Unmarshal(text, &fields))
	id := fields.ConvoID + fields.Message.ConvoID
	if fields.Cursor <= s.last[id] {
		s.w.t.Errorf("%s: the cursor %s comes after %s", id, fields.Cursor, s.last[id])
	}
	if len(fields.Cursor) > cursorTextMax {
		s.w.t.Errorf("a cursor of %d characters", len(fields.Cursor))
	}
	s.cursor, s.last[id] = fields.Cursor, fields.Cursor
}

// expect reads as many events as are named, each as word says it.
func (s *subscriber) expect(want ...string) {
	s.w.t.Helper()
	for _, one := range want {
		if got := s.w.word(s.next()); got != one {
			s.w.t.Fatalf("got %q, want %q", got, one)
		}
	}
}

// ends reads to the end, which must be the error, and with that status.
func (s *subscriber) ends(name string, status websocket.StatusCode) {
	s.w.t.Helper()
	_, err := s.read()
	var end *xrpc.StreamError
	if name != "" {
		if !errors.As(err, &end) || end.Name != name {
			s.w.t.Errorf("got %v, want the error %s", err, name)
			return
		}
		_, err = s.read()
	}
	if got := websocket.CloseStatus(err); got != status {
		s.w.t.Errorf("got %v, want the status %d", err, status)
	}
}

func (s *subscriber) close() {
	_ = s.ws.Close(websocket.StatusNormalClosure, "")
}

func (s *subscriber) tell(kind xrpc.ClientFrameKind, frame xrpc.ClientFrame) {
	s.w.t.Helper()
	data, err := xrpc.EncodeClientFrame(kind, frame)
	must(s.w.t, err)
	must(s.w.t, s.ws.Write(context.Background(), websocket.MessageBinary, data))
}

// word is an event in short, people by name.
func (w *world) word(event xrpc.Event) string {
	text := ""
	switch e := event.(type) {
	case *xrpc.MessageEvent:
		text = fmt.Sprintf("%s %s %d", e.Message.MessageType, e.Message.ID, e.Message.Seq)
		if e.Ephemeral {
			text = "ephemeral " + string(e.Message.Ciphertext)
		}
	case *xrpc.ReactionEvent:
		text = fmt.Sprintf("reaction %s %s %s %s", e.Action, e.DID, e.Reaction, e.MessageID)
	case *xrpc.TypingEvent:
		text = fmt.Sprintf("typing %s %v", e.DID, e.IsTyping)
	case *xrpc.NewDeviceEvent:
		text = fmt.Sprintf("device %s %s", e.DeviceCredentialDID, e.PendingAdditionID)
	case *xrpc.InfoEvent:
		text = strings.TrimSpace(fmt.Sprintf("info %s %s %s", e.Info, e.InfoType, e.RequestedBy))
	case *xrpc.MemberJoined:
		text = "joined " + e.DID
	case *xrpc.MemberLeft:
		text = e.Action + " " + e.DID + " " + e.Actor
	case *xrpc.MembershipChangeEvent:
		text = "change " + e.Action + " " + e.DID
	case *xrpc.EpochAdvanced:
		text = fmt.Sprintf("epoch %d", e.Epoch)
	case *xrpc.TreeChanged:
		text = fmt.Sprintf("tree %d %s", e.Epoch, e.ConfirmationTag)
	case *xrpc.ConversationUpdated:
		text = fmt.Sprintf("updated %v", e.UpdatedFields)
	case *xrpc.ReadEvent:
		text = fmt.Sprintf("read %s %s", e.DID, e.MessageID)
	case *xrpc.GroupInfoRefreshRequestedEvent:
		text = "wanted groupInfo " + e.RequestedBy
	case *xrpc.ReadditionRequestedEvent:
		text = "wanted readdition " + e.RequestedBy
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, key := range w.keys {
		text = strings.ReplaceAll(text, key.DID(), name)
	}
	return strings.TrimSpace(text)
}

func TestSubscription(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.room("c1", "ann", "ben")
		ben := w.subscribe("ben", "", "c1")
		w.say("ann", "c1", "m1")
		ben.expect("app m1 1")
		first := ben.cursor
		w.say("ann", "c1", "m2")
		ben.expect("app m2 2")
		ben.close()
		w.say("ann", "c1", "m3")
		w.subscribe("ben", first, "c1").expect("app m2 2", "app m3 3")
		all := w.subscribe("ben", "")
		w.room("c2", "ann", "ben", "cid")
		w.speaks("cid", xrpc.GenerationA)
		w.say("ann", "c2", "n1")
		all.expect("app n1 1")
		w.say("ann", "c1", "m4")
		all.expect("app m4 4")
		cursor := all.cursor
		all.close()
		w.say("ann", "c2", "n2")
		w.room("c3", "ann", "ben")
		w.say("ann", "c3", "o1")
		again := w.subscribe("ben", cursor)
		got := map[string]bool{w.word(again.next()): true, w.word(again.next()): true}
		if !got["app n2 2"] || !got["app o1 1"] {
			t.Errorf("got %v", got)
		}
	})
}

func TestTickets(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.room("c1", "ann", "ben")
		w.call("cid", xrpc.GetSubscriptionTicket, object{"convoIds": []string{"c1"}}).refused("403 NotMember")
		w.call("ann", xrpc.GetSubscriptionTicket, object{"convoIds": []string{"c1", "nothing"}}).refused("403 NotMember")
		var many []string
		for i := range 101 {
			many = append(many, fmt.Sprint("c", i))
		}
		w.call("ann", xrpc.GetSubscriptionTicket, object{"convoIds": many}).refused("400 InvalidRequest")
		w.call("ann", xrpc.GetSubscriptionTicket, object{"convoIds": []string{"c1", "c1"}}).fields()

		// Of many who try, one gets in.
		ticket, statuses := w.ticket("ann", "c1"), sync.Map{}
		var tries sync.WaitGroup
		for i := range 20 {
			tries.Go(func() {
				_, response, err := w.dial("ticket="+ticket, nil)
				if response == nil {
					t.Error(err)
					return
				}
				statuses.Store(i, response.StatusCode)
			})
		}
		tries.Wait()
		counts := map[any]int{}
		statuses.Range(func(_, status any) bool { counts[status]++; return true })
		if counts[http.StatusSwitchingProtocols] != 1 || counts[http.StatusUnauthorized] != 19 {
			t.Errorf("20 clients with one ticket: %v", counts)
		}
		for name, query := range map[string]string{"used": ticket, "made up": strings.Repeat("A", 43), "short": "x", "none": ""} {
			w.refusedSocket(name, "ticket="+query, "401 InvalidTicket")
		}
		late := w.ticket("ann", "c1")
		w.later.Add(30_001)
		w.refusedSocket("expired", "ticket="+late, "401 InvalidTicket")

		gone := w.ticket("ben", "c1")
		must(t, w.apply(w.as("ann"), core.Remove{ConversationID: "c1", Accounts: w.accounts("ben")}))
		w.refusedSocket("removed since", "ticket="+gone, "403 NotMember")
	})
}

// refusedSocket opens a subscription that is refused; an Authorization for another service has
// no effect.
func (w *world) refusedSocket(name, query, want string) {
	w.t.Helper()
	_, response, err := w.dial(query, &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer nonsense"}}})
	if err == nil || response == nil {
		w.t.Errorf("%s: %v", name, err)
		return
	}
	var body xrpc.ErrorBody
	_ = json.NewDecoder(response.Body).Decode(&body)
	if got := fmt.Sprintf("%d %s", response.StatusCode, body.Error); got != want {
		w.t.Errorf("%s: got %s, want %s", name, got, want)
	}
}

func TestSixthSocket(t *testing.T) {
	w := newWorld(t)
	w.room("c1", "ann", "ben")
	var open []*subscriber
	for range socketsMax {
		open = append(open, w.subscribe("ann", "", "c1"))
	}
	w.refusedSocket("the sixth", "ticket="+w.ticket("ann", "c1"), "429 TooManyConnections")
	w.subscribe("ben", "", "c1")
	open[2].close()
	for {
		ws, response, err := w.dial("ticket="+w.ticket("ann", "c1"), nil)
		if err == nil {
			_ = ws.CloseNow()
			return
		}
		if response.StatusCode != http.StatusTooManyRequests {
			t.Fatal(err)
		}
	}
}
