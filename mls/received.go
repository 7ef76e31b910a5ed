package mls

import (
	"waxwing.im/waxwing/mls/keypackage"
	"waxwing.im/waxwing/mls/wire"
)

// received lists the proposals of this epoch that our own commit carries out: those that we may
// commit, and that are compatible with each other and with the commit's own changes. The
// committer chooses. RFC 9420, section 12.2.
//
// If not all can be kept, they take precedence in this order: Remove, Update, Add, extensions,
// pre-shared keys, so that the rest cannot displace a Remove. Proposals that need keys we do
// not hold are left out. spare holds further ones that may replace one in list which cannot be
// committed.
func received(g *Group, o *CommitOptions, proposed []proposal) (list, spare []proposal) {
	c := newChoice(g, proposed)
	if c == nil {
		return nil, nil
	}
	byType := map[wire.ProposalType][]proposal{}
	for _, p := range g.proposals {
		if o.Skip == nil || !o.Skip(p.info(g.tree)) {
			byType[p.body.Type] = append(byType[p.body.Type], p)
		}
	}
	for _, p := range byType[wire.RemoveProposal] {
		takeOnce(c, p, c.touched, p.body.Remove)
	}
	// Late Updates take precedence over early ones.
	updates := byType[wire.UpdateProposal]
	for i := range updates {
		p := updates[len(updates)-1-i]
		takeOnce(c, p, c.touched, p.sender.Index)
	}
	for _, p := range byType[wire.AddProposal] {
		if keypackage.CheckLifetime(&p.body.Add.Leaf, g.now(), g.limits.Lifetime) == nil {
			takeOnce(c, p, c.clients, string(p.body.Add.Leaf.SignatureKey))
		}
	}
	for _, p := range byType[wire.GroupContextExtensionsProposal] {
		if c.extended {
			spare = append(spare, p)
			continue
		}
		c.extended, c.list = true, append(c.list, p)
	}
	for _, p := range byType[wire.PSKProposal] {
		if _, err := g.findPSK(p.body.PSK); err == nil {
			takeOnce(c, p, c.psks, string(wire.Marshal(p.body.PSK)))
		}
	}
	if reInits := byType[wire.ReInitProposal]; len(c.list)+len(proposed) == 0 && len(reInits) > 0 {
		return reInits[:1], nil // it must be alone
	}
	return c.list, spare
}

// choice holds the proposals that received has chosen so far.
type choice struct {
	list     []proposal
	touched  map[uint32]bool
	clients  map[string]bool
	psks     map[string]bool
	extended bool
}

// newChoice records the commit's own changes; it returns nil if no other proposal may be in the
// commit.
func newChoice(g *Group, proposed []proposal) *choice {
	c := &choice{touched: map[uint32]bool{g.own: true}, clients: map[string]bool{}, psks: map[string]bool{}}
	for _, p := range proposed {
		switch p.body.Type {
		case wire.RemoveProposal:
			c.touched[p.body.Remove] = true
		case wire.AddProposal:
			c.clients[string(p.body.Add.Leaf.SignatureKey)] = true
		case wire.GroupContextExtensionsProposal:
			c.extended = true
		case wire.ReInitProposal:
			return nil
		}
	}
	return c
}

// takeOnce takes p unless a proposal with the same key was taken.
func takeOnce[K comparable](c *choice, p proposal, seen map[K]bool, key K) {
	if !seen[key] {
		seen[key] = true
		c.list = append(c.list, p)
	}
}
