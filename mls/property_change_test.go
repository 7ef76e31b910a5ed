package mls

import (
	"bytes"
	"fmt"
	"slices"
)

// changes are the wishes of a member: nothing, or almost anything.
func (s *service) changes(p *peer) (list []Change, added []*peer) {
	n := s.members()
	gone := map[uint32]bool{p.group.OwnLeaf().Index: true}
	for range s.r.IntN(3) {
		switch s.r.IntN(6) {
		case 0, 1:
			if q := s.outsider(); q != nil && n < peersMax && !slices.Contains(added, q) {
				s.publish(q)
				list, added = append(list, Add(q.published.Message())), append(added, q)
				n++
			}
		case 2:
			members := p.group.Members()
			if l := members[s.r.IntN(len(members))].Index; len(members) > 3 && !gone[l] {
				list, gone[l] = append(list, Remove(l)), true
			}
		case 3:
			list = append(list, ExternalPSK(fmt.Append(nil, "psk ", s.r.IntN(9))))
		}
	}
	if s.r.IntN(6) == 0 {
		list = append(list, SetExtensions(s.extensions()))
	}
	return list, added
}

// outsider is a client to add: one that was never in, or was removed.
func (s *service) outsider() *peer {
	if s.r.IntN(3) > 0 {
		return s.newPeer()
	}
	return s.some(func(p *peer) bool { return p.group != nil && p.group.Removed() })
}

// publish makes a key package for q, with a new key: its old leaf may still be there.
func (s *service) publish(q *peer) {
	id := identity(s.t, testSuite, q.name)
	id.Supports = q.id.Supports
	q.id, q.published = id, keyPackage(s.t, id)
}

// stage lets p make a commit and save it.
func (s *service) stage(p *peer) (added []*peer) {
	o := CommitOptions{Public: s.r.IntN(2) == 0, AuthenticatedData: fmt.Append(nil, "aad ", s.r.IntN(9))}
	switch s.r.IntN(8) {
	case 0: // only the past and the present of those who are there
		o.Changes, o.Skip = []Change{ResumptionPSK(p.group.Epoch())}, func(ProposalInfo) bool { return true }
	case 1:
		id := identity(s.t, testSuite, p.name)
		id.Supports = p.id.Supports
		o.NewIdentity = &id
		p.keys[string(id.Key.public)] = true // it may win before p knows
	default:
		o.Changes, added = s.changes(p)
		o.OmitPath = s.r.IntN(4) == 0 && omitsPath(o.Changes) && len(p.group.proposals) == 0
	}
	c, err := p.group.Commit(o)
	s.must(p, "commits", err)
	p.pending, p.group = c, c.Base()
	return added
}

// omitsPath reports whether a commit of these changes may leave out its path.
func omitsPath(list []Change) bool {
	return len(list) > 0 && !slices.ContainsFunc(list, func(c Change) bool {
		return ProposalType(c.kind) != AddProposal && ProposalType(c.kind) != PSKProposal
	})
}

// commit lets up to three members commit at the same time; one of them wins. The
// losers learn it from the service, or from the log.
func (s *service) commit() {
	type entry struct {
		p     *peer
		added []*peer
	}
	var entries []entry
	for range 1 + s.r.IntN(3) {
		if p := s.someCurrent(); p != nil {
			entries = append(entries, entry{p, s.stage(p)})
		}
	}
	for _, i := range s.r.Perm(len(entries)) {
		e := entries[i]
		c := e.p.pending
		if !s.submit(e.p, c) {
			if s.r.IntN(2) == 0 {
				e.p.pending = nil // it was told
			}
			s.did["lost race"]++
			continue
		}
		s.did["commit"]++
		// Proposals of others may have added the owner of a package that this peer keeps.
		s.welcome(c)
	}
}

// welcome lets the members join that the commit added.
func (s *service) welcome(c *PendingCommit) {
	if len(c.Welcome()) == 0 {
		return
	}
	for _, l := range c.Added() {
		i := slices.IndexFunc(s.peers, func(p *peer) bool {
			return p.published != nil && bytes.Equal(p.published.key.public, l.SignatureKey)
		})
		if i < 0 {
			s.ghosts[string(l.SignatureKey)] = true // it has published another package since
			continue
		}
		q := s.peers[i]
		g, err := Join(c.Welcome(), q.published, JoinOptions{Hook: sameName, PSK: deterministicPSK, Now: testNow, Padding: PadBuckets})
		s.must(q, "joins", err)
		s.enter(q, g)
		s.did["join"]++
	}
}

// enter notes that p is in the group since the last handshake.
func (s *service) enter(p *peer, g *Group) {
	p.group, p.pending, p.published = g, nil, nil
	p.keys[string(g.key.public)] = true
	p.cursor, p.joined, p.inbox = len(s.log), g.Epoch(), nil
}

// propose lets a member propose something for others to commit.
func (s *service) propose() {
	p := s.someCurrent()
	if p == nil {
		return
	}
	var c Change
	members := p.group.Members()
	switch s.r.IntN(6) {
	case 0:
		q := s.outsider()
		if q == nil || s.members() >= peersMax {
			return
		}
		s.publish(q)
		c = Add(q.published.Message())
	case 1:
		c = Remove(members[s.r.IntN(len(members))].Index) // perhaps its own: it leaves
		if len(members) < 4 {
			return
		}
	case 2:
		c = ExternalPSK([]byte("psk"))
	case 3:
		c = SetExtensions(s.extensions())
	default:
		c = Update(nil)
	}
	message, next, err := p.group.Propose(c, ProposeOptions{Public: s.r.IntN(2) == 0})
	s.must(p, "proposes", err)
	if s.r.IntN(8) == 0 { // the service refuses it
		list := next.PendingProposals()
		p.group = next.WithoutProposal(list[len(list)-1].Ref)
		s.did["refused proposal"]++
		return
	}
	p.group = next
	s.log = append(s.log, logged{from: p.name, message: message})
	p.cursor = len(s.log) // it was current, and need not see its own
	s.did["propose"]++
}

// proposeFromOutside lets the service, or a client that wants to join, propose.
func (s *service) proposeFromOutside() {
	p := s.someCurrent()
	if p == nil || s.members() >= peersMax {
		return
	}
	if s.r.IntN(2) == 0 {
		q := s.newPeer()
		s.publish(q)
		message, err := NewMemberProposal(p.group.ID(), s.epoch, q.published)
		s.must(q, "asks to be added", err)
		s.log = append(s.log, logged{from: "new member", message: message})
		s.did["new member proposal"]++
		return
	}
	c := ExternalPSK([]byte("service"))
	if members := p.group.Members(); len(members) > 3 && s.r.IntN(2) == 0 {
		c = Remove(members[s.r.IntN(len(members))].Index)
	}
	message, err := ExternalProposal(p.group.ID(), s.epoch, 0, s.key, c)
	s.must(p, "watches the service propose", err)
	s.log = append(s.log, logged{from: "service", message: message})
	s.did["external proposal"]++
}

// joinByItself lets a client join by external commit: a new one, one that
// was removed, or a member that lost its state and throws its old leaf out.
func (s *service) joinByItself() {
	p := s.outsider()
	resync := s.r.IntN(2) == 0
	if resync {
		p = s.some((*peer).isIn)
	}
	if p == nil || !resync && s.members() >= peersMax {
		return
	}
	s.publish(p)
	c, err := JoinExternal(s.info, p.id, ExternalJoinOptions{
		Hook: sameName, PSK: deterministicPSK, Now: testNow, Padding: PadBuckets, Resync: resync,
		IsOld: func(l Leaf) bool { return p.keys[string(l.SignatureKey)] },
	})
	s.must(p, "joins by itself", err)
	if s.r.IntN(3) == 0 {
		s.commit() // another member may be faster
	}
	if !s.submit(p, c) {
		s.did["lost external race"]++
		return // a resync is given up too: the old state is still there
	}
	g, err := c.Apply(nil)
	s.must(p, "enters by itself", err)
	s.enter(p, g)
	s.did["external join"]++
	if resync {
		s.did["resync"]++
	}
}
