package core

import "waxwing.im/waxwing/internal/limits"

// bill holds what a request is charged, and what is to be counted of it.
type bill struct {
	limits.Bill
	isRepeat bool // answered by the record of an earlier request
	lostRace bool // a commit for an epoch that another one has ended
}

// rerun begins another run of a rule.
func (b *bill) rerun() {
	b.isRepeat, b.lostRace = false, false
	b.Rerun()
}
