package store

import "context"

// Tx is one transaction, and gives access to all stored data: each field has the queries and
// writes about one noun. It is for one goroutine and ends with the function that it was passed
// to.
type Tx struct {
	ctx     context.Context
	conn    conn
	dialect dialect
	nowMS   int64 // the time of the transaction's start by the store's clock

	hasWritten bool  // a batch
	revocation int64 // the transaction's number among those that revoke sessions, or 0

	Logs          Logs
	Conversations Conversations
	Cursors       Cursors
	Streams       Streams
	Welcomes      Welcomes
	Packages      Packages
	Devices       Devices
	Sessions      Sessions
	Admission     Admission
	Documents     Documents
	Tickets       Tickets
}

func newTx(ctx context.Context, conn conn, dialect dialect, nowMS int64) *Tx {
	tx := &Tx{ctx: ctx, conn: conn, dialect: dialect, nowMS: nowMS}
	tx.Logs, tx.Conversations, tx.Cursors, tx.Streams = Logs{tx}, Conversations{tx}, Cursors{tx}, Streams{tx}
	tx.Welcomes, tx.Packages, tx.Devices, tx.Sessions = Welcomes{tx}, Packages{tx}, Devices{tx}, Sessions{tx}
	tx.Admission, tx.Documents, tx.Tickets = Admission{tx}, Documents{tx}, Tickets{tx}
	return tx
}

// Logs reads and writes records and the heads of their logs.
type Logs struct{ tx *Tx }

// Conversations reads memberships, settings and reactions of conversations.
type Conversations struct{ tx *Tx }

// Cursors reads and writes the cursors of devices.
type Cursors struct{ tx *Tx }

// Streams reads and writes the positions of accounts' streams.
type Streams struct{ tx *Tx }

// Welcomes reads and writes Welcomes and their recipients.
type Welcomes struct{ tx *Tx }

// Packages reads, publishes and claims key packages.
type Packages struct{ tx *Tx }

// Devices reads and writes the devices of accounts, and their additions to conversations.
type Devices struct{ tx *Tx }

// Sessions reads and writes sessions, their revocations, and the nonces of tokens.
type Sessions struct{ tx *Tx }

// Admission reads and writes admitted accounts, the allowlist and invites.
type Admission struct{ tx *Tx }

// Documents reads and writes DID documents that were fetched.
type Documents struct{ tx *Tx }

// Tickets reads and writes the tickets of subscriptions.
type Tickets struct{ tx *Tx }
