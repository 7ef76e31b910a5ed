package mls

import (
	"slices"

	"waxwing.im/waxwing/mls/keypackage"
	"waxwing.im/waxwing/mls/wire"
)

// received lists the proposals of this epoch that a commit of ours carries out:
// those that are ours to commit, and compatible with each other and with what we
// propose in the commit itself. The committer chooses. RFC 9420, section 12.2.
func (g *Group) received(o *CommitOptions, proposed []proposal) []proposal {
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
	var candidates []proposal
	for _, p := range g.proposals {
		if o.Skip == nil || !o.Skip(g.info(p)) {
			candidates = append(candidates, p)
		}
	}
	// Removes go before Updates of the same leaf, and late Updates before early ones.
	for _, p := range candidates {
		if p.body.Type == wire.RemoveProposal {
			takeOnce(c, p, c.touched, p.body.Remove)
		}
	}
	for i := range candidates {
		if p := candidates[len(candidates)-1-i]; p.body.Type == wire.UpdateProposal {
			takeOnce(c, p, c.touched, p.sender.Index)
		}
	}
	for _, p := range candidates {
		g.choose(c, p)
	}
	if len(c.list) == 0 && len(proposed) == 0 {
		for _, p := range candidates {
			if p.body.Type == wire.ReInitProposal {
				return []proposal{p} // it must be alone
			}
		}
	}
	return c.list
}

// fittingMax bounds the proposals that are tried one by one.
const fittingMax = 32

// fitting lists those of the received proposals that can be committed together with
// what we propose, after a commit of all of them was refused.
func (g *Group) fitting(received, proposed []proposal) []proposal {
	if len(received) > fittingMax {
		return nil
	}
	var list []proposal
	for _, p := range received {
		with := append(slices.Clone(list), p)
		if g.fits(slices.Concat(with, proposed)) == nil {
			list = with
		}
	}
	return list
}

// fits says whether a commit of ours can carry out list, leaving out the path.
func (g *Group) fits(list []proposal) error {
	plan, err := g.plan(list, g.sender())
	if err != nil {
		return err
	}
	t := g.tree.Clone()
	added := plan.apply(t)
	return firstError(
		t.Unique,
		func() error { return t.Compatible(plan.extensions) },
		func() error { _, err := g.pskSecret(plan.psks); return err },
		func() error { return g.askAll(plan.credentials(g.tree, added, g.context.Epoch+1)) },
	)
}

// choice is what received has chosen so far.
type choice struct {
	list     []proposal
	touched  map[uint32]bool
	clients  map[string]bool
	psks     map[string]bool
	extended bool
}

// choose takes p if it is neither Remove nor Update and fits the others.
func (g *Group) choose(c *choice, p proposal) {
	switch p.body.Type {
	case wire.AddProposal:
		if keypackage.CheckLifetime(&p.body.Add.Leaf, g.now()) == nil {
			takeOnce(c, p, c.clients, string(p.body.Add.Leaf.SignatureKey))
		}
	case wire.PSKProposal:
		takeOnce(c, p, c.psks, string(wire.Marshal(p.body.PSK)))
	case wire.GroupContextExtensionsProposal:
		if !c.extended {
			c.extended, c.list = true, append(c.list, p)
		}
	}
}

// takeOnce takes p unless something with the same key was taken.
func takeOnce[K comparable](c *choice, p proposal, seen map[K]bool, key K) {
	if !seen[key] {
		seen[key] = true
		c.list = append(c.list, p)
	}
}
