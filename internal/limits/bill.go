package limits

import (
	"slices"
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// Bill holds what one request was charged under limits until its answer is final: a rule may
// run more than once, over other states, and what a transaction that failed would have stored
// is not paid for. The zero value is empty. It belongs to one goroutine.
type Bill struct {
	charges []charge
}

type charge struct {
	key     Key
	n       int64
	cost    time.Duration
	refusal *ds.Refusal
	isBytes bool // paid for what is stored, and not for the call
	stands  bool // the latest run of the rule asked for it
}

// Rerun begins another run of a rule.
func (b *Bill) Rerun() {
	for i := range b.charges {
		b.charges[i].stands = false
	}
}

// Take counts n calls under (name, a, key) for a request that may ask again for the same:
// it is neither counted nor asked twice. It is noted in m, which may be nil.
func (b *Bill) Take(m *ds.Meter, l *Limiter, name, a, key string, n int64, now time.Time) *ds.Refusal {
	if l.Rate(name).Count == 0 {
		return nil
	}
	c := charge{key: l.Key(name, a, key), n: n, isBytes: name == StoredBytes, stands: true}
	note(m, name, c.key)
	i := slices.IndexFunc(b.charges, func(old charge) bool { return old.key == c.key })
	if i >= 0 && b.charges[i].n == n {
		b.charges[i].stands = true
		return b.charges[i].refusal
	}
	if i >= 0 { // as much as it is by now
		l.GiveBack(c.key, b.charges[i].cost)
		b.charges = slices.Delete(b.charges, i, i+1)
	}
	c.cost, c.refusal = l.charge(name, c.key, n, now)
	b.charges = append(b.charges, c)
	return c.refusal
}

// Settle ends a bill with the answer to its request. Kept are charges for calls that were
// answered, with success or with a refusal, and for bytes that were stored; all else is
// given back. Where the outcome of a transaction is unknown it is given back too: had it
// been kept and nothing stored, the same request would be paid for twice, while a repeat of
// what was stored costs nothing, so that at most one batch for each fault is free.
func (b *Bill) Settle(l *Limiter, err error) {
	isAnswered := err == nil || ds.CodeOf(err) != ""
	for _, c := range b.charges {
		if c.cost > 0 && !(c.stands && isAnswered && (err == nil || !c.isBytes)) {
			l.GiveBack(c.key, c.cost)
		}
	}
	b.charges = nil
}
