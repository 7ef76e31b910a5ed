package core

import (
	"errors"
	"fmt"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
)

var (
	refuseNotMember = logs.RefuseNotMember
	refuseRights    = ds.Refuse(ds.Forbidden, "forbidden").Because(ds.NotAllowed)
	refuseGroup     = ds.Refuse(ds.InvalidRequest, "the message belongs to another MLS group")
	refuseGroupUsed = ds.Refuse(ds.InvalidRequest, "the MLS group belongs to another conversation")
	refuseExists    = ds.Refuse(ds.InvalidRequest, "conversation already exists").Because(ds.Taken)
	refuseReused    = ds.Refuse(ds.InvalidRequest, "msg_id stands for a record of another kind")
)

// errAway is the retryable fault of an operation that only the home may decide.
var errAway = ds.Unavailable(errors.New("the home of the conversation is away"))

func refuseEpoch(current int64) *ds.Refusal {
	return &ds.Refusal{Code: ds.EpochConflict, Message: fmt.Sprintf("the current epoch is %d", current), CurrentEpoch: current}
}

// Decide runs an operation, perhaps not for the first time.
func (a *action) Decide(c *logs.Conversation, now time.Time) error {
	a.now = now
	a.bill.rerun()
	return a.run(c)
}

// Ended counts the outcome of an operation.
func (a *action) Ended(err error) { a.service.settle(a.bill, a.seen.kind, groupUsed(err)) }

// run decides an operation on its conversation, in the order of decisions. It
// changes c only if it accepts.
func (a *action) run(c *logs.Conversation) error {
	a.result = Result{}
	nowMS := a.now.UnixMilli()
	answer, err := admit(c, a)
	if err != nil {
		return err
	}
	if r, repeats := a.op.(repeater); repeats {
		result, isDone, err := r.repeat(c, a, answer)
		if err != nil {
			return err
		}
		if isDone {
			a.result, a.bill.isRepeat = result, answer.Pos > 0
			return nil
		}
	}
	for _, name := range a.op.limits() {
		if r := a.charge(c, name); r != nil {
			return r
		}
	}
	if err := a.op.may(c, a, nowMS); err != nil {
		return err
	}
	if c.Head.Home != "" { // forwarding would begin here
		return errAway
	}
	v, err := a.op.judge(c, a)
	if err != nil {
		return err
	}
	if r := a.chargeBytes(c, v.bytes); r != nil {
		return r
	}
	if err := a.runWith(c); err != nil {
		return err
	}
	a.result = a.op.do(c, a, v, nowMS)
	return nil
}

// runWith decides the handshake of an operation, if there is one. A handshake that is in the
// log already adds nothing.
func (a *action) runWith(c *logs.Conversation) error {
	if a.with == nil {
		return nil
	}
	a.with.bill, a.with.now = a.bill, a.now
	err := a.with.run(c)
	a.bill.isRepeat = false // the operation itself is not one
	if ds.CodeOf(err) == ds.EpochConflict {
		return refuseEpoch(c.Head.Epoch).Because(ds.LostRace)
	}
	return err
}

// admit checks that the conversation exists and that the caller is a member, or was one at the
// record with the message id; otherwise it reveals nothing. It returns that record's answer,
// or the zero value.
func admit(c *logs.Conversation, a *action) (store.Answer, error) {
	account := a.who.Account
	if a.admits == anyone {
		return store.Answer{}, nil
	}
	if !c.Exists {
		return store.Answer{}, refuseNotMember
	}
	isMember := c.IsMember(account)
	if _, id := a.op.place(); id != "" {
		answer, ok := c.Answers[id]
		if ok && (isMember || c.WasMemberAt(account, answer.Pos)) {
			return answer, nil
		}
	}
	if isMember || a.admits == everMembers && len(c.Stays(account)) > 0 {
		return store.Answer{}, nil
	}
	return store.Answer{}, refuseNotMember
}

// charge counts a call under a limit per account and conversation, or per account if the
// operation creates its conversation: once for each request, however often its rule runs.
func (a *action) charge(c *logs.Conversation, name string) *ds.Refusal {
	key := string(c.Head.ID)
	if a.admits == anyone {
		key = ""
	}
	return a.bill.Take(a.who.Meter, a.service.limits, name, string(a.who.Account), key, 1, a.now)
}

// chargeBytes counts the bytes that an operation stores against the limit of its account.
func (a *action) chargeBytes(c *logs.Conversation, bytes int) *ds.Refusal {
	if bytes == 0 {
		return nil
	}
	return a.bill.Take(a.who.Meter, a.service.limits, limits.StoredBytes, string(a.who.Account), "", int64(bytes), a.now)
}

// groupUsed returns the refusal for an error that means that the group of a conversation
// belongs to another one, which only the database sees; otherwise err.
func groupUsed(err error) error {
	if err != nil && store.IsGroupInUse(err) {
		return refuseGroupUsed
	}
	return err
}
