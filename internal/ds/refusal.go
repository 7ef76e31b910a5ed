package ds

import (
	"errors"
	"fmt"
	"time"
)

// Code is the stable name of a reason to refuse. Each door has one table from
// Code to status and wire name.
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

// Reason says why, within a Code. Doors that show no more than the code pass over it.
type Reason string

// The reasons.
const (
	NotMember       Reason = "not a member"
	NotAllowed      Reason = "not allowed"       // by role or rules
	TargetNotMember Reason = "target not member" // whom the request is about
	AlreadyMember   Reason = "already a member"
	LastAdmin       Reason = "last admin"
	AlreadyDone     Reason = "already so"
	NoConversation  Reason = "no conversation"
	Taken           Reason = "taken"          // the identifier is somebody else's
	NoKeyPackage    Reason = "no key package" // of that hash
	TreeDiverged    Reason = "tree diverged"  // another confirmation tag
	TooManyDevices  Reason = "too many devices"
	BadKeyPackages  Reason = "bad key packages"
	NoAddition      Reason = "no addition"      // pending, of that id
	AdditionClaimed Reason = "addition claimed" // by somebody else
	NoGroupInfo     Reason = "no group info"
	BadCommit       Reason = "bad commit"
	BadGroupInfo    Reason = "bad group info"
	TooManyMembers  Reason = "too many members"
	NoMessage       Reason = "no message" // of that id
	LostRace        Reason = "lost race"  // another commit was first
	NoReaction      Reason = "no reaction"
	BadReaction     Reason = "bad reaction"
	TooLarge        Reason = "too large"
)

// Because is a copy of r with a reason: refusals are shared.
func (r *Refusal) Because(reason Reason) *Refusal {
	finer := *r
	finer.Reason = reason
	return &finer
}

// Refusal is a normal answer: the request was understood and is not done. Its
// sentence is for the caller and holds no secrets.
type Refusal struct {
	Code    Code
	Message string
	// Reason is a finer word than Code, for the door whose protocol has one; "" for most.
	Reason Reason

	RetryAfter   time.Duration // RateLimited: when the next one would be let through
	CurrentEpoch int64         // EpochConflict
	Index        int           // InvalidRequest about one item of a list: which; see HasIndex
	HasIndex     bool
	// ReplayWindowExceeded and LogRewound: what was asked for and what there is, in seq.
	RequestedSeq, EarliestSeq, LatestSeq int64
}

func (r *Refusal) Error() string { return string(r.Code) + ": " + r.Message }

// Refuse makes a refusal.
func Refuse(code Code, format string, args ...any) *Refusal {
	if len(args) == 0 {
		return &Refusal{Code: code, Message: format}
	}
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...)}
}

// CodeOf is the code of the refusal in err, or "" if err is nil or a fault.
func CodeOf(err error) Code {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}

// unavailable marks a fault that may pass: the store is away, the outcome of a
// COMMIT is unknown, the home does not answer.
type unavailable struct {
	error
	retryAfter time.Duration // 0: soon
}

func (u unavailable) Unwrap() error { return u.error }

// Unavailable marks err as a fault worth a retry. Doors show it as `unavailable`.
func Unavailable(err error) error { return UnavailableFor(err, 0) }

// UnavailableFor is Unavailable for a fault that lasts for about retryAfter; 0 is soon.
func UnavailableFor(err error, retryAfter time.Duration) error {
	if err == nil || IsUnavailable(err) {
		return err
	}
	return unavailable{err, retryAfter}
}

// IsUnavailable says whether err is a fault worth a retry.
func IsUnavailable(err error) bool {
	var u unavailable
	return errors.As(err, &u)
}

// RetryAfterSeconds returns how many seconds a caller should wait before it repeats what
// ended with err: at least one for RateLimited and for what is unavailable, and 0 for
// every other error, which waiting does not mend.
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
