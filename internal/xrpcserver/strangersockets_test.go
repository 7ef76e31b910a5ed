package xrpcserver

import (
	"strings"
	"testing"

	"waxwing.im/waxwing/api/xrpc"

	"waxwing.im/waxwing/internal/core"
)

// TestStrangersOnSockets: who has a socket of its own is heard nowhere else by it, and
// another's cursor says nothing (F-18).
func TestStrangersOnSockets(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.room("c1", "ann", "ben", "fay")
		w.room("c2", "ann", "ben")
		w.room("c3", "mallory", "fay")
		ann := w.subscribe("ann", "")
		fay, mallory := w.subscribe("fay", ""), w.subscribe("mallory", "", "c3")
		must(t, w.apply(w.as("ann"), core.Remove{ConversationID: "c1", Accounts: w.accounts("fay")}))
		// By when the socket answers the ping, it has been through what came before.
		for _, s := range []*subscriber{mallory, fay} {
			for _, id := range []string{"c1", "c2", "nothing"} {
				s.tell(xrpc.ClientTyping, xrpc.ClientFrame{ConvoID: id, IsTyping: isTyping(true)})
			}
			s.tell(xrpc.ClientAck, xrpc.ClientFrame{Seq: 7})
			s.tell(xrpc.ClientPing, xrpc.ClientFrame{})
			for w.word(s.next()) != "info alive heartbeat" {
			}
		}
		w.say("ann", "c1", "m1")
		w.say("ann", "c2", "n1")
		for want := map[string]bool{"app m1 1": true, "app n1 1": true}; len(want) > 0; {
			got := w.word(ann.next())
			if delete(want, got); strings.HasPrefix(got, "typing") {
				t.Errorf("ann is told %q", got)
			}
		}
		mallory.close()
		for _, ids := range [][]string{nil, {"c3"}} {
			s := w.subscribe("mallory", ann.cursor, ids...)
			s.expect("info compacted")
			w.say("ann", "c2", "n of "+s.cursor)
			w.say("fay", "c3", "o of "+s.cursor)
			if m, ok := s.next().(*xrpc.MessageEvent); !ok || m.Message.ConvoID != "c3" {
				t.Errorf("mallory is told %v", m)
			}
			s.close()
		}
		w.refusedSocket("one conversation of a ticket for another", "ticket="+w.ticket("mallory", "c3")+"x", "401 InvalidTicket")
	})
}
