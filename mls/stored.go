package mls

import (
	"bytes"
	"slices"

	"waxwing.im/waxwing/mls/wire"
)

// proposalOverhead is the size counted for a kept proposal besides its own bytes.
const proposalOverhead = 256

// measure sets the size of p in bytes.
func (p *proposal) measure() {
	p.bytes = len(p.ref) + len(wire.Marshal(p.body)) + proposalOverhead
}

// holding counts the kept proposals of one sender.
type holding struct{ count, bytes int }

// holder returns the sender to which a proposal is counted. All senders outside the group share
// one: an outsider can use any number of names.
func (p *proposal) holder() wire.Sender {
	if p.sender.Type == wire.NewMemberProposalSender {
		return wire.Sender{Type: wire.NewMemberProposalSender}
	}
	return p.sender
}

// keep returns the group with one more proposal, unless it already has it. At a bound, the
// sender with the most proposals loses one: if that is the sender of p, p is refused.
func (g *Group) keep(p proposal) (*Group, error) {
	if slices.ContainsFunc(g.proposals, func(q proposal) bool { return bytes.Equal(q.ref, p.ref) }) {
		return g.clone(), nil
	}
	p.measure()
	held := map[wire.Sender]*holding{}
	var all holding
	for _, q := range append(g.proposals[:len(g.proposals):len(g.proposals)], p) {
		h := held[q.holder()]
		if h == nil {
			h = &holding{}
			held[q.holder()] = h
		}
		for _, sum := range []*holding{h, &all} {
			sum.count++
			sum.bytes += q.bytes
		}
	}
	if held[p.holder()].count > g.limits.SenderProposals {
		return nil, broken(ErrInvalidProposal, "12.2", "more than %d proposals of one sender in one epoch", g.limits.SenderProposals)
	}
	kept := slices.Clone(g.proposals)
	for all.count > g.limits.Proposals || all.bytes > g.limits.ProposalBytes {
		most := func(h *holding) int { return h.count }
		if all.bytes > g.limits.ProposalBytes {
			most = func(h *holding) int { return h.bytes }
		}
		at, h := largest(kept, held, p.holder(), most)
		if at < 0 {
			return nil, broken(ErrInvalidProposal, "12.2", "more than %d proposals or %d bytes of them in one epoch", g.limits.Proposals, g.limits.ProposalBytes)
		}
		for _, sum := range []*holding{h, &all} {
			sum.count--
			sum.bytes -= kept[at].bytes
		}
		kept = slices.Delete(kept, at, at+1)
	}
	next := g.clone()
	next.proposals = append(kept, p)
	return next, nil
}

// largest finds the last proposal of the sender that has more of them than self, and the most
// of all; -1 if there is none.
func largest(kept []proposal, held map[wire.Sender]*holding, self wire.Sender, most func(*holding) int) (at int, h *holding) {
	at, h = -1, held[self]
	for i := range kept {
		q := held[kept[i].holder()]
		if most(q) > most(h) || q == h && at >= 0 {
			at, h = i, q
		}
	}
	return at, h
}
