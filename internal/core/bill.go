package core

import (
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
)

// bill holds the charges of an operation, and the facts that metrics count.
type bill struct {
	limits.Bill
	isRepeat bool // answered by the record of an earlier request
	lostRace bool // a commit for an epoch that another commit has ended
}

// rerun resets the bill for another run of a rule.
func (b *bill) rerun() {
	b.isRepeat, b.lostRace = false, false
	b.Rerun()
}

// settle ends a bill with the final outcome of its operation.
func (s *Service) settle(b *bill, err error) {
	b.Settle(s.limits, err)
	if b.isRepeat && err == nil {
		s.metrics.duplicates.Inc()
	}
	if b.lostRace && ds.CodeOf(err) == ds.EpochConflict {
		s.metrics.commitConflicts.Inc()
	}
}
