package client

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"path/filepath"
	"slices"
	"testing"
)

// TestHomeOfBefore: a home of version 2 goes on as it is. Its direct conversations keep
// their names, at both doors, and its journal is sealed.
func TestHomeOfBefore(t *testing.T) {
	w := newXRPCWorld(t)
	w.overXRPC = nil
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	if err := bob.WaitOnline(w.ctx); err != nil {
		t.Fatal(err)
	}
	// As StartDM did.
	old := oldDMID(ann.did(), bob.did())
	if err := ann.db.update(w.ctx, func(tx *tx) error {
		tx.addConversation(old, Creating, conversationInfo{Kind: DM, Peer: bob.did()}, ann.now())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	ann.wake(old)
	ann.says(old, "long ago")
	bob.reads("long ago")
	ann.reads("long ago")
	if c := bob.must(old); c.Kind != DM || c.Peer != ann.did() {
		t.Errorf("for bob it is %+v", c)
	}
	restore := w.backup()
	ann.says(old, "not so long ago")
	bob.reads("not so long ago")
	ann.reads("not so long ago")
	ann.close()
	bob.net.setDown(true)
	makeVersion2(t, ann)
	restore()
	ann.open()
	if id := ann.dm(bob); id != old {
		t.Errorf("ann starts another conversation, %s beside %s", id, old)
	}
	bob.net.setDown(false)
	w.eventually("the log has what it had lost", func() bool { return ann.Stats().Rewinds > 0 && !ann.isSetBack(old) })
	ann.says(old, "and now")
	bob.reads("and now")
	w.agree(old, ann, bob)
	ann.close()
	ann.options.useXRPC = true
	ann.open()
	if id := ann.dm(bob); id != old {
		t.Errorf("over XRPC ann starts another conversation, %s beside %s", id, old)
	}
	ann.says(old, "by the other door")
	bob.reads("by the other door")
	w.eventually("ann has everything", func() bool {
		return slices.Equal(ann.transcript(old), []string{"long ago", "not so long ago", "and now", "by the other door"})
	})
	// Another device of bob's, which knows nothing, sees what it is.
	phone := bob.device("phone")
	phone.open()
	phone.nextType(EventJoined)
	if c := phone.must(old); c.Kind != DM || c.Peer != ann.did() {
		t.Errorf("for bob's phone it is %+v", c)
	}
}

// makeVersion2 makes the home what it was in version 2, with frames as they were sent.
func makeVersion2(t *testing.T, p *person) {
	t.Helper()
	seal, err := newSealer(bytes.Repeat([]byte{1}, StorageKeyBytes))
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", filepath.Join(p.options.Dir, databaseFile))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query(`SELECT conversation, digest, frame FROM log WHERE frame IS NOT NULL`)
	if err != nil {
		t.Fatal(err)
	}
	plain := map[string]string{}
	for rows.Next() {
		var conversation string
		var digest, frame []byte
		if err := rows.Scan(&conversation, &digest, &frame); err != nil {
			t.Fatal(err)
		}
		raw, err := seal.open("log", logRow(conversation, digest), "frame", frame)
		if err != nil || !json.Valid(raw) {
			t.Fatalf("a frame of the journal: %v", err)
		}
		plain[string(digest)] = string(raw)
	}
	if err := rows.Err(); err != nil || len(plain) == 0 {
		t.Fatalf("%d frames: %v", len(plain), err)
	}
	for digest, frame := range plain {
		if _, err := db.Exec(`UPDATE log SET frame = $1 WHERE digest = $2`, frame, []byte(digest)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Exec(`ALTER TABLE key_packages DROP COLUMN used_ms; PRAGMA user_version = 2`); err != nil {
		t.Fatal(err)
	}
}
