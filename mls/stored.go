package mls

import (
	"bytes"
	"slices"

	"waxwing.im/waxwing/mls/suite"
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

func (h *holding) add(count, bytes int) {
	h.count += count
	h.bytes += bytes
}

// holder returns the sender to which a proposal is counted. All new members share one: an
// outsider can use any number of names.
func (p *proposal) holder() wire.Sender {
	if p.sender.Type == wire.NewMemberProposalSender {
		return wire.Sender{Type: wire.NewMemberProposalSender}
	}
	return p.sender
}

// keep returns the list of kept proposals with one more, unless it already has it. At a bound,
// the sender with the most proposals loses one: if that is the sender of p, p is refused.
func keep(list []proposal, p proposal, limits *Limits) ([]proposal, error) {
	if slices.ContainsFunc(list, func(q proposal) bool { return bytes.Equal(q.ref, p.ref) }) {
		return list, nil
	}
	p.measure()
	held := map[wire.Sender]*holding{}
	var all holding
	for _, q := range append(list[:len(list):len(list)], p) {
		h := held[q.holder()]
		if h == nil {
			h = &holding{}
			held[q.holder()] = h
		}
		h.add(1, q.bytes)
		all.add(1, q.bytes)
	}
	if held[p.holder()].count > limits.SenderProposals {
		return nil, broken(ErrInvalidProposal, "12.2", "more than %d proposals of one sender in one epoch", limits.SenderProposals)
	}
	kept := slices.Clone(list)
	for all.count > limits.Proposals || all.bytes > limits.ProposalBytes {
		most := func(h *holding) int { return h.count }
		if all.bytes > limits.ProposalBytes {
			most = func(h *holding) int { return h.bytes }
		}
		at, h := largest(kept, held, p.holder(), most)
		if at < 0 {
			return nil, broken(ErrInvalidProposal, "12.2", "more than %d proposals or %d bytes of them in one epoch", limits.Proposals, limits.ProposalBytes)
		}
		h.add(-1, -kept[at].bytes)
		all.add(-1, -kept[at].bytes)
		kept = slices.Delete(kept, at, at+1)
	}
	return append(kept, p), nil
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

// resolve replaces the references of a commit by the proposals kept. RFC 9420, sections 12.4.2
// and 12.4.3.2.
func resolve(kept []proposal, list []wire.ProposalOrRef, committer wire.Sender) ([]proposal, error) {
	received := make(map[string]proposal, len(kept))
	for _, p := range kept {
		received[string(p.ref)] = p
	}
	out := make([]proposal, 0, min(len(list), 1000))
	for _, p := range list {
		if p.Proposal != nil {
			out = append(out, proposal{sender: committer, body: p.Proposal})
			continue
		}
		if committer.Type == wire.NewMemberCommitSender {
			return nil, broken(ErrInvalidCommit, "12.4.3.2", "an external commit with a proposal by reference")
		}
		found, known := received[string(p.Reference)]
		if !known {
			return nil, broken(ErrUnknownProposal, "12.4.2", "reference %x", p.Reference)
		}
		out = append(out, found)
	}
	return out, nil
}

// references encodes proposals for a commit: by reference if they were sent before, else by
// value.
func references(list []proposal) []wire.ProposalOrRef {
	out := make([]wire.ProposalOrRef, len(list))
	for i, p := range list {
		if p.ref != nil {
			out[i].Reference = p.ref
		} else {
			out[i].Proposal = p.body
		}
	}
	return out
}

// checkCommitted verifies the signatures inside the proposals that a commit contains by value, on
// all processors. A commit of 32 KiB can hold two hundred, so this check is last: it runs only
// for a commit that is valid otherwise. Proposals by reference were verified on receipt.
func checkCommitted(list []proposal, s *suite.Suite, groupID []byte) error {
	return suite.Parallel(len(list), func(i int) error {
		if list[i].ref != nil {
			return nil
		}
		return list[i].checkSignatures(s, groupID)
	})
}
