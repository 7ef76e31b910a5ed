package gateway

// Code is the stable name of a reason to refuse a request.
type Code string

// The codes, with their HTTP status.
const (
	CodeInvalidRequest       Code = "invalid_request"        // 400
	CodeUnauthorized         Code = "unauthorized"           // 401
	CodeResumeFailed         Code = "resume_failed"          // 401
	CodeForbidden            Code = "forbidden"              // 403
	CodeNotFound             Code = "not_found"              // 404
	CodeEpochConflict        Code = "epoch_conflict"         // 409
	CodeReplayWindowExceeded Code = "replay_window_exceeded" // 410
	CodeLogRewound           Code = "log_rewound"            // 410
	CodeRateLimited          Code = "rate_limited"           // 429
	CodeLimitExceeded        Code = "limit_exceeded"         // 429
	CodeInternal             Code = "internal_error"         // 500
	CodeUnavailable          Code = "unavailable"            // 503: the same request may be tried again
)

// Error is the body of an error frame and of an HTTP answer with an error status.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	// RetryAfterS comes with rate_limited (at least 1), limit_exceeded (0: waiting
	// does not help) and unavailable; in seconds.
	RetryAfterS *int64 `json:"retry_after_s,omitempty"`
	// CurrentEpoch comes with epoch_conflict.
	CurrentEpoch *int64 `json:"current_epoch,omitempty"`
	// Index is the index of the item in the request's list that is refused.
	Index *int64 `json:"index,omitempty"`
	// RequestedFromSeq, EarliestSeq and LatestSeq come with replay_window_exceeded
	// and log_rewound.
	RequestedFromSeq *int64 `json:"requested_from_seq,omitempty"`
	EarliestSeq      *int64 `json:"earliest_seq,omitempty"`
	LatestSeq        *int64 `json:"latest_seq,omitempty"`
	// ConvID names the conversation if the request does not: with "membership revoked", for
	// sessions with a feature.
	ConvID string `json:"conv_id,omitempty"`
}

// Error formats the answer as a Go error.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }
