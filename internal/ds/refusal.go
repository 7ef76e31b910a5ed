package ds

import (
	"errors"
	"fmt"
	"time"
)

// Code is the stable name of a reason to refuse. Each door has one table from Code to status
// and wire name.
type Code string

// The codes.
const (
	InvalidRequest       Code = "invalid_request"
	Unauthorized         Code = "unauthorized"
	ResumeFailed         Code = "resume_failed"
	Forbidden            Code = "forbidden"
	NotFound             Code = "not_found"
	EpochConflict        Code = "epoch_conflict"
	RateLimited          Code = "rate_limited"
	LimitExceeded        Code = "limit_exceeded"
	ReplayWindowExceeded Code = "replay_window_exceeded"
	LogRewound           Code = "log_rewound"
)

// Codes lists every code; the tests of the doors check that their tables have them all.
var Codes = []Code{InvalidRequest, Unauthorized, ResumeFailed, Forbidden, NotFound, EpochConflict,
	RateLimited, LimitExceeded, ReplayWindowExceeded, LogRewound}

// Reason is a finer reason within a Code. Doors that show only the code ignore it.
type Reason string

// The reasons.
const (
	NotMember       Reason = "not a member"
	NotAllowed      Reason = "not allowed"       // by role or rules
	TargetNotMember Reason = "target not member" // the account that the request is about
	AlreadyMember   Reason = "already a member"
	LastAdmin       Reason = "last admin"
	AlreadyDone     Reason = "already so"
	NoConversation  Reason = "no conversation"
	Taken           Reason = "taken"          // the identifier belongs to another account
	NoKeyPackage    Reason = "no key package" // with that hash
	TreeDiverged    Reason = "tree diverged"  // another confirmation tag
	TooManyDevices  Reason = "too many devices"
	BadKeyPackages  Reason = "bad key packages"
	NoAddition      Reason = "no addition"      // pending, with that id
	AdditionClaimed Reason = "addition claimed" // by another device
	NoGroupInfo     Reason = "no group info"
	BadCommit       Reason = "bad commit"
	BadGroupInfo    Reason = "bad group info"
	TooManyMembers  Reason = "too many members"
	NoMessage       Reason = "no message" // with that id
	LostRace        Reason = "lost race"  // another commit was first
	NoReaction      Reason = "no reaction"
	BadReaction     Reason = "bad reaction"
	TooLarge        Reason = "too large"

	BadToken       Reason = "bad token" // for any other reason than the following ones
	TokenExpired   Reason = "token expired"
	TokenNotYet    Reason = "token from the future"
	TokenReplayed  Reason = "token replayed"
	BadAudience    Reason = "bad audience"
	BadMethod      Reason = "bad method" // the token is for another one
	BadIssuer      Reason = "bad issuer"
	BadSignature   Reason = "bad signature"
	TooManyTokens  Reason = "too many tokens" // of an address or an issuer
	InviteRequired Reason = "invite required"
	InvalidInvite  Reason = "invalid invite"
	NotOnAllowlist Reason = "not on the allowlist"
	Expelled       Reason = "expelled"
)

// Because returns a copy of r with a reason: refusals are shared.
func (r *Refusal) Because(reason Reason) *Refusal {
	finer := *r
	finer.Reason = reason
	return &finer
}

// Refusal is a normal answer: the request was understood and is not carried out. Its message is
// for the caller and contains no secrets.
type Refusal struct {
	Code    Code
	Message string
	// Reason is a finer reason than Code, for a door with such reasons in its protocol; "" for most.
	Reason Reason

	RetryAfter   time.Duration // RateLimited: time until the next request is accepted
	CurrentEpoch int64         // EpochConflict
	Index        int           // InvalidRequest about one item of a list: its index; see HasIndex
	HasIndex     bool
	// ReplayWindowExceeded and LogRewound: the requested position and the available ones, in
	// seq.
	RequestedSeq, EarliestSeq, LatestSeq int64
}

func (r *Refusal) Error() string { return string(r.Code) + ": " + r.Message }

// Refuse returns a refusal with a formatted message.
func Refuse(code Code, format string, args ...any) *Refusal {
	if len(args) == 0 {
		return &Refusal{Code: code, Message: format}
	}
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...)}
}

// CodeOf returns the code of the refusal in err, or "" if err is nil or a fault.
func CodeOf(err error) Code {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}

// unavailable marks a temporary fault: the store is away, the outcome of a COMMIT is unknown,
// the home does not answer.
type unavailable struct {
	error
	retryAfter time.Duration // 0: soon
}

func (u unavailable) Unwrap() error { return u.error }

// Unavailable marks err as a fault worth a retry. Doors show it as `unavailable`.
func Unavailable(err error) error { return UnavailableFor(err, 0) }

// UnavailableFor marks err like Unavailable, as a fault that lasts for about retryAfter; 0
// means soon.
func UnavailableFor(err error, retryAfter time.Duration) error {
	if err == nil || IsUnavailable(err) {
		return err
	}
	return unavailable{err, retryAfter}
}

// IsUnavailable reports whether err is a fault worth a retry.
func IsUnavailable(err error) bool {
	var u unavailable
	return errors.As(err, &u)
}

// RetryAfterSeconds returns the seconds that a caller should wait before it repeats a request
// that ended with err: at least one for RateLimited and for unavailable faults, and 0 for every
// other error, which waiting does not fix.
func RetryAfterSeconds(err error) int64 {
	var wait time.Duration
	var u unavailable
	var r *Refusal
	switch {
	case errors.As(err, &r):
		if r.Code != RateLimited {
			return 0
		}
		wait = r.RetryAfter
	case errors.As(err, &u):
		wait = u.retryAfter
	default:
		return 0
	}
	return max(1, int64((wait+time.Second-1)/time.Second))
}
