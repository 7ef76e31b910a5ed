package client

import (
	"errors"
	"fmt"
	"time"

	"waxwing.im/waxwing/client/internal/home"
	"waxwing.im/waxwing/mls"
)

// The errors for use with errors.Is. A refusal by the server is a *Refusal.
var (
	// ErrStorageKey: the storage key is not the one of the home, or the database was tampered
	// with.
	ErrStorageKey = home.ErrStorageKey
	// ErrInUse: another client, here or in another process, has the home open.
	ErrInUse = home.ErrInUse
	// ErrHome: the home belongs to another account or device, or was written by a newer version
	// of this package.
	ErrHome = home.ErrHome
	// ErrAccount: the name of an account is not a DID, or is a did:key without a valid key.
	ErrAccount = errors.New("not an account's DID")
	// ErrClosed: the client was closed.
	ErrClosed = errors.New("the client is closed")
	// ErrUnknownConversation: there is no such conversation in this home.
	ErrUnknownConversation = errors.New("unknown conversation")
	// ErrNoGroup: the conversation has no MLS group here yet, or no longer.
	ErrNoGroup = errors.New("the conversation has no group")
	// ErrDirect: a direct conversation has two members, and none can be added or removed.
	ErrDirect = errors.New("a direct conversation has two members")
	// ErrTooLarge: the text is longer than TextBytesMax.
	ErrTooLarge = errors.New("the text is too large")
	// ErrOutboxFull: the outbox of the home has reached its maximum number of messages.
	ErrOutboxFull = errors.New("the outbox is full")

	// ErrCertificate: a leaf carries a device certificate that its account did not make for it.
	ErrCertificate = errors.New("wrong device certificate")
	// ErrUncertified: a leaf of an account whose DID is a key carries no device certificate, so
	// that the server could have forged it. Options.AllowUnverified admits such leaves.
	ErrUncertified = errors.New("no device certificate")
	// ErrKeyPackage: the server returned a key package that is not one of the requested
	// account. It wraps ErrCertificate or ErrUncertified if that is the cause.
	ErrKeyPackage = errors.New("key package refused")
	// ErrWelcome: an invitation into a group was refused or could not be opened.
	ErrWelcome = errors.New("welcome refused")
	// ErrGroupInUse: the group to be joined has the id of the group of another conversation in
	// this home.
	ErrGroupInUse = mls.ErrGroupInUse
	// ErrUndecryptable: a message in a conversation cannot be read.
	ErrUndecryptable = errors.New("message cannot be decrypted")
	// ErrHistoryPruned: unread messages are gone from the server.
	ErrHistoryPruned = errors.New("unread messages are gone from the server")
	// ErrKeyChanged: a device of a known account has an unknown key.
	ErrKeyChanged = errors.New("the key of a known account has changed")
	// ErrGroupInfo: the server's GroupInfo is not trustworthy.
	ErrGroupInfo = errors.New("group info refused")
	// ErrFork: members of a conversation are in different groups under one name.
	ErrFork = errors.New("members are in different groups")
	// ErrRewound: the server's log has lost messages.
	ErrRewound = errors.New("the server's log was set back")
	// ErrRejoined: this device entered the group again; earlier messages cannot be read.
	ErrRejoined = errors.New("the group was entered anew")
	// ErrOtherService: the server has another name than the expected one (Options.ServerDID);
	// it could use our tokens elsewhere.
	ErrOtherService = errors.New("the server says that it is another service")
	// ErrNotOverXRPC: the operation needs the gateway (WithXRPC).
	ErrNotOverXRPC = errors.New("not possible over XRPC")
	// ErrUnfinished: no group was made for a conversation within a day, and the client has
	// stopped asking. Retry asks again; an invitation is still accepted.
	ErrUnfinished = errors.New("no member has created the conversation's group within a day")
	// ErrTaken: the identifier of a direct conversation is in use by others.
	ErrTaken = errors.New("the conversation is taken by others")
)

// LeftOutError reports a device that is not added with the others, because its key package
// makes the commit fail. It wraps ErrKeyPackage.
type LeftOutError struct {
	Account string
	Device  string // as its account names it, or else the server; "" if neither does
	Index   int    // among the devices that the commit was to add
	Problem string
}

// Error returns the device and the cause.
func (e *LeftOutError) Error() string {
	return fmt.Sprintf("device %q of %s (number %d) is left out: %s", e.Device, e.Account, e.Index, e.Problem)
}

// Unwrap returns ErrKeyPackage.
func (e *LeftOutError) Unwrap() error { return ErrKeyPackage }

// Refusal is an answer by which the server declines a request.
type Refusal struct {
	Code    string // as in the gateway protocol: "forbidden", "rate_limited", …
	Message string
	// RetryAfter is set with rate_limited and unavailable.
	RetryAfter time.Duration
	// CurrentEpoch is set with epoch_conflict.
	CurrentEpoch int64
	// EarliestSeq and LatestSeq are set with replay_window_exceeded.
	EarliestSeq, LatestSeq int64
	// Index is the index of the refused item in its list, or -1.
	Index int
}

// Error returns the code and the server's message.
func (r *Refusal) Error() string { return fmt.Sprintf("server refused: %s: %s", r.Code, r.Message) }

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
