// Package home keeps everything that a device knows in one SQLite file: settings,
// conversations, messages, events, the outbox, the journal, key packages and people.
//
// A Home has one connection and one transaction at a time. What is secret or readable is
// sealed under the storage key before it is written; beside it stand counters,
// identifiers and ciphertexts that the server knows as well. The nouns of a transaction
// (Tx.Outbox, Tx.Journal, …) hold all of its SQL. The package knows nothing of MLS or of
// any protocol, and decides nothing: values that it seals come and go as JSON.
//
// Where there is no SQLite (GOOS=js) Open returns ErrNoDatabase, and everything that is
// made of this package still compiles.
package home
