package logs

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// longName is a conversation whose name is as long as names may be.
func longName(i int) ds.LogID {
	return ds.ConversationLog(ds.ConversationID(fmt.Sprintf("%0*d", ds.IDBytesMax, i)))
}

// TestReadingWritesLittle: a stream of 200 conversations that reads 2 000 events writes at
// most one row a second, and a few bytes for each event.
func TestReadingWritesLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "sqlite:"+t.TempDir())
		ctx := context.Background()
		p := w.logs.Streams.NewPosition(who("ann"))
		for i := range 200 {
			p.Add(longName(i), 1)
		}
		must(t, p.Open(ctx))
		defer p.Close()
		const seconds, events = 20, 2000
		begun, saves := time.Now(), 0
		for n := range events {
			time.Sleep(seconds * time.Second / events)
			p.Advance(n%200, p.At(n%200)+1)
			if _, ok := p.AppendMoves(nil, 15); !ok { // as a cursor over XRPC has it
				isSaved, err := p.Save(ctx)
				must(t, err)
				if isSaved {
					saves++
				}
			}
		}
		if most := int(time.Since(begun)/time.Second) + 1; saves > most || saves < seconds/2 {
			t.Errorf("%d rows in %d seconds", saves, most)
		}
		bytes := 0
		must(t, w.store.Read(ctx, func(tx *store.Tx) error {
			rows, err := tx.Streams.Rows(p.id.text(), p.device, 0, time.Hour)
			if len(rows.First) > 200*10 {
				t.Errorf("the first row has %d bytes", len(rows.First))
			}
			return err
		}))
		for n := range int64(saves) {
			must(t, w.store.Read(ctx, func(tx *store.Tx) error {
				rows, err := tx.Streams.Rows(p.id.text(), p.device, n+1, time.Hour)
				bytes += len(rows.Last)
				return err
			}))
		}
		if bytes > 6*events {
			t.Errorf("%d bytes for %d events", bytes, events)
		}
	})
}

// TestPositionsResume moves a position at random, through logs that come later, for longer
// than its rows are kept: what was said of it lately names exactly where it stood, and
// what was said long ago an earlier place.
func TestPositionsResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "sqlite:"+t.TempDir())
		ctx, random := context.Background(), rand.New(rand.NewPCG(1, 2))
		p := w.logs.Streams.NewPosition(who("ann"))
		for i := range 100 {
			p.Add(longName(i), 1+random.Int64N(1<<random.IntN(50)))
		}
		must(t, p.Open(ctx))
		defer p.Close()
		type mark struct {
			moves []byte
			next  []ds.Cursor
		}
		var marks []mark
		exact, earlier := 0, 0
		check := func(m mark, mustBeExact bool) {
			r, err := w.logs.Streams.Resume(ctx, who("ann"), p.ID(), m.moves)
			must(t, err)
			if r.IsExact {
				exact++
			} else {
				earlier++
			}
			if mustBeExact && !r.IsExact {
				t.Fatal("a late place is not exact")
			}
			for _, c := range m.next {
				next, _ := r.Of(c.Log)
				if next > c.Next || r.IsExact && next != c.Next && c.Next != 1 {
					t.Fatalf("%s is at %d, want %d", c.Log, next, c.Next)
				}
			}
		}
		for step := range 800 {
			time.Sleep(time.Second)
			if step%50 == 0 {
				p.Add(longName(1000+step), 1)
			}
			for range 1 + random.IntN(3)*40 {
				i := random.IntN(p.Len())
				p.Advance(i, p.At(i)+1+random.Int64N(1<<random.IntN(30)))
			}
			moves, ok := p.AppendMoves(nil, 140)
			if !ok {
				_, err := p.Save(ctx)
				must(t, err)
				if moves, ok = p.AppendMoves(nil, 140); !ok {
					continue
				}
			}
			marks = append(marks, mark{moves, append([]ds.Cursor(nil), p.next...)})
			check(marks[len(marks)-1], true)
			check(marks[random.IntN(len(marks))], false)
		}
		if earlier == 0 || exact < 300 || p.row < streamRowsKept {
			t.Errorf("%d exact, %d earlier, %d rows", exact, earlier, p.row)
		}
	})
}

// TestResumeIsPrivate: positions are found for their own device, and moves that no stream
// has written are refused.
func TestResumeIsPrivate(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		ctx := context.Background()
		p := w.logs.Streams.NewPosition(who("ann"))
		p.Add("c/1", 5)
		p.Add("c/2", 6)
		must(t, p.Open(ctx))
		defer p.Close()
		p.Advance(1, 9)
		moves, ok := p.AppendMoves(nil, 10)
		if !ok {
			t.Fatal("no moves")
		}
		r, err := w.logs.Streams.Resume(ctx, who("ann"), p.ID(), moves)
		must(t, err)
		one, _ := r.Of("c/1")
		two, index := r.Of("c/2")
		if three, _ := r.Of("c/3"); one != 5 || two != 9 || index != 1 || three != 0 || r.Len() != 2 {
			t.Errorf("resumed at %d, %d, %d", one, two, three)
		}
		for name, id := range map[string]StreamID{"ben": p.ID(), "ann": 12345} {
			if r, err := w.logs.Streams.Resume(ctx, who(name), id, moves); r != nil || err != nil {
				t.Errorf("%s: %v, %v", name, r, err)
			}
		}
		for name, bad := range map[string][]byte{"nothing": nil, "no move": {0, 0}, "a move by nothing": {0, 0, 0}, "a long form": {0, 0x80, 0, 1},
			"beyond what is stored": {0, 2, 1}, "a huge gap": {0, 0xff, 0xff, 0xff, 0xff, 0x7f, 1},
			"overflow": append([]byte{0, 0}, binary.AppendUvarint(nil, 1<<63-1)...)} {
			if r, err := w.logs.Streams.Resume(ctx, who("ann"), p.ID(), bad); ds.CodeOf(err) != ds.InvalidRequest {
				t.Errorf("%s: %v, %v", name, r, err)
			}
		}
	})
}

// TestStreamsOfOneAccount: streams that an account opens without end take each other's
// place. One that has lost its place stores itself again.
func TestStreamsOfOneAccount(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir())
	ctx := context.Background()
	open := func(account string, logs int) *Position {
		p := w.logs.Streams.NewPosition(who(account))
		for i := range logs {
			p.Add(longName(i), 1)
		}
		must(t, p.Open(ctx))
		t.Cleanup(p.Close)
		return p
	}
	other, first := open("ben", 3), open("ann", 3)
	size, full := int64(0), storedSize(StreamConversationsMax*10, StreamConversationsMax)
	for ; size <= streamsBytesMax+streamsBytesMax/64+full; size += full { // checked after each 64th part
		open("ann", StreamConversationsMax)
	}
	resume := func(p *Position, account string) *Resumed {
		moves, ok := p.AppendMoves(nil, 20)
		if !ok {
			t.Fatal("no moves")
		}
		r, err := w.logs.Streams.Resume(ctx, who(account), p.ID(), moves)
		must(t, err)
		return r
	}
	if resume(first, "ann") != nil {
		t.Error("an account's oldest stream is still stored")
	}
	if resume(other, "ben") == nil {
		t.Error("another account's stream is gone")
	}
	before := first.ID()
	first.Advance(1, 7)
	if isSaved, err := first.Save(ctx); !isSaved || err != nil || first.ID() == before {
		t.Errorf("saved again: %v, %v", isSaved, err)
	}
	if next, _ := resume(first, "ann").Of(longName(1)); next != 7 {
		t.Errorf("the stream is at %d", next)
	}
	first.Advance(1, 8)
	if isSaved, err := first.Save(ctx); isSaved || err != nil {
		t.Errorf("a row within the second: %v, %v", isSaved, err)
	}
}

// TestRowsWaitForTheDatabase: while rows cannot be written they are not tried again and
// again, and the position stays what it was.
func TestRowsWaitForTheDatabase(t *testing.T) {
	var tries atomic.Int64
	hook := func(sql string, done bool) {
		if !done && strings.HasPrefix(sql, "INSERT INTO stream_rows") {
			tries.Add(1)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		w := openWorld(t, store.Options{URL: "sqlite:" + t.TempDir(), Hook: store.Watch(hook)})
		p := w.logs.Streams.NewPosition(who("ann"))
		p.Add("c/1", 5)
		must(t, p.Open(t.Context()))
		defer p.Close()
		p.Advance(0, 6)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		tries.Store(0)
		for range 100 {
			if isSaved, err := p.Save(gone); isSaved || err != nil {
				t.Fatal(isSaved, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := tries.Load(); n > 10 {
			t.Errorf("%d tries in 10 seconds", n)
		}
		time.Sleep(streamPatienceMax)
		if isSaved, err := p.Save(t.Context()); !isSaved || err != nil {
			t.Error(isSaved, err)
		}
	})
}
