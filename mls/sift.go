package mls

import (
	"fmt"
	"slices"

	"waxwing.im/waxwing/mls/wire"
)

// ChangeError reports a part of CommitOptions that prevents a commit, such as a KeyPackage of a
// client that another entry of the list adds as well. Err names the rule that it breaks.
type ChangeError struct {
	Field string // of CommitOptions: "Remove", "Add", "PSK" or "Changes"
	Index int    // in that field
	Err   error
}

// Error returns the field, the index in it, and the rule.
func (e *ChangeError) Error() string { return fmt.Sprintf("%s %d: %v", e.Field, e.Index, e.Err) }

// Unwrap returns Err.
func (e *ChangeError) Unwrap() error { return e.Err }

// ChangeErrors reports all parts of CommitOptions, at least one, that prevent a commit; without
// them it can be built. Use errors.As to find it.
type ChangeErrors []*ChangeError

// Error returns the message of the first part.
func (e ChangeErrors) Error() string {
	if len(e) > 1 {
		return fmt.Sprintf("%v (and %d more)", e[0], len(e)-1)
	}
	return e[0].Error()
}

// Unwrap returns the parts.
func (e ChangeErrors) Unwrap() []error {
	out := make([]error, len(e))
	for i := range e {
		out[i] = e[i]
	}
	return out
}

// siftTriesMax bounds the lists that are tried to find the received proposals that can be
// committed together; those still undecided then are left out.
const siftTriesMax = 256

// sifter finds the proposals that can be committed together. It calls the hook once for each
// leaf.
type sifter struct {
	group *Group
	asked map[leafName]error
	tries int // left; negative: without a bound
	bad   []badProposal
}

// badProposal is a proposal that a sifter left out, by its index among the candidates.
type badProposal struct {
	index int
	err   error
}

// leafName identifies a leaf within one sifting by all that a hook verifies: a package may copy
// a key of another one.
type leafName struct{ encryptionKey, signatureKey, credential string }

func newSifter(g *Group, tries int) *sifter {
	return &sifter{group: g, asked: map[leafName]error{}, tries: tries}
}

// sift adds those of candidates to base that can be committed together with it and always, and
// returns base with them. Earlier ones take precedence over later ones: each is left out only
// if it conflicts with those taken before it. It tries whole runs first, so that few bad ones
// among many cost a logarithm each. The others go to s.bad, counted from first.
func (s *sifter) sift(base, candidates, always []proposal, first int) []proposal {
	if len(candidates) == 0 {
		return base
	}
	if s.tries == 0 {
		for i := range candidates {
			s.bad = append(s.bad, badProposal{first + i, broken(ErrInvalidProposal, "12.2", "too many proposals that cannot be committed")})
		}
		return base
	}
	s.tries--
	with := slices.Concat(base, candidates)
	err := s.fits(slices.Concat(with, always))
	switch {
	case err == nil:
		return with
	case len(candidates) == 1:
		s.bad = append(s.bad, badProposal{first, err})
		return base
	}
	half := len(candidates) / 2
	base = s.sift(base, candidates[:half], always, first)
	return s.sift(base, candidates[half:], always, first+half)
}

// fits reports whether a commit of ours can carry out list, leaving out the path.
func (s *sifter) fits(list []proposal) error {
	commit, err := stageOwn(s.group, list)
	if err != nil {
		return err
	}
	if err := commit.checkTree(); err != nil {
		return err
	}
	if _, err := s.group.pskSecret(commit.psks); err != nil {
		return err
	}
	return s.ask(commit.credentials())
}

// ask calls the hook, unless it was called before for the same change.
func (s *sifter) ask(list []CredentialChange) error {
	for _, c := range list {
		name := leafName{string(c.New.EncryptionKey), string(c.New.SignatureKey), string(c.New.Credential)}
		err, isKnown := s.asked[name]
		if !isKnown {
			err = s.group.hook.check(s.group.context.GroupID, c)
			s.asked[name] = err
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ownChanges holds the changes of CommitOptions as proposals.
type ownChanges struct {
	list   []proposal
	places []ChangeError // of each proposal of list, without Err
	bad    ChangeErrors  // changes that are invalid by themselves
}

// newOwnChanges turns the changes of o into our own proposals.
func newOwnChanges(g *Group, o *CommitOptions) *ownChanges {
	own := &ownChanges{}
	for i, leaf := range o.Remove {
		own.add(g, "Remove", i, Remove(leaf))
	}
	for i, pack := range o.Add {
		own.add(g, "Add", i, Add(pack))
	}
	for i, id := range o.PSK {
		own.add(g, "PSK", i, ExternalPSK(id))
	}
	for i, c := range o.Changes {
		own.add(g, "Changes", i, c)
	}
	return own
}

func (own *ownChanges) add(g *Group, field string, index int, c Change) {
	body, err := c.body(g.suite, g.context.GroupID, g.now(), g.limits.Lifetime)
	if err != nil {
		own.bad = append(own.bad, &ChangeError{field, index, err})
		return
	}
	if g.usage != 0 && body.PSK != nil && body.PSK.Kind == wire.ResumptionPSK {
		body.PSK.Usage, body.PSK.GroupID = g.usage, g.source.ID()
	}
	own.list = append(own.list, proposal{sender: g.sender(), body: body})
	own.places = append(own.places, ChangeError{Field: field, Index: index})
}

// sift returns as ChangeErrors all changes that prevent a commit of them after base; nil if there
// are none.
func (own *ownChanges) sift(g *Group, base []proposal) error {
	s := newSifter(g, -1)
	s.sift(base, own.list, nil, 0)
	for _, p := range s.bad {
		place := own.places[p.index]
		place.Err = p.err
		own.bad = append(own.bad, &place)
	}
	if len(own.bad) == 0 {
		return nil
	}
	return own.bad
}

// removesIn returns the Removes of list.
func removesIn(list []proposal) []proposal {
	return slices.DeleteFunc(slices.Clone(list), func(p proposal) bool { return p.body.Type != wire.RemoveProposal })
}
