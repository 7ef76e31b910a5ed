package core

import (
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
)

// bill holds the charges of an operation, and a fact that metrics count.
type bill struct {
	limits.Bill
	isRepeat bool // answered by the record of an earlier request
}

// rerun resets the bill for another run of a rule.
func (b *bill) rerun() {
	b.isRepeat = false
	b.Rerun()
}

// settle ends a bill with the final outcome of its operation, which has a handshake or message of
// that kind.
func (s *Service) settle(b *bill, kind ds.Kind, err error) {
	b.Settle(s.limits, err)
	switch isRepeat := b.isRepeat && err == nil; {
	case isRepeat:
		s.metrics.duplicates.Inc()
	case kind == ds.Commit:
		s.metrics.commit(err)
	}
}
