package drive

import (
	"strings"
	"testing"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/identity"
)

// A check that cannot fail proves nothing: these are histories that a broken server
// would give, and what a client and the comparison say to them.
func TestClientSeesWhatMayNotBe(t *testing.T) {
	event := func(seq int64, id string) gateway.Event {
		return gateway.Event{ConvID: "c", Seq: seq, MsgID: id, Env: "text of " + id}
	}
	acked := func(seq int64, id string) gateway.Acked { return gateway.Acked{ConvID: "c", Seq: seq, MsgID: id} }
	log := []gateway.Event{event(1, "m1"), event(2, "m2"), event(3, "m3")}
	cases := []struct {
		name   string
		events []gateway.Event
		acks   []gateway.Acked
		log    []gateway.Event
		want   string // "" is nothing
	}{
		{"all is well", log, []gateway.Acked{acked(2, "m2")}, log, ""},
		{"the same ack again", log, []gateway.Acked{acked(2, "m2"), acked(2, "m2")}, log, ""},
		{"gap", []gateway.Event{event(1, "m1"), event(3, "m3")}, nil, log, "gap, seq 3 follows 1"},
		{"gap at the beginning", []gateway.Event{event(2, "m2")}, nil, log, "gap, seq 2 follows 0"},
		{"duplicate", []gateway.Event{event(1, "m1"), event(1, "m1")}, nil, log, "duplicate of seq 1"},
		{"end missing", log[:2], nil, log, "received 2 messages, the log has 3"},
		{"other message", []gateway.Event{event(1, "m1"), event(2, "m9"), event(3, "m3")}, nil, log, "another message as seq 2"},
		{"order of ids", []gateway.Event{event(1, "m2"), event(2, "m1"), event(3, "m3")}, nil, log, "another message as seq 1"},
		{"two seqs", log, []gateway.Acked{acked(2, "m2"), acked(3, "m2")}, log, "acked at seq 2 and now at 3"},
		{"acked and lost", log[:1], []gateway.Acked{acked(2, "m2")}, log[:1], "acked at seq 2, the log ends at 1"},
		{"acked elsewhere", log, []gateway.Acked{acked(3, "m2")}, log, "acked at seq 3, where the log has m3"},
		{"acked unasked", log, []gateway.Acked{acked(1, "m1")}, log, "acked and never sent"},
		{"other conversation", []gateway.Event{{ConvID: "d", Seq: 1, MsgID: "m1"}}, nil, nil, "does not follow"},
	}
	for _, step := range cases {
		t.Run(step.name, func(t *testing.T) {
			c := NewClient(ClientOptions{Name: "client"}, "c")
			c.Send("c", "m2", "text of m2")
			for _, e := range step.events {
				c.received(e)
			}
			for _, a := range step.acks {
				c.settled(a)
			}
			c.compare(map[string][]gateway.Event{"c": step.log})
			err := c.Violations()
			if step.want == "" && err != nil || step.want != "" && (err == nil || !strings.Contains(err.Error(), step.want)) {
				t.Errorf("got %v, want %q", err, step.want)
			}
		})
	}
}

func TestAllAcked(t *testing.T) {
	c := NewClient(ClientOptions{Name: "client"}, "c")
	c.Send("c", "m1", "text")
	c.settled(gateway.Acked{ConvID: "c", MsgID: "m1", Seq: 1})
	m1 := gateway.Event{ConvID: "c", Seq: 1, MsgID: "m1", Env: "text"}
	again, other := m1, m1
	again.Seq, other.Seq, other.MsgID = 2, 2, "m2"
	for _, step := range []struct {
		name string
		log  []gateway.Event
		want string
	}{
		{"all is well", []gateway.Event{m1}, ""},
		{"twice", []gateway.Event{m1, again}, "m1 is at seq 1 and at 2"},
		{"from nobody", []gateway.Event{m1, other}, "m2 at seq 2 was not acked to any client"},
		{"lost", nil, "m1 was acked and is not in the log"},
	} {
		_, err := allAcked(map[string][]gateway.Event{"c": step.log}, []*Client{c})
		if step.want == "" && err != nil || step.want != "" && (err == nil || !strings.Contains(err.Error(), step.want)) {
			t.Errorf("%s: got %v, want %q", step.name, err, step.want)
		}
	}
}

func TestClientChecksCursors(t *testing.T) {
	key, err := identity.DeriveAccountKey([]byte("seed"), "name", identity.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		next int64
		want bool // a violation
	}{{1, false}, {3, false}, {4, true}} {
		c := NewClient(ClientOptions{Name: "client", Key: key}, "c")
		c.histories["c"].ackedTo = 2
		c.checkReady(gateway.Ready{UserID: key.DID(), Cursors: []gateway.Cursor{{ConvID: "c", NextSeq: step.next}}})
		if got := c.Violations(); (got != nil) != step.want {
			t.Errorf("next_seq %d after acking 2: %v", step.next, got)
		}
	}
}
