package client

import (
	"bytes"
	"testing"
	"testing/synctest"
)

func FuzzContent(f *testing.F) {
	for _, text := range []string{"", "hello", "\x00", "\x00\x00", "\x00\x00\x00", "\x00\x01{}", "\x00\xff"} {
		f.Add(byte(0), []byte(text))
		f.Add(byte(1), []byte(text))
	}
	f.Fuzz(func(t *testing.T, kind byte, payload []byte) {
		of, got := decodeContent(encodeContent(contentType(kind), payload))
		if of != contentType(kind) || !bytes.Equal(got, payload) {
			t.Errorf("%d %x became %d %x", kind, payload, of, got)
		}
		of, got = decodeContent(payload)
		if len(got) > len(payload) {
			t.Errorf("%x became longer: %x", payload, got)
		}
		if again, same := decodeContent(encodeContent(of, got)); again != of || !bytes.Equal(same, got) {
			t.Errorf("%x is %d %x, and then %d %x", payload, of, got, again, same)
		}
	})
}

// TestContentThatIsNotText sends a content of an unknown type between two texts that begin with
// zero bytes: the texts arrive as they are, and the content shows nowhere.
func TestContentThatIsNotText(t *testing.T) {
	overBothDoors(t, func(t *testing.T, w *world) {
		all := w.people("ann", "bob")
		ann, bob := all[0], all[1]
		dm := ann.dm(bob)
		ann.tells(dm, "\x00\xffbinary", ann, bob)
		ann.close() // the content waits in the outbox across a restart
		ann.open()
		if err := ann.db.edit(w.ctx, dm, func(tx *tx, conv *conversation) error {
			return ann.keeper.addContent(tx, conv, 200, map[string]int{"of": 1})
		}); err != nil {
			t.Fatal(err)
		}
		if waiting, err := ann.Waiting(w.ctx, dm); len(waiting) > 0 || err != nil {
			t.Errorf("shown in the outbox: %v, %v", waiting, err)
		}
		ann.wake(dm)
		if err := ann.Flush(w.ctx); err != nil {
			t.Fatal(err)
		}
		ann.tells(dm, "\x00", ann, bob)
		for _, p := range []*person{ann, bob} {
			if got := p.transcript(dm); len(got) != 2 || got[0] != "\x00\xffbinary" || got[1] != "\x00" {
				t.Errorf("%s has %q", p.name, got)
			}
			if c, err := p.Conversation(w.ctx, dm); err != nil || p == bob && c.Unread != 2 || c.NextSeq != 5 {
				t.Errorf("%s: %d unread, next seq %d, %v", p.name, c.Unread, c.NextSeq, err)
			}
			if s := p.Stats(); s.Undecryptable > 0 {
				t.Errorf("%s could not read %d", p.name, s.Undecryptable)
			}
		}
	})
}

// overBothDoors runs a test in a bubble, once with all clients at the gateway, and once over XRPC.
func overBothDoors(t *testing.T, test func(t *testing.T, w *world)) {
	for _, door := range []string{"gateway", "xrpc"} {
		t.Run(door, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newBubble(t)
				w.overXRPC = func(string) bool { return door == "xrpc" }
				test(t, w)
			})
		})
	}
}
