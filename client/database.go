package client

import (
	"context"

	"waxwing.im/waxwing/client/internal/home"
)

// database is the home with a cache of its conversations. The home runs one transaction at a
// time; the cache is read and changed within transactions only, so one that does not commit
// leaves no trace in it either.
type database struct {
	home *home.Home
	self string // the account
	// count and wake are called with the counts of committed transactions and what they wake.
	count func(Stats)
	wake  func(conversation string)

	cache map[string]*conversation // by id; as committed; guarded by transactions

	// changed observes the conversations before and after a change, for tests.
	changed func(before, after *conversation)
}

// tx is one transaction of the home, with the working copies of conversations.
type tx struct {
	*home.Tx
	db      *database
	changed map[string]*conversation
	after   []func() // run once committed, before the next transaction
	stats   Stats    // what has happened in it
}

// update runs fn in a transaction: all of its changes are made, or none.
func (db *database) update(ctx context.Context, fn func(tx *tx) error) error {
	return db.home.Update(ctx, func(in *home.Tx) error {
		t := &tx{Tx: in, db: db, changed: map[string]*conversation{}}
		if err := fn(t); err != nil {
			return err
		}
		if err := t.saveConversations(); err != nil {
			return err
		}
		in.After(t.settle)
		return nil
	})
}

// read returns the result of fn in a transaction.
func read[T any](ctx context.Context, db *database, fn func(tx *tx) (T, error)) (out T, err error) {
	err = db.update(ctx, func(tx *tx) error {
		out, err = fn(tx)
		return err
	})
	return out, err
}

// setting returns the stored value called name, or the zero value.
func setting[T any](tx *tx, name string) (value T, err error) {
	_, err = tx.Settings.Get(name, &value)
	return value, err
}

// edit runs fn in a transaction on a working copy of a conversation, if the home has it.
func (db *database) edit(ctx context.Context, id string, fn func(tx *tx, conv *conversation) error) error {
	return db.update(ctx, func(tx *tx) error {
		conv := tx.conversation(id)
		if conv == nil {
			return nil
		}
		return fn(tx, conv)
	})
}

// wake notifies the session, once the transaction is committed.
func (t *tx) wake(conversation string) {
	t.after = append(t.after, func() { t.db.wake(conversation) })
}

// settle copies the committed conversations to the cache.
func (t *tx) settle() {
	for id, c := range t.changed {
		if t.db.changed != nil {
			t.db.changed(t.db.cache[id], c)
		}
		t.db.cache[id] = c.settled()
	}
	if t.stats != (Stats{}) {
		t.db.count(t.stats)
	}
	for _, f := range t.after {
		f()
	}
}
