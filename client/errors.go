package client

import (
	"errors"
	"fmt"
	"time"

	"waxwing.im/waxwing/client/internal/home"
	"waxwing.im/waxwing/mls"
)

// The errors of this package, for use with errors.Is. A refusal by the server is a *Refusal.
var (
	// ErrStorageKey reports a storage key that does not open the home, or a damaged database.
	ErrStorageKey = home.ErrStorageKey
	// ErrInUse reports that another client, in this or another process, has the home open.
	ErrInUse = home.ErrInUse
	// ErrHome reports a home of another account or device, or of a newer version of this
	// package.
	ErrHome = home.ErrHome
	// ErrAccount reports an account name that is not a DID, or a did:key without a valid key.
	ErrAccount = errors.New("not a DID")
	// ErrClosed reports that the client was closed.
	ErrClosed = errors.New("client is closed")
	// ErrUnknownConversation reports a conversation ID that this home does not have.
	ErrUnknownConversation = errors.New("unknown conversation")
	// ErrNoGroup reports a conversation without an MLS group on this device, or that the account
	// is leaving.
	ErrNoGroup = errors.New("conversation has no MLS group")
	// ErrDirect reports an attempt to add members to a direct conversation or remove them.
	ErrDirect = errors.New("members of a direct conversation cannot change")
	// ErrNoMember reports an account that is not in the conversation.
	ErrNoMember = errors.New("account is not in the conversation")
	// ErrOwner reports an attempt to change the role of the owner, which remains it until it
	// leaves.
	ErrOwner = errors.New("role of the owner cannot change")
	// ErrRole reports a request that only the owner and the admins of a room may make.
	ErrRole = errors.New("only the owner and the admins of the room may do that")
	// ErrTooLarge reports a message longer than TextBytesMax.
	ErrTooLarge = errors.New("message is too long")
	// ErrMessageID reports an ID that a message cannot have.
	ErrMessageID = errors.New("message ID is not 1 to 128 bytes of UTF-8 without NUL")
	// ErrMessageIDUsed reports the ID of another message of the conversation, with another text.
	ErrMessageIDUsed = errors.New("message ID was used for another text")
	// ErrAcknowledged reports a reply to an event that was acknowledged before.
	ErrAcknowledged = errors.New("event was acknowledged before")
	// ErrOutboxFull reports that the outbox of the home has its maximum number of messages.
	ErrOutboxFull = errors.New("outbox is full")

	// ErrCertificate reports a leaf with a device certificate that is invalid for it.
	ErrCertificate = errors.New("invalid device certificate")
	// ErrUncertified reports a leaf without a device certificate whose account has a DID that is
	// a key: the server could have forged it. Options.AllowUnverified accepts such leaves.
	ErrUncertified = errors.New("missing device certificate")
	// ErrKeyPackage reports a key package that is invalid or not of the requested account. It is
	// joined with ErrCertificate or ErrUncertified if that is the cause.
	ErrKeyPackage = errors.New("key package rejected")
	// ErrWelcome reports an invitation that was rejected or could not be opened.
	ErrWelcome = errors.New("invalid Welcome")
	// ErrGroupInUse reports a group with the group ID of another conversation in this home.
	ErrGroupInUse = mls.ErrGroupInUse
	// ErrUndecryptable reports a message that cannot be decrypted on this device.
	ErrUndecryptable = errors.New("message cannot be decrypted")
	// ErrHistoryPruned reports messages that the server deleted before they were received.
	ErrHistoryPruned = errors.New("unread messages are no longer on the server")
	// ErrKeyChanged reports an unknown key of a known account.
	ErrKeyChanged = errors.New("key of a known account has changed")
	// ErrGroupInfo reports that the server's GroupInfo was rejected.
	ErrGroupInfo = errors.New("GroupInfo rejected")
	// ErrFork reports members with different states of one group.
	ErrFork = errors.New("members have different group states")
	// ErrRewound reports that the server's log has lost messages.
	ErrRewound = errors.New("server lost messages of its log")
	// ErrRejoined reports messages that cannot be decrypted because this device rejoined the
	// group after them.
	ErrRejoined = errors.New("device rejoined the group")
	// ErrOtherService reports a server with another DID than the expected one, or than this
	// address had before (Options.ServerDID). It could use the client's tokens elsewhere.
	ErrOtherService = errors.New("another service than expected")
	// ErrNoWaxwing reports a server that answers, but not as a Waxwing service does.
	ErrNoWaxwing = errors.New("no Waxwing service at the address")
	// ErrNotOverXRPC reports an operation that is not possible with WithXRPC.
	ErrNotOverXRPC = errors.New("not supported over XRPC")
	// ErrUnfinished reports a conversation without a group after a day of requests, which the
	// client has ended. Retry requests again; an invitation is still accepted.
	ErrUnfinished = errors.New("no MLS group was created within a day")
	// ErrTaken reports that other accounts use the ID of a direct conversation.
	ErrTaken = errors.New("conversation ID is in use by other accounts")
	// ErrUnknownDevices reports an account whose DID does not contain its key and none of whose
	// devices is known, so that there is nothing to compare.
	ErrUnknownDevices = errors.New("no known devices of the account")
)

// LeftOutError reports a device that was not added with others, because its key package makes
// the commit fail. It wraps ErrKeyPackage.
type LeftOutError struct {
	Account string
	Device  string // the account's name for it, or else the server's; "" for none
	Index   int    // in the list of devices to be added, from 0
	Problem string
}

// Error returns the device and the cause.
func (e *LeftOutError) Error() string {
	return fmt.Sprintf("device %q of %s (index %d) not added: %s", e.Device, e.Account, e.Index, e.Problem)
}

// Unwrap returns ErrKeyPackage.
func (e *LeftOutError) Unwrap() error { return ErrKeyPackage }

// Refusal is an answer of the server that refuses a request.
type Refusal struct {
	Code string // as in the gateway protocol: "forbidden", "rate_limited", …
	// Message is the server's, or a sentence of this package if that only repeats the code.
	Message string
	// RetryAfter is the wait before a repetition, with rate_limited and unavailable.
	RetryAfter time.Duration
	// CurrentEpoch is the epoch of the conversation, with epoch_conflict.
	CurrentEpoch int64
	// EarliestSeq and LatestSeq are the messages that the server has, with
	// replay_window_exceeded.
	EarliestSeq, LatestSeq int64
	// Index is the index of the refused item in its list, or -1.
	Index int

	cause error // more specific than the code, or nil
}

// refusalPrefix begins the text of a refusal.
const refusalPrefix = "server refused: "

// Error returns the message.
func (r *Refusal) Error() string { return refusalPrefix + r.Message }

// Unwrap returns an error of this package that is more specific than the code, such as
// ErrNotOverXRPC, or nil.
func (r *Refusal) Unwrap() error { return r.cause }

// The codes of refusals that this package handles, as in the gateway protocol.
const (
	codeRateLimited    = "rate_limited"
	codeLimitExceeded  = "limit_exceeded"
	codeUnavailable    = "unavailable"
	codeInternal       = "internal_error"
	codeUnauthorized   = "unauthorized"
	codeForbidden      = "forbidden"
	codeNotFound       = "not_found"
	codeResumeFailed   = "resume_failed"
	codeEpochConflict  = "epoch_conflict"
	codeInvalidRequest = "invalid_request"
	codePruned         = "replay_window_exceeded"
)

// asRefusal returns the refusal in err, or nil.
func asRefusal(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return nil
}

// mayPass reports whether a request refused with r may succeed when it is repeated unchanged.
func (r *Refusal) mayPass() bool {
	switch r.Code {
	case codeRateLimited, codeUnavailable, codeInternal:
		return true
	}
	return false
}
