// Package ds holds the nouns of the delivery service: identifiers, callers,
// conversations, records, key packages and refusals.
//
// Every other package speaks in these values. There is no behaviour here beyond
// what a value can say about itself: no I/O, no clocks, no rules about who may do
// what (those are core's) and no wire names (those are the doors').
package ds

import (
	"strings"
	"unicode/utf8"
)

// IDBytesMax bounds conversation, message and device identifiers (gateway
// decision 11), and AccountBytesMax the opaque account identifiers that appear in
// member lists (gateway decision 1).
const (
	IDBytesMax      = 128
	AccountBytesMax = 512
)

// AccountID names an account. A caller's own is a proven DID; those of others
// are opaque strings that need not exist.
type AccountID string

// DeviceID names a device within its account; it means nothing without it.
type DeviceID string

// ConversationID names a conversation, chosen by whoever creates it.
type ConversationID string

// MessageID is the sender's own name for a message: the idempotency key of a send
// within its conversation.
type MessageID string

// IsValidID says whether s can be a conversation, message or device identifier:
// 1–128 bytes of UTF-8 without NUL.
func IsValidID(s string) bool { return isText(s, IDBytesMax) }

// IsValidAccount says whether s can name an account: 1–512 bytes of UTF-8 without NUL.
func IsValidAccount(s string) bool { return isText(s, AccountBytesMax) }

func isText(s string, bytesMax int) bool {
	return s != "" && len(s) <= bytesMax && strings.IndexByte(s, 0) < 0 && utf8.ValidString(s)
}

// Device is one device of one account: the unit that sessions, cursors, key
// packages and Welcomes belong to.
type Device struct {
	Account AccountID
	ID      DeviceID
}

// Caller is whoever stands behind a request, proven by a door's authenticator.
type Caller struct {
	Account AccountID
	Device  DeviceID
}

// AsDevice is the device that the caller acts with.
func (c Caller) AsDevice() Device { return Device{Account: c.Account, ID: c.Device} }
