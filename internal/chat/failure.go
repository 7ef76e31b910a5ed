package chat

import (
	"context"
	"errors"
	"fmt"

	"waxwing.im/waxwing/client"
)

// Mistake is an error in what a person typed, as opposed to one of carrying it out.
type Mistake struct{ err error }

// Error returns the problem as a sentence for people.
func (m Mistake) Error() string { return m.err.Error() }

// Unwrap returns the error that the mistake led to.
func (m Mistake) Unwrap() error { return m.err }

// failure is an error with a code for programs.
type failure struct {
	code string
	err  error
}

// Error returns the problem as a sentence for people.
func (f failure) Error() string { return f.err.Error() }

// Unwrap returns the cause.
func (f failure) Unwrap() error { return f.err }

// The codes of errors, for programs.
const (
	CodeMistake = "mistake"
	// CodeStored means that the request is stored in the home, and will be done when a chat is
	// open and the server can be reached.
	CodeStored = "stored"
	// CodeRefused means that the server, or the rules of the group, refuse it for good.
	CodeRefused = "refused"
	// CodeInUse means that another process has the home open and cannot be asked.
	CodeInUse  = "in_use"
	codeFailed = "failed"
)

// sdkCodes holds the codes of errors of package client.
var sdkCodes = []struct {
	err  error
	code string
}{
	{client.ErrInUse, CodeInUse}, {client.ErrAccount, CodeMistake}, {client.ErrTooLarge, "too_large"},
	{client.ErrOutboxFull, "outbox_full"}, {client.ErrMessageID, CodeMistake}, {client.ErrMessageIDUsed, "id_used"},
	{client.ErrNoGroup, "not_in_group"}, {client.ErrDirect, "direct"},
	{client.ErrNoMember, "not_a_member"}, {client.ErrOwner, "owner"}, {client.ErrRole, "role"}, {client.ErrName, CodeMistake},
	{client.ErrUnknownDevices, "unknown_devices"}, {client.ErrNotOverXRPC, "not_over_xrpc"}, {client.ErrClosed, "closed"},
}

// CodeOf returns the code of an error of this package.
func CodeOf(err error) string {
	var mistake Mistake
	var failed failure
	switch {
	case errors.As(err, &failed):
		return failed.code
	case errors.As(err, &mistake):
		return CodeMistake
	}
	for _, known := range sdkCodes {
		if errors.Is(err, known.err) {
			return known.code
		}
	}
	return codeFailed
}

// refused returns the error of a conversation that cannot proceed.
func refused(problem string) error { return failure{CodeRefused, errors.New(problem)} }

// ErrNoGuests is the error of a command that needs the home for itself.
var ErrNoGuests error = failure{CodeInUse, errors.New("a waxwing chat has this home open: use its /commands, chat send, or chat --json")}

// errTooLong is the error of a line that is not read.
var errTooLong error = failure{codeTooLong, fmt.Errorf("a line has at most %d bytes", lineBytesMax)}

// errUndelivered is the error of a chat that ends before its messages are delivered.
var errUndelivered error = failure{CodeStored, errors.New("not everything is delivered yet; what is left will be sent next time")}

// undelivered returns errUndelivered if there are messages in the outbox.
func (t *Terminal) undelivered(ctx context.Context) error {
	all, err := t.client.Conversations(ctx)
	if err != nil {
		return err
	}
	for _, c := range all {
		if waiting, err := t.client.Waiting(ctx, c.ID); err != nil {
			return err
		} else if len(waiting) > 0 {
			return errUndelivered
		}
	}
	return nil
}
