package client

import (
	"database/sql"
	"encoding/json"
	"path/filepath"
	"slices"
	"testing"

	"waxwing.im/waxwing/client/internal/home"
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
	makeVersion2(t, ann, old)
	restore()
	ann.open()
	if id := ann.dm(bob); id != old {
		t.Errorf("ann starts another conversation, %s beside %s", id, old)
	}
	bob.net.setDown(false)
	w.eventually("the log has what it had lost", func() bool { return ann.Stats().Rewinds > 0 && !ann.isRewound(old) })
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
func makeVersion2(t *testing.T, p *person, conversation string) {
	t.Helper()
	at, err := home.Open(t.Context(), p.options.Dir, p.options.StorageKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	var requests []home.Request
	if err := at.Update(t.Context(), func(tx *home.Tx) error {
		if err := tx.Journal.MarkLost(conversation, 0); err != nil { // which lists them
			return err
		}
		requests, err = tx.Journal.Lost(conversation)
		return err
	}); err != nil || len(requests) == 0 {
		t.Fatalf("%d requests: %v", len(requests), err)
	}
	at.Close(ErrClosed)
	db, err := sql.Open("sqlite", filepath.Join(p.options.Dir, "waxwing.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, r := range requests {
		if !json.Valid(r.Body) {
			t.Fatalf("the journal has %q", r.Body)
		}
		if _, err := db.Exec(`UPDATE log SET frame = $1, lost = 0 WHERE digest = $2`, string(r.Body), r.Digest); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Exec(`UPDATE log SET lost = 0`); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`ALTER TABLE key_packages DROP COLUMN used_ms;
		DROP INDEX messages_place; ALTER TABLE messages DROP COLUMN place; ALTER TABLE messages DROP COLUMN change; PRAGMA user_version = 2`); err != nil {
		t.Fatal(err)
	}
}
