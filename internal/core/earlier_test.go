package core

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
)

// earlierMS is the time at which the databases of testdata were made.
const earlierMS = 1_900_000_000_000

// earlierNow is a clock that stands a minute after it, so that nothing there expires.
func earlierNow() time.Time { return time.UnixMilli(earlierMS + 60_000) }

// unpack returns the contents of a compressed file of testdata.
func unpack(t *testing.T, file string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// snapshot collects what accounts read of a service's conversations.
func snapshot(w *world, accounts []ds.AccountID, conversations []ds.ConversationID) map[string]any {
	w.t.Helper()
	ctx := context.Background()
	all := map[string]any{}
	var keys []store.MemberKey
	logs := make([]ds.LogID, 0, len(accounts)+len(conversations))
	for _, id := range conversations {
		logs = append(logs, ds.ConversationLog(id))
		for _, account := range accounts {
			keys = append(keys, store.MemberKey{Conversation: id, Account: account})
		}
	}
	for _, account := range accounts {
		logs = append(logs, ds.AccountLog(account))
		views, _, waiting, err := w.service.Convos(ctx, who(string(account)), ConvosQuery{})
		if err != nil {
			w.t.Fatal(err)
		}
		all["views of "+string(account)], all["waiting for "+string(account)] = views, waiting
	}
	for _, log := range logs {
		records, err := w.store.RecordsAfter(ctx, log, 0, 1000, 1<<20)
		if err != nil {
			w.t.Fatal(err)
		}
		all["records of "+string(log)] = records
	}
	if err := w.store.View(ctx, func(tx *store.Tx) error {
		stays, err := tx.Conversations.Intervals(keys)
		for key, list := range stays {
			all[fmt.Sprintf("stays of %s in %s", key.Account, key.Conversation)] = list
		}
		if err != nil {
			return err
		}
		for _, id := range conversations {
			head, err := tx.Logs.Head(id)
			if err != nil {
				return err
			}
			members, err := tx.Conversations.Members(id)
			if err != nil {
				return err
			}
			info, err := tx.Conversations.GroupInfo(id)
			if err != nil && err != store.ErrNotFound {
				return err
			}
			all["head of "+string(id)], all["members of "+string(id)], all["group info of "+string(id)] = head, members, info
		}
		for _, account := range accounts {
			device := ds.Device{Account: account, ID: who(string(account)).Device}
			packages, err := tx.Packages.Available(device)
			if err != nil {
				return err
			}
			cursors, err := tx.Cursors.Of(device, 100)
			if err != nil {
				return err
			}
			welcomes, err := tx.Welcomes.Waiting(account, "titled", 100)
			if err != nil {
				return err
			}
			all["packages of "+string(account)], all["cursors of "+string(account)], all["welcomes of "+string(account)] = packages, cursors, welcomes
		}
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	return all
}

var (
	earlierAccounts      = []ds.AccountID{"ann", "bob", "dan", "eve"}
	earlierConversations = []ds.ConversationID{"bound", "room", "titled"}
)

// difference checks whether got has everything that want has; objects of got may have more
// fields. It returns the first difference, or "" if there is none.
func difference(at string, want, got any) string {
	switch want := want.(type) {
	case map[string]any:
		object, _ := got.(map[string]any)
		for key, value := range want {
			if d := difference(at+"/"+key, value, object[key]); d != "" {
				return d
			}
		}
		return ""
	case []any:
		list, _ := got.([]any)
		if len(list) != len(want) {
			return fmt.Sprintf("%s: %d items, want %d", at, len(list), len(want))
		}
		for i, value := range want {
			if d := difference(fmt.Sprint(at, "/", i), value, list[i]); d != "" {
				return d
			}
		}
		return ""
	}
	if want != got {
		return fmt.Sprintf("%s: %v, want %v", at, got, want)
	}
	return ""
}

// plain returns a value as JSON shows it, with exact numbers.
func plain(t *testing.T, data []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestEarlierDatabases opens databases that a server with migrations 1 to 9 made: everything
// reads the same, the chains of their logs hold, and they go on. testdata has them as that
// server left them, the SQLite file and a dump of PostgreSQL, each beside what it then read
// of them (snapshot), as JSON.
func TestEarlierDatabases(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		want := "postgres-9.json.gz"
		if dir, isFile := strings.CutPrefix(url, "sqlite:"); isFile {
			want = "sqlite-9.json.gz"
			if err := os.WriteFile(filepath.Join(dir, "waxwing.db"), unpack(t, "sqlite-9.db.gz"), 0o600); err != nil {
				t.Fatal(err)
			}
		} else {
			restore(t, url, unpack(t, "postgres-9.sql.gz"))
		}
		w := openWorld(t, store.Options{URL: url, Now: earlierNow}, func(o *setup) { o.Now = earlierNow })
		got, err := json.Marshal(snapshot(w, earlierAccounts, earlierConversations))
		if err != nil {
			t.Fatal(err)
		}
		if d := difference("", plain(t, unpack(t, want)), plain(t, got)); d != "" {
			t.Errorf("after migration %s", d)
		}
		for _, id := range earlierConversations {
			w.checkChain(id)
			if _, err := w.send("ann", string(id), "afterwards", "x"); err != nil {
				t.Errorf("%s does not go on: %v", id, err)
			}
			w.checkChain(id)
		}
	})
}

// restore runs a dump in an empty database.
func restore(t *testing.T, url string, dump []byte) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.PgConn().Exec(t.Context(), string(dump)).ReadAll(); err != nil {
		t.Fatal(err)
	}
}

// checkChain checks every hash of a conversation's log, and that of its head.
func (w *world) checkChain(id ds.ConversationID) {
	w.t.Helper()
	records, err := w.store.RecordsAfter(context.Background(), ds.ConversationLog(id), 0, 1000, 1<<20)
	if err != nil {
		w.t.Fatal(err)
	}
	var last []byte
	for i := range records {
		if last = logs.ChainHash(last, &records[i]); !bytes.Equal(last, records[i].Hash) {
			w.t.Errorf("%s: record %d breaks the chain", id, records[i].Pos)
		}
	}
	if err := w.store.View(context.Background(), func(tx *store.Tx) error {
		head, err := tx.Logs.Head(id)
		if err == nil && (head.Pos != int64(len(records)) || !bytes.Equal(head.Hash, last)) {
			w.t.Errorf("%s: the head is not that of the last of %d records", id, len(records))
		}
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
}
