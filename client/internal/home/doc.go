// Package home stores all state of a device in one SQLite file: settings, conversations,
// messages, events, the outbox, the journal, key packages and people.
//
// A Home has one connection and one transaction at a time. Secret or readable data is sealed
// under the storage key before it is written; counters, identifiers and ciphertexts that the
// server knows as well are not. The nouns of a transaction (Tx.Outbox, Tx.Journal, …) hold all
// of its SQL. The package knows nothing of MLS or of any protocol, and decides nothing: sealed
// values are JSON.
//
// Where there is no SQLite (GOOS=js) Open returns ErrNoDatabase, and all code that uses this
// package still compiles.
package home
