package mls

import (
	"fmt"
	"slices"

	"waxwing.im/waxwing/mls/wire"
)

// ChangeError reports a part of CommitOptions that keeps a commit from being built, such as a
// KeyPackage of a client that another entry of the list adds as well. Err names the rule that
// it breaks.
type ChangeError struct {
	Field string // of CommitOptions: "Remove", "Add", "PSK" or "Changes"
	Index int    // in that field
	Err   error
}

// Error returns the field, the index in it, and the rule.
func (e *ChangeError) Error() string { return fmt.Sprintf("%s %d: %v", e.Field, e.Index, e.Err) }

// Unwrap returns Err.
func (e *ChangeError) Unwrap() error { return e.Err }

// ChangeErrors reports all parts of CommitOptions that keep a commit from being built, at least
// one: without them it can be built. Use errors.As to find it.
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

// fault returns the error for the change at index i of changes.
func (o *CommitOptions) fault(i int, err error) *ChangeError {
	for _, f := range []struct {
		name string
		size int
	}{{"Remove", len(o.Remove)}, {"Add", len(o.Add)}, {"PSK", len(o.PSK)}} {
		if i < f.size {
			return &ChangeError{Field: f.name, Index: i, Err: err}
		}
		i -= f.size
	}
	return &ChangeError{Field: "Changes", Index: i, Err: err}
}

// siftTriesMax bounds the lists that are tried to find the received proposals that can be
// committed together; those still undecided then are left out.
const siftTriesMax = 256

// sifter finds the proposals that can be committed together. It calls the hook once for each
// leaf.
type sifter struct {
	g     *Group
	asked map[leafName]error
	tries int // left; negative: without a bound
}

// leafName tells the leaves of one sifting apart. Packages of others may have the keys of
// honest ones, which must not be judged like them.
type leafName struct{ encryptionKey, signatureKey, credential string }

func (g *Group) newSifter(tries int) *sifter {
	return &sifter{g: g, asked: map[leafName]error{}, tries: tries}
}

// sift adds those of candidates to base that can be committed together with it and always, and
// returns base with them. Earlier ones take precedence over later ones: each is left out only
// if it conflicts with those taken before it. It tries whole runs first, so that few bad ones
// among many cost a logarithm each. bad is called for the others, with their index.
func (s *sifter) sift(base, candidates, always []proposal, bad func(i int, err error)) []proposal {
	if len(candidates) == 0 {
		return base
	}
	if s.tries == 0 {
		for i := range candidates {
			bad(i, broken(ErrInvalidProposal, "12.2", "too many proposals that cannot be committed"))
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
		bad(0, err)
		return base
	}
	half := len(candidates) / 2
	base = s.sift(base, candidates[:half], always, bad)
	return s.sift(base, candidates[half:], always, func(i int, err error) { bad(half+i, err) })
}

// fits reports whether a commit of ours can carry out list, leaving out the path.
func (s *sifter) fits(list []proposal) error {
	g := s.g
	plan, err := g.plan(list, g.sender())
	if err != nil {
		return err
	}
	if err := plan.checkInitKeys(g.suite.PublicKeys()); err != nil {
		return err
	}
	t := g.tree.Clone()
	added := plan.apply(t)
	return firstError(
		t.Unique,
		func() error { return t.Compatible(plan.extensions) },
		func() error { _, err := g.pskSecret(plan.psks); return err },
		func() error { return s.ask(plan.credentials(g.tree, added, g.context.Epoch+1)) },
	)
}

// ask calls the hook, unless it was called before for the same change.
func (s *sifter) ask(list []CredentialChange) error {
	for _, c := range list {
		name := leafName{string(c.New.EncryptionKey), string(c.New.SignatureKey), string(c.New.Credential)}
		err, isKnown := s.asked[name]
		if !isKnown {
			err = s.g.ask(c)
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
	o      *CommitOptions
	list   []proposal
	places []int        // index of each proposal of list among all changes
	bad    ChangeErrors // changes that are invalid by themselves
}

// sift returns as ChangeErrors all changes that keep a commit of them on top of base from being
// built; nil if there is none.
func (own *ownChanges) sift(g *Group, base []proposal) error {
	g.newSifter(-1).sift(base, own.list, nil, func(i int, err error) { own.bad = append(own.bad, own.o.fault(own.places[i], err)) })
	if len(own.bad) == 0 {
		return nil
	}
	return own.bad
}

// removesIn returns the Removes of list.
func removesIn(list []proposal) []proposal {
	return slices.DeleteFunc(slices.Clone(list), func(p proposal) bool { return p.body.Type != wire.RemoveProposal })
}
