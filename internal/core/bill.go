package core

import "waxwing.im/waxwing/internal/limits"

// bill holds the charges of a request, and the facts that metrics count.
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
