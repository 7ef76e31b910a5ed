// Package ds holds the nouns of the delivery service: identifiers, callers, conversations,
// records, key packages and refusals.
//
// Every other package uses these values. They have no behaviour beyond their own fields: no I/O, no clocks, no rules about permissions (those are in core) and no wire names
// (those are in the doors).
package ds

import (
	"strings"
	"unicode/utf8"
)

// IDBytesMax bounds conversation, message and device identifiers, and
// AccountBytesMax the opaque account identifiers in member lists.
const (
	IDBytesMax      = 128
	AccountBytesMax = 512
)

// AccountID names an account. A caller's own is a verified DID; those of others are opaque
// strings that need not exist.
type AccountID string

// DeviceID names a device within its account.
type DeviceID string

// ConversationID names a conversation; its creator chooses it.
type ConversationID string

// MessageID is the sender's own name for a message: the idempotency key of a send within its
// conversation.
type MessageID string

// IsValidID reports whether s can be a conversation, message or device identifier: 1–128 bytes
// of UTF-8 without NUL.
func IsValidID(s string) bool { return isText(s, IDBytesMax) }

// IsValidAccount reports whether s can name an account: 1–512 bytes of UTF-8 without NUL.
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

// Caller is the account and device that make a request, verified by a door's authenticator.
type Caller struct {
	Account AccountID
	Device  DeviceID
	// Meter notes the limits that the request was counted under; nil if no answer tells them.
	Meter *Meter
}

// AsDevice returns the device of the caller.
func (c Caller) AsDevice() Device { return Device{Account: c.Account, ID: c.Device} }
