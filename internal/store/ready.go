package store

import (
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// unreadyFor is how long a database counts as one that takes no writes after it
// refused a batch, unless it takes one before. It ends by itself: who sends no more
// traffic for it would never see it write again.
const unreadyFor = 5 * time.Second

// TakesWrites says whether the database writes what it is given, as far as is known:
// one with a full disk still answers Ping.
func (db *DB) TakesWrites() bool {
	refused := db.refusedMS.Load()
	return refused == 0 || db.nowMS() >= refused+unreadyFor.Milliseconds()
}

// noteAppend remembers how the last batch ended. One that lost a race says nothing
// about the database, nor does one that wrote nothing.
func (db *DB) noteAppend(hasWritten bool, err error) {
	switch {
	case err == nil && hasWritten:
		db.refusedMS.Store(0)
	case ds.IsUnavailable(err) && !IsLockLost(err):
		db.refusedMS.Store(db.nowMS())
	}
}
