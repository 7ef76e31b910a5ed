package store

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/pgtest"
)

// BenchmarkAppend measures batches of messages, each in a conversation of its own, with the
// query for earlier messages of their ids.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1, 4, 64} {
		b.Run(fmt.Sprint("sqlite/", size), func(b *testing.B) { benchmarkAppend(b, "sqlite:"+b.TempDir(), size) })
		b.Run(fmt.Sprint("postgres/", size), func(b *testing.B) { benchmarkAppend(b, pgtest.URL(b), size) })
	}
}

func benchmarkAppend(b *testing.B, url string, size int) {
	db, err := Open(context.Background(), Options{URL: url})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	heads := make([]ds.Conversation, size)
	for i := range heads {
		heads[i] = ds.Conversation{ID: ds.ConversationID(fmt.Sprint("c", i)), Term: 1, CreatedMS: 1_780_000_000_000}
	}
	write := func(batch Batch, ids []MessageKey) {
		if err := db.Append(context.Background(), func(tx *Tx) error {
			if _, err := tx.Logs.Answers(ids); err != nil {
				return err
			}
			return tx.Logs.Write(batch)
		}); err != nil {
			b.Fatal(err)
		}
	}
	write(Batch{Created: heads}, nil)
	body := bytes.Repeat([]byte("x"), 512)
	b.ReportAllocs()
	for b.Loop() {
		ids := make([]MessageKey, size)
		batch := Batch{Changed: make([]Change, size), Records: make([]ds.Record, size)}
		for i := range heads {
			after := heads[i]
			after.Pos, after.Seq, after.Hash = after.Pos+1, after.Seq+1, body[:32]
			batch.Changed[i] = Change{heads[i], after}
			batch.Records[i] = ds.Record{Log: ds.ConversationLog(after.ID), Pos: after.Pos, Seq: after.Seq, Kind: ds.App, Term: 1,
				MessageID: ds.MessageID(fmt.Sprintf("message-%024d", after.Pos)), CreatedMS: after.CreatedMS, Hash: after.Hash,
				Sender: ds.Device{Account: "did:web:ann.example", ID: "phone"}, Body: body}
			ids[i] = MessageKey{after.ID, batch.Records[i].MessageID}
			heads[i] = after
		}
		write(batch, ids)
	}
}
