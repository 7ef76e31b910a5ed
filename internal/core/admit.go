package core

import (
	"errors"
	"fmt"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
)

var (
	refuseNotMember = ds.Refuse(ds.Forbidden, "not a member").Because(ds.NotMember)
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

// decide decides an operation on its conversation, in the order of decisions (design 4). It
// changes c only if it accepts.
func (a *action) decide(c *conversation, nowMS int64) error {
	a.result = Result{}
	answer, err := c.admit(a)
	if err != nil {
		return err
	}
	if r, repeats := a.op.(repeater); repeats {
		result, isDone, err := r.repeat(c, a, answer)
		if err != nil {
			return err
		}
		if isDone {
			a.result, c.bill.isRepeat = result, answer.Pos > 0
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
	if c.head.Home != "" { // forwarding would begin here
		return errAway
	}
	v, err := a.op.judge(c, a)
	if err != nil {
		return err
	}
	if r := a.chargeBytes(c, v.bytes); r != nil {
		return r
	}
	if err := a.decideWith(c, nowMS); err != nil {
		return err
	}
	a.result = a.op.do(c, a, v, nowMS)
	return nil
}

// decideWith decides the handshake of an operation, if there is one. A handshake that is in
// the log already adds nothing.
func (a *action) decideWith(c *conversation, nowMS int64) error {
	if a.with == nil {
		return nil
	}
	err := a.with.decide(c, nowMS)
	c.bill.isRepeat = false // the operation itself is not one
	if ds.CodeOf(err) == ds.EpochConflict {
		return refuseEpoch(c.head.Epoch).Because(ds.LostRace)
	}
	return err
}

// admit checks that the conversation exists and that the caller is a member, or was one at the
// record with the message id; otherwise it reveals nothing. It returns that record's answer,
// or the zero value.
func (c *conversation) admit(a *action) (store.Answer, error) {
	account := a.who.Account
	if a.admits == anyone {
		return store.Answer{}, nil
	}
	if !c.exists {
		return store.Answer{}, refuseNotMember
	}
	isMember := c.isMember(account)
	if _, id := a.op.place(); id != "" {
		answer, ok := c.answers[id]
		if ok && (isMember || c.wasMemberAt(account, answer.Pos)) {
			return answer, nil
		}
	}
	if isMember || a.admits == everMembers && len(c.stays(account)) > 0 {
		return store.Answer{}, nil
	}
	return store.Answer{}, refuseNotMember
}

// charge counts a call under a limit per account and conversation, or per account if the
// operation creates its conversation: once for each request, however often its rule runs.
func (a *action) charge(c *conversation, name string) *ds.Refusal {
	key := string(c.head.ID)
	if a.admits == anyone {
		key = ""
	}
	return c.bill.Take(a.service.limits, name, string(a.who.Account), key, 1, c.now)
}

// chargeBytes counts the bytes that an operation stores against the limit of its account.
func (a *action) chargeBytes(c *conversation, bytes int) *ds.Refusal {
	if bytes == 0 {
		return nil
	}
	return c.bill.Take(a.service.limits, limits.StoredBytes, string(a.who.Account), "", int64(bytes), c.now)
}
