package core

import (
	"slices"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
)

// bill holds what one request was charged under limits and what is to be counted of it,
// until its answer is final: a rule may run more than once, over other states of its
// conversation, and what a transaction that failed would have stored is not paid for.
// The zero value is empty. It belongs to one goroutine.
type bill struct {
	charges  []charge
	isRepeat bool // answered by the record of an earlier request
	lostRace bool // a commit for an epoch that another one has ended
}

type charge struct {
	key     limits.Key
	n       int64
	cost    time.Duration
	refusal *ds.Refusal
	isBytes bool // paid for what is stored, and not for the call
	stands  bool // the latest run of the rule asked for it
}

// rerun begins another run of a rule.
func (b *bill) rerun() {
	b.isRepeat, b.lostRace = false, false
	for i := range b.charges {
		b.charges[i].stands = false
	}
}

// take counts n calls under (name, a, key) for a request that may ask again for the same:
// it is neither counted nor asked twice.
func (b *bill) take(l *limits.Limiter, name, a, key string, n int64, now time.Time) *ds.Refusal {
	rate := l.Rate(name)
	if rate.Count == 0 {
		return nil
	}
	c := charge{key: l.Key(name, a, key), n: n, isBytes: name == limits.StoredBytes, stands: true}
	i := slices.IndexFunc(b.charges, func(old charge) bool { return old.key == c.key })
	if i >= 0 && b.charges[i].n == n {
		b.charges[i].stands = true
		return b.charges[i].refusal
	}
	if i >= 0 { // as much as it is by now
		l.GiveBack(c.key, b.charges[i].cost)
		b.charges = slices.Delete(b.charges, i, i+1)
	}
	c.cost, c.refusal = l.Charge(c.key, rate, n, now)
	b.charges = append(b.charges, c)
	return c.refusal
}

// settle ends a bill with the answer to its request. Kept are charges for calls that were
// answered, with success or with a refusal, and for bytes that were stored; all else is
// given back. Where the outcome of a transaction is unknown it is given back too: had it
// been kept and nothing stored, the same request would be paid for twice, while a repeat of
// what was stored costs nothing, so that at most one batch for each fault is free.
func (b *bill) settle(l *limits.Limiter, err error) {
	isAnswered := err == nil || ds.CodeOf(err) != ""
	for _, c := range b.charges {
		if c.cost > 0 && !(c.stands && isAnswered && (err == nil || !c.isBytes)) {
			l.GiveBack(c.key, c.cost)
		}
	}
	b.charges = nil
}
