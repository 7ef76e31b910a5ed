package core

import (
	"context"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
)

// Op is an operation that changes one conversation. An Op is a value with exported
// fields only: it can be serialized, and forwarded to another server that is the home of
// the conversation. Its methods are its rule; they are functions of what was loaded and
// touch no database. decide calls them in the order of decisions:
//
//   - check validates the operation alone, before anything of it is kept, and sets in the
//     action its audience, the data to load and the number of bytes it keeps alive;
//   - limits names the limits that a call counts under;
//   - may checks the rights of the caller;
//   - judge checks kind, epoch and sizes, and returns the verdict;
//   - do makes the change. It cannot be refused any more.
//
// An Op may also be a repeater or a reader.
type Op interface {
	// place returns the conversation and, where the operation appends a message, its id.
	place() (ds.ConversationID, ds.MessageID)
	check(a *action) error
	limits() []string
	may(c *logs.Conversation, a *action, nowMS int64) error
	judge(c *logs.Conversation, a *action) (verdict, error)
	do(c *logs.Conversation, a *action, v verdict, nowMS int64) Result
}

// repeater is an Op that is answered as before if it was done already. A repeat returns isDone
// or an error. answer is that of the record with the operation's message id, or zero.
type repeater interface {
	repeat(c *logs.Conversation, a *action, answer store.Answer) (result Result, isDone bool, err error)
}

// reader is an Op that reads data other than its conversation before it is queued. A refusal
// that it finds is stored as a.refused, which counts only if the operation is not a repeat; an
// error is a fault.
type reader interface {
	read(ctx context.Context, a *action) error
}

// Result is the outcome of an operation.
type Result struct {
	// Record is the message or control record that was appended; of a repeat, the earlier
	// one without its body. It is durable.
	Record ds.Record
	// Epoch is the conversation's after Leave and Remove, the GroupInfo's after
	// GroupInfoUpdate.
	Epoch int64
	// IsNew reports whether Create made the conversation and GroupInfoUpdate stored its
	// GroupInfo: neither does if another was first.
	IsNew bool
	Asked int64 // members that a GroupInfoRequest asks, if the caller may know
}

// audience is a set of accounts that may request an operation, apart from their rights.
type audience uint8

const (
	presentMembers audience = iota
	everMembers             // members and former members
	anyone                  // also where there is no conversation yet
)

// action is an operation in progress: the Op of a caller, and the data found before the queue.
// Only its result changes while it is decided, which may happen more than once, each time over
// fresh state; the last run counts.
type action struct {
	service *Service
	op      Op
	who     ds.Caller
	admits  audience
	needs   logs.Needs
	bytes   int     // that it keeps alive
	seen    sight   // of its handshake or message
	found   *found  // by check and read, of operations with Welcomes
	refused error   // found by read
	with    *action // a handshake that takes effect together with it
	bill    *bill   // shared with that
	now     time.Time
	result  Result
}

// found holds the data that operations with Welcomes find before the queue.
type found struct {
	to        []Recipient
	entered   store.Entered // devices and key packages that enter the group
	entry     *entry        // the committer enters by itself
	welcomeID string

	epoch   int64          // of the group that a conversation begins with
	members []ds.AccountID // the creator first
}

// verdict is the result of Op.judge.
type verdict struct {
	seen  sight // the final one of a message
	bytes int   // counted as stored by the caller
}

// task is an action with its request and its bill, in one piece.
type task struct {
	logs.Request
	action
	bill bill
}

// Apply runs one operation, or returns the answer of an earlier one if it is a repeat. After
// success its changes are durable. If ctx ends before the operation is taken from the queue,
// it is withdrawn; afterwards its outcome is unknown, and reported as unavailable. Refusals:
// those of the Op, and for each invalid_request, forbidden and rate_limited.
func (s *Service) Apply(ctx context.Context, who ds.Caller, op Op) (Result, error) {
	t, err := s.prepare(ctx, who, op)
	if err != nil {
		return Result{}, err
	}
	return t.outcome(s.logs.Submit(ctx, &t.Request))
}

// Begin does the work of Apply without waiting for the answer: done is called once, with the
// results of Apply. Its goroutine answers many requests, so done must not block; it may be
// called before Begin returns. Operations that a caller begins in one conversation, one after
// the other, take effect in that order. Begin waits, within ctx, for operations that read
// before they are queued: a Create with a Welcome, a Bundle by which its committer enters or
// that names key packages.
func (s *Service) Begin(ctx context.Context, who ds.Caller, op Op, done func(Result, error)) {
	t, err := s.prepare(ctx, who, op)
	if err == nil {
		err = s.logs.Begin(&t.Request, func(err error) { done(t.outcome(err)) })
	}
	if err != nil {
		done(Result{}, err)
	}
}

// prepare makes a request of an operation, or returns a refusal that does not depend on the
// conversation.
func (s *Service) prepare(ctx context.Context, who ds.Caller, op Op) (*task, error) {
	t := &task{action: action{service: s, op: op, who: who}}
	if err := op.check(&t.action); err != nil {
		return nil, err
	}
	if r, reads := op.(reader); reads {
		if err := r.read(ctx, &t.action); err != nil {
			return nil, err
		}
	}
	id, message := op.place()
	if err := checkNames(who, id, message); err != nil {
		return nil, err
	}
	t.action.bill = &t.bill
	t.Request = logs.Request{Conversation: id, Account: who.Account, Message: message, Needs: t.action.needs,
		Bytes: t.action.bytes + len(who.Device), Rule: &t.action}
	return t, nil
}

// outcome returns the result of an answered task. The result is read only on success: the rule
// may run after its caller has returned.
func (t *task) outcome(err error) (Result, error) {
	if _, creates := t.op.(Create); creates && store.IsGroupInUse(err) {
		err = refuseExists
	}
	if err != nil {
		return Result{}, groupUsed(err)
	}
	return t.result, nil
}
