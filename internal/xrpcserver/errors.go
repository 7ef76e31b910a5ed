package xrpcserver

import (
	"errors"
	"fmt"
	"net/http"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/ds"
)

// Error is a refusal by this door itself: a status, a name from the method's lexicon or a
// general one, and a sentence.
type Error struct {
	Status        int
	Name, Message string
}

// Error returns the name and the sentence.
func (e *Error) Error() string { return e.Name + ": " + e.Message }

// wireError is a status and a name.
type wireError struct {
	status int
	name   string
}

// codes maps each code of a refusal to the wire, for methods that do not rename it.
var codes = map[ds.Code]wireError{
	ds.InvalidRequest:       {http.StatusBadRequest, xrpc.ErrorInvalidRequest},
	ds.Unauthorized:         {http.StatusUnauthorized, xrpc.ErrorAuthenticationRequired},
	ds.ResumeFailed:         {http.StatusUnauthorized, xrpc.ErrorAuthenticationRequired},
	ds.Forbidden:            {http.StatusForbidden, xrpc.ErrorForbidden},
	ds.NotFound:             {http.StatusNotFound, "NotFound"},
	ds.EpochConflict:        {http.StatusConflict, "EpochMismatch"},
	ds.ReplayWindowExceeded: {http.StatusGone, "CursorExpired"},
	ds.LogRewound:           {http.StatusGone, "CursorExpired"},
	ds.RateLimited:          {http.StatusTooManyRequests, xrpc.ErrorRateLimited},
	ds.LimitExceeded:        {http.StatusTooManyRequests, "LimitExceeded"},
}

// reasons maps the finer reasons; they precede codes, and renamed precedes both.
var reasons = map[ds.Reason]wireError{
	ds.NotMember:       {http.StatusForbidden, "NotMember"},
	ds.NotAllowed:      {http.StatusForbidden, "Unauthorized"},
	ds.TargetNotMember: {http.StatusNotFound, "TargetNotMember"},
	ds.AlreadyMember:   {http.StatusConflict, "AlreadyMember"},
	ds.LastAdmin:       {http.StatusConflict, "LastAdmin"},
	ds.AlreadyDone:     {http.StatusConflict, "AlreadyDone"},
	ds.NoConversation:  {http.StatusNotFound, "ConvoNotFound"},
	ds.Taken:           {http.StatusConflict, "ConvoAlreadyExists"},
	ds.NoKeyPackage:    {http.StatusConflict, "KeyPackageNotFound"},
	ds.TreeDiverged:    {http.StatusConflict, "TreeStateDiverged"},
	ds.TooManyDevices:  {http.StatusTooManyRequests, "TooManyDevices"},
	ds.BadKeyPackages:  {http.StatusBadRequest, "InvalidKeyPackages"},
	ds.NoAddition:      {http.StatusNotFound, "PendingAdditionNotFound"},
	ds.AdditionClaimed: {http.StatusConflict, "PendingAdditionAlreadyClaimed"},
	ds.NoGroupInfo:     {http.StatusNotFound, "GroupInfoUnavailable"},
	ds.BadCommit:       {http.StatusBadRequest, "InvalidCommit"},
	ds.BadGroupInfo:    {http.StatusBadRequest, "InvalidGroupInfo"},
	ds.TooManyMembers:  {http.StatusBadRequest, "TooManyMembers"},
	ds.NoMessage:       {http.StatusNotFound, "MessageNotFound"},
	ds.LostRace:        {http.StatusConflict, "EpochConflict"},
	ds.NoReaction:      {http.StatusNotFound, "ReactionNotFound"},
	ds.BadReaction:     {http.StatusBadRequest, "InvalidReaction"},
	ds.TooLarge:        {http.StatusBadRequest, "MessageTooLarge"},

	ds.BadToken:       {http.StatusUnauthorized, "BadJwt"},
	ds.TokenNotYet:    {http.StatusUnauthorized, "BadJwt"},
	ds.TokenExpired:   {http.StatusUnauthorized, "JwtExpired"},
	ds.TokenReplayed:  {http.StatusUnauthorized, "Replay detected"},
	ds.BadAudience:    {http.StatusUnauthorized, "BadJwtAudience"},
	ds.BadMethod:      {http.StatusUnauthorized, "BadJwtLexiconMethod"},
	ds.BadIssuer:      {http.StatusUnauthorized, "BadJwtIss"},
	ds.BadSignature:   {http.StatusUnauthorized, "BadJwtSignature"},
	ds.TooManyTokens:  {http.StatusTooManyRequests, "RateLimitExceeded"},
	ds.InviteRequired: {http.StatusForbidden, "InviteRequired"},
	ds.InvalidInvite:  {http.StatusForbidden, "InvalidInvite"},
	ds.NotOnAllowlist: {http.StatusForbidden, "NotAllowed"},
	ds.Expelled:       {http.StatusForbidden, "NotAllowed"},
}

// renamed holds the reasons that a method's lexicon calls by another name.
var renamed = map[string]map[ds.Reason]wireError{
	xrpc.GetGroupState: {ds.NotMember: {http.StatusForbidden, "Unauthorized"}},
	xrpc.CreateConvo:   {ds.NoKeyPackage: {http.StatusBadRequest, "KeyPackageNotFound"}},
	xrpc.LeaveConvo:    {ds.BadCommit: codes[ds.InvalidRequest], ds.TooManyMembers: codes[ds.InvalidRequest]},
	xrpc.RegisterDevice: {
		ds.Taken:      {http.StatusConflict, "DeviceAlreadyRegistered"},
		ds.NoAddition: {http.StatusNotFound, "NotFound"},
		ds.NotAllowed: {http.StatusForbidden, xrpc.ErrorForbidden},
	},
	xrpc.SendMessage: {ds.AlreadyDone: {http.StatusConflict, "ReactionExists"}},
}

// wireAnswer is an error in wire form.
type wireAnswer struct {
	wireError
	message     string
	retryAfterS int64 // 0: waiting does not help
}

// body returns the answer's body. The seconds to wait are in the sentence as well: of an error
// a PDS passes on no more than the status, the name and the sentence.
func (a wireAnswer) body() *xrpc.ErrorBody {
	body := &xrpc.ErrorBody{Error: a.name, Message: a.message}
	if a.retryAfterS > 0 {
		body.RetryAfterSeconds = &a.retryAfterS
		body.Message = fmt.Sprintf("%s; try again in %d s", a.message, a.retryAfterS)
	}
	return body
}

// answerTo returns the wire form of err: a refusal, ServiceUnavailable, or an internal error
// without details.
func answerTo(method string, err error) wireAnswer {
	var own *Error
	var input *xrpc.InputError
	var refusal *ds.Refusal
	switch {
	case errors.As(err, &own):
		return wireAnswer{wireError: wireError{own.Status, own.Name}, message: own.Message}
	case errors.As(err, &input):
		return wireAnswer{wireError: codes[ds.InvalidRequest], message: input.Error()}
	case errors.As(err, &refusal):
		return refused(method, refusal)
	case ds.IsUnavailable(err):
		return wireAnswer{wireError{http.StatusServiceUnavailable, xrpc.ErrorUnavailable}, "unavailable", ds.RetryAfterSeconds(err)}
	}
	return wireAnswer{wireError: wireError{http.StatusInternalServerError, xrpc.ErrorInternal}, message: "internal error"}
}

func refused(method string, r *ds.Refusal) wireAnswer {
	known, ok := codes[r.Code]
	if !ok {
		known = wireError{http.StatusInternalServerError, xrpc.ErrorInternal}
	}
	if finer, ok := reasons[r.Reason]; ok {
		known = finer
	}
	if own, ok := renamed[method][r.Reason]; ok {
		known = own
	}
	return wireAnswer{known, r.Message, ds.RetryAfterSeconds(r)}
}

// isFault reports whether err is a fault of this service, to be logged.
func isFault(err error) bool {
	var own *Error
	var input *xrpc.InputError
	return err != nil && ds.CodeOf(err) == "" && !errors.As(err, &own) && !errors.As(err, &input)
}
