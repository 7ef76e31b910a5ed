package logs

import (
	"fmt"
	"testing"

	"waxwing.im/waxwing/internal/ds"
)

func rows(log ds.LogID, term int64, from, to int64, bytes int) []ds.Record {
	var list []ds.Record
	for pos := from; pos <= to; pos++ {
		list = append(list, ds.Record{Log: log, Pos: pos, Term: term, Body: make([]byte, bytes)})
	}
	return list
}

func span(list []ds.Record) string {
	if len(list) == 0 {
		return "none"
	}
	for i := range list {
		if list[i].Pos != list[0].Pos+int64(i) {
			return "broken"
		}
	}
	return fmt.Sprintf("%d-%d", list[0].Pos, list[len(list)-1].Pos)
}

func TestTailCache(t *testing.T) {
	const log = ds.LogID("c/c1")
	c := newTailCache()
	after := func(pos int64, want string) {
		t.Helper()
		list, frames, ok := c.after(log, pos, 1000, 1<<30)
		if got := span(list); got != want || ok != (want != "none") || len(list) != len(frames) {
			t.Errorf("after %d: %s, want %s", pos, got, want)
		}
	}
	after(0, "none")
	c.add(rows(log, 1, 5, 7, 10))
	after(3, "none")
	after(4, "5-7")
	after(6, "7-7")
	after(7, "none") // another node may have written more: ask the store
	c.add(rows(log, 1, 8, 9, 10))
	after(4, "5-9")
	c.add(rows(log, 1, 12, 13, 10)) // 10 and 11 are another node's
	after(4, "none")
	after(11, "12-13")
	c.add(rows(log, 2, 14, 14, 10)) // a new term
	after(11, "none")
	after(13, "14-14")
	held, _, _ := c.after(log, 13, 1000, 1<<30)
	c.add(rows(log, 2, 15, 15+tailRecords, 10)) // trimmed to the newest half
	list, _, _ := c.after(log, 15+tailRecords-1, 1000, 1<<30)
	if span(list) != fmt.Sprintf("%d-%d", 15+tailRecords, 15+tailRecords) || span(held) != "14-14" {
		t.Errorf("after trimming: %s, held %s", span(list), span(held))
	}
	if n := len(c.shard(log).logs[log].records); n > tailRecords {
		t.Errorf("%d records are kept", n)
	}
	if list, _, _ = c.after(log, 15+tailRecords-20, 5, 1<<30); len(list) != 5 {
		t.Errorf("a page of five has %d", len(list))
	}
	if list, _, _ = c.after(log, 15+tailRecords-20, 100, 25); len(list) != 3 {
		t.Errorf("a page of 25 bytes has %d", len(list))
	}
	c.evict(log)
	after(15+tailRecords-1, "none")
	if c.bytes.Load() != 0 {
		t.Errorf("%d bytes are counted of nothing", c.bytes.Load())
	}
	for i := range 600 { // far beyond the room for all logs
		c.add(rows(ds.LogID(fmt.Sprintf("c/%d", i)), 1, 1, 1, tailBytes))
	}
	if c.bytes.Load() > tailTotalBytes {
		t.Errorf("%d bytes are kept", c.bytes.Load())
	}
}

func TestFramesAreMadeOnce(t *testing.T) {
	var f Frames
	made := 0
	encode := func() []byte { made++; return []byte("x") }
	for range 3 {
		f.Get(0, encode)
		f.Get(1, encode)
	}
	if made != 2 {
		t.Errorf("encoded %d times", made)
	}
	var none *Frames
	if string(none.Get(2, encode)) != "x" {
		t.Error("nothing was encoded")
	}
}
