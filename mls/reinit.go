package mls

import (
	"bytes"
	"slices"

	"waxwing.im/waxwing/mls/tree"
	"waxwing.im/waxwing/mls/wire"
)

// Reinitialized describes the successor of the group if the last commit ended it, else it
// returns nil. Any member may create that group with Successor; the others Join it with g as
// JoinOptions.Resume. RFC 9420, section 11.2.
func (g *Group) Reinitialized() *ReInit { return newReInit(g.reInit) }

// Successor creates the group that continues g after Reinitialized, and adds the owners of
// packages, MLSMessages with the KeyPackages of all other members of g. Suite, group id and
// extensions are those of Reinitialized; o.Extensions is ignored. The new group has no other
// members yet, so the commit can be applied to its Base as soon as its Welcome is saved. Errors
// wrap those of NewGroup and Commit, or ErrInvalidSuccessor. RFC 9420, section 11.2.
func (g *Group) Successor(id Identity, packages [][]byte, o GroupOptions) (*PendingCommit, error) {
	r := g.reInit
	if r == nil {
		return nil, broken(ErrInvalidSuccessor, "11.2", "the group was not reinitialized")
	}
	o.Extensions = fromWire(r.Extensions)
	return found(g, Suite(r.CipherSuite), r.GroupID, wire.ReInitUsage, id, packages, o)
}

// Branch creates a group of some members of g, with the suite of g, and adds the owners of
// packages, MLSMessages with KeyPackages of members of g. The commit can be applied to its Base
// as soon as its Welcome is saved. Errors wrap those of NewGroup and Commit, or
// ErrInvalidSuccessor. RFC 9420, section 11.3.
func (g *Group) Branch(groupID []byte, id Identity, packages [][]byte, o GroupOptions) (*PendingCommit, error) {
	if g.removed {
		return nil, broken(ErrRemoved, "11.3", "the group can no longer be changed")
	}
	return found(g, g.Suite(), groupID, wire.BranchUsage, id, packages, o)
}

// found creates a group that continues g.
func found(g *Group, s Suite, groupID []byte, usage uint8, id Identity, packages [][]byte, o GroupOptions) (*PendingCommit, error) {
	next, err := NewGroup(s, groupID, id, o)
	if err != nil {
		return nil, err
	}
	next.source, next.usage = g, usage
	p, err := next.Commit(CommitOptions{Add: packages, Changes: []Change{ResumptionPSK(g.Epoch())}})
	if err != nil {
		return nil, err
	}
	return p, checkContinued(g, usage, p.group, nil)
}

// checkContinued verifies that next, which uses a resumption key of g, is a permitted
// continuation: the agreed successor of g, or a branch of g. same reports whether two leaves
// are the same client. RFC 9420, sections 11.2, 11.3 and 12.4.3.1.
func checkContinued(g *Group, usage uint8, next *Group, same func(was, is Leaf) bool) error {
	if next.context.Epoch != 1 {
		return broken(ErrInvalidSuccessor, "12.4.3.1", "epoch %d instead of 1", next.context.Epoch)
	}
	if usage == wire.BranchUsage {
		if next.context.Version != g.context.Version || next.context.CipherSuite != g.context.CipherSuite {
			return broken(ErrInvalidSuccessor, "11.3", "the branch has another version or cipher suite")
		}
		inverse := same
		if same != nil {
			inverse = func(is, was Leaf) bool { return same(was, is) }
		}
		return checkSubset(next.tree, g.tree, "11.3", "a member of the branch is not one of the group", inverse)
	}
	if err := checkReInit(g.reInit, &next.context); err != nil {
		return err
	}
	return checkSubset(g.tree, next.tree, "11.2", "a member of the group is not one of its successor", same)
}

// checkReInit verifies that a group is the agreed successor. RFC 9420, section 11.2.
func checkReInit(r *wire.ReInit, next *wire.GroupContext) error {
	switch {
	case r == nil:
		return broken(ErrInvalidSuccessor, "12.4.3.1", "the group was not reinitialized")
	case next.Version != r.Version || next.CipherSuite != r.CipherSuite:
		return broken(ErrInvalidSuccessor, "11.2", "the successor has another version or cipher suite")
	case !bytes.Equal(next.GroupID, r.GroupID):
		return broken(ErrInvalidSuccessor, "11.2", "the successor has another group id")
	case !slices.EqualFunc(next.Extensions, r.Extensions, func(a, b wire.Extension) bool {
		return a.Type == b.Type && bytes.Equal(a.Data, b.Data)
	}):
		return broken(ErrInvalidSuccessor, "11.2", "the successor has other extensions")
	}
	return nil
}

// checkSubset verifies that every member of part is a different member of whole. If same is
// nil, members with equal credentials are the same; the cost is then linear.
func checkSubset(part, whole *tree.Tree, section, what string, same func(part, whole Leaf) bool) error {
	if same == nil {
		left := map[string]int{}
		for _, n := range whole.Leaves() {
			left[string(wire.Marshal(&n.Credential))]++
		}
		for i, n := range part.Leaves() {
			name := string(wire.Marshal(&n.Credential))
			if left[name]--; left[name] < 0 {
				return broken(ErrInvalidSuccessor, section, "%s: leaf %d", what, i)
			}
		}
		return nil
	}
	rest := members(whole)
	for _, l := range members(part) {
		i := slices.IndexFunc(rest, func(w Leaf) bool { return same(l, w) })
		if i < 0 {
			return broken(ErrInvalidSuccessor, section, "%s: leaf %d", what, l.Index)
		}
		rest = slices.Delete(rest, i, i+1)
	}
	return nil
}

// continuedUsage returns the usage of the resumption key in a Welcome that names the group which
// the new one continues, after verifying that this group is from; 0 if there is none. RFC 9420,
// section 12.4.3.1.
func continuedUsage(from *Group, psks []wire.PreSharedKeyID) (uint8, error) {
	usage := uint8(0)
	for _, id := range psks {
		switch {
		case id.Kind != wire.ResumptionPSK || id.Usage == wire.ApplicationUsage:
			continue
		case usage != 0:
			return 0, broken(ErrInvalidWelcome, "12.4.3.1", "the welcome continues two groups")
		case from == nil || !bytes.Equal(from.context.GroupID, id.GroupID):
			return 0, broken(ErrUnknownPSK, "8.6", "the welcome continues a group that was not given")
		case id.Usage == wire.ReInitUsage && (from.reInit == nil || id.Epoch != from.context.Epoch):
			return 0, broken(ErrInvalidSuccessor, "12.4.3.1", "the last commit of the group was not a reinitialization")
		}
		usage = id.Usage
	}
	return usage, nil
}
