package mls

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"testing"

	"waxwing.im/waxwing/mls/framing"
	"waxwing.im/waxwing/mls/leaf"
	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/tree"
	"waxwing.im/waxwing/mls/wire"
)

// shape is a way to make a message of a given size expensive. try processes it once; the test
// measures the cost, not the result.
type shape struct {
	name string
	make func(t testing.TB, bytes int) (try func() error)
}

// hostileMembers is the size of the group that hostile messages go to.
const hostileMembers = 1000

// times makes a list of about the given number of bytes on the wire.
func times[T any](bytes, each int, make func(i int) T) []T {
	var list []T
	for i := range bytes / each {
		list = append(list, make(i))
	}
	return list
}

// victim returns a member of a large group, and mallory, a member that signs anything.
func victim(t testing.TB) (victim, mallory *Group) {
	t.Helper()
	g, err := NewGroup(testSuite, []byte("group"), identity(t, testSuite, "mallory"), GroupOptions{
		Now: testNow, PSK: func([]byte) ([]byte, error) { return make([]byte, 32), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	mallory, victim = filled(t, g, hostileMembers)
	return victim, mallory
}

// signed makes a member's message out of any content.
func signed(t testing.TB, g *Group, format wire.WireFormat, content wire.FramedContent) []byte {
	t.Helper()
	a := &wire.AuthenticatedContent{WireFormat: format, Content: content}
	if content.ContentType == wire.CommitContent {
		a.ConfirmationTag = random(32)
	}
	if err := framing.Sign(g.suite, g.key.private, a, &g.context); err != nil {
		t.Fatal(err)
	}
	message, _, err := g.frame(a, SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return message
}

// commitOf returns a shape with the commit of a member.
func commitOf(name string, list func(t testing.TB, g *Group, bytes int) wire.Commit) shape {
	return shape{name, func(t testing.TB, bytes int) func() error {
		v, m := victim(t)
		commit := list(t, m, bytes)
		content := m.content(nil)
		content.ContentType, content.Commit = wire.CommitContent, &commit
		message := signed(t, m, wire.PublicMessageFormat, content)
		return func() error { _, err := v.Process(message); return err }
	}}
}

func byValue(list []wire.Proposal) wire.Commit {
	var commit wire.Commit
	for i := range list {
		commit.Proposals = append(commit.Proposals, wire.ProposalOrRef{Proposal: &list[i]})
	}
	return commit
}

// ownPath returns a path of g with a valid leaf.
func ownPath(t testing.TB, g *Group) *wire.UpdatePath {
	t.Helper()
	path, err := g.tree.Clone().Replace(g.own, *g.tree.Leaf(g.own), g.context.GroupID, g.key.private)
	if err != nil {
		t.Fatal(err)
	}
	return &wire.UpdatePath{Leaf: *path.Leaf}
}

// welcomeWith returns a shape with a Welcome that contains a tree.
func welcomeWith(name string, tree func(t testing.TB, own *wire.LeafNode, bytes int) wire.RatchetTree) shape {
	return shape{name, func(t testing.TB, bytes int) func() error {
		s, kp := mustSuite(t), keyPackage(t, identity(t, testSuite, "victim"))
		list := tree(t, &kp.public.Leaf, bytes)
		key, err := NewSignatureKey(testSuite)
		if err != nil {
			t.Fatal(err)
		}
		info := &wire.GroupInfo{
			Context:    wire.GroupContext{Version: wire.MLS10, CipherSuite: s.ID(), GroupID: []byte("group"), TreeHash: random(32)},
			Extensions: []wire.Extension{{Type: wire.RatchetTreeExtension, Data: wire.Marshal(&list)}},
		}
		if info.Signature, err = s.SignWithLabel(key.private, "GroupInfoTBS", info.SignedContent()); err != nil {
			t.Fatal(err)
		}
		secrets := wire.GroupSecrets{JoinerSecret: random(32)}
		wrapKey, nonce := schedule.WelcomeKey(s, schedule.Welcome(s, secrets.JoinerSecret, schedule.NoPSK()))
		w := &wire.Welcome{CipherSuite: s.ID(), EncryptedGroupInfo: s.Seal(wrapKey, nonce, nil, wire.Marshal(info))}
		sealed, err := s.EncryptWithLabel(kp.public.InitKey, "Welcome", w.EncryptedGroupInfo, wire.Marshal(&secrets))
		if err != nil {
			t.Fatal(err)
		}
		w.Secrets = []wire.EncryptedGroupSecrets{{NewMember: kp.Ref(), Secrets: sealed}}
		message := wire.Marshal(&wire.Message{WireFormat: wire.WelcomeFormat, Welcome: w})
		return func() error { _, err := Join(message, kp, JoinOptions{Now: testNow}); return err }
	}}
}

func mustSuite(t testing.TB) *suite.Suite {
	t.Helper()
	s, err := lookup(testSuite)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// treeOf is validated as if its tree hash had been right, which costs an attacker
// nothing but would end the measurement early.
func treeOf(name string, make func(t testing.TB, bytes int) wire.RatchetTree) shape {
	return shape{name, func(t testing.TB, bytes int) func() error {
		s, list := mustSuite(t), make(t, bytes)
		raw := wire.Marshal(&list)
		return func() error { return validateTree(s, raw) }
	}}
}

// signedLeaves are leaves that verify, of the least size.
func signedLeaves(t testing.TB, n int) []*wire.LeafNode {
	t.Helper()
	s := mustSuite(t)
	list := make([]*wire.LeafNode, n)
	for i := range list {
		key, err := NewSignatureKey(testSuite)
		if err != nil {
			t.Fatal(err)
		}
		list[i] = &wire.LeafNode{
			EncryptionKey: random(32), SignatureKey: key.public, Credential: wire.Credential{Type: wire.BasicCredential},
			Capabilities: wire.Capabilities{Versions: []uint16{wire.MLS10}, CipherSuites: []uint16{uint16(testSuite)}, Credentials: []uint16{wire.BasicCredential}},
			Source:       wire.UpdateLeaf,
		}
		if err := leaf.Sign(s, key.private, list[i], []byte("group"), uint32(i)); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

var shapes = []shape{
	{"header of many references", func(t testing.TB, bytes int) func() error {
		v, m := victim(t)
		content := m.content(nil)
		content.ContentType, content.Commit = wire.CommitContent, &wire.Commit{Proposals: make([]wire.ProposalOrRef, bytes/2)}
		message := signed(t, m, wire.PublicMessageFormat, content)
		_ = v
		return func() error { _, err := wire.ParseHeader(message); return err }
	}},
	commitOf("unknown references", func(_ testing.TB, _ *Group, bytes int) wire.Commit {
		return wire.Commit{Proposals: make([]wire.ProposalOrRef, bytes/2)}
	}),
	commitOf("removes", func(_ testing.TB, _ *Group, bytes int) wire.Commit {
		return byValue(times(min(bytes, 7*(hostileMembers-2)), 7, func(i int) wire.Proposal {
			return wire.Proposal{Type: wire.RemoveProposal, Remove: uint32(hostileMembers - 1 - i)}
		}))
	}),
	commitOf("pre-shared keys", func(_ testing.TB, g *Group, bytes int) wire.Commit {
		return byValue(times(bytes, 39, func(int) wire.Proposal {
			return wire.Proposal{Type: wire.PSKProposal, PSK: &wire.PreSharedKeyID{Kind: wire.ExternalPSK, Nonce: random(32)}}
		}))
	}),
	commitOf("group extensions", func(t testing.TB, g *Group, bytes int) wire.Commit {
		commit := byValue([]wire.Proposal{{Type: wire.GroupContextExtensionsProposal, Extensions: times(bytes, 3, func(i int) wire.Extension {
			return wire.Extension{Type: uint16(0xf000 + i)}
		})}})
		commit.Path = ownPath(t, g)
		return commit
	}),
	commitOf("required capabilities", func(t testing.TB, g *Group, bytes int) wire.Commit {
		required := wire.RequiredCapabilities{Extensions: times(bytes, 2, func(int) uint16 { return wire.RatchetTreeExtension })}
		p, err := makeCommit(g, &CommitOptions{Public: true}, []proposal{{sender: g.sender(), body: &wire.Proposal{
			Type:       wire.GroupContextExtensionsProposal,
			Extensions: []wire.Extension{{Type: wire.RequiredCapabilitiesExtension, Data: wire.Marshal(&required)}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		var m wire.Message
		if err := wire.Unmarshal(p.message, &m); err != nil {
			t.Fatal(err)
		}
		return *m.Public.Content.Commit
	}),
	commitOf("path of many nodes", func(t testing.TB, g *Group, bytes int) wire.Commit {
		path := ownPath(t, g)
		path.Nodes = make([]wire.UpdatePathNode, bytes/2)
		return wire.Commit{Path: path}
	}),
	commitOf("path of many secrets", func(t testing.TB, g *Group, bytes int) wire.Commit {
		path := ownPath(t, g)
		path.Nodes = []wire.UpdatePathNode{{EncryptionKey: random(32), Secrets: make([]wire.HPKECiphertext, bytes/2)}}
		return wire.Commit{Path: path}
	}),
	commitOf("capabilities of a leaf", func(t testing.TB, g *Group, bytes int) wire.Commit {
		path := ownPath(t, g)
		path.Leaf.Capabilities.Extensions = times(bytes, 2, func(i int) uint16 { return uint16(i) })
		if err := leaf.Sign(g.suite, g.key.private, &path.Leaf, g.context.GroupID, g.own); err != nil {
			t.Fatal(err)
		}
		return wire.Commit{Path: path}
	}),
	commitOf("extensions of a leaf", func(t testing.TB, g *Group, bytes int) wire.Commit {
		path := ownPath(t, g)
		path.Leaf.Capabilities.Extensions = times(bytes/5, 1, func(i int) uint16 { return uint16(0xf000 - i) })
		path.Leaf.Extensions = times(bytes/5, 1, func(i int) wire.Extension { return wire.Extension{Type: uint16(0xf000 - i)} })
		if err := leaf.Sign(g.suite, g.key.private, &path.Leaf, g.context.GroupID, g.own); err != nil {
			t.Fatal(err)
		}
		return wire.Commit{Path: path}
	}),
	commitOf("key packages", func(t testing.TB, g *Group, bytes int) wire.Commit {
		kp := keyPackage(t, Identity{Key: identity(t, testSuite, "x").Key})
		return byValue(times(bytes, len(wire.Marshal(kp.public))+3, func(int) wire.Proposal {
			return wire.Proposal{Type: wire.AddProposal, Add: keyPackage(t, Identity{Key: identity(t, testSuite, "x").Key}).public}
		}))
	}),
	{"distant generation", func(t testing.TB, bytes int) func() error {
		v, m := victim(t)
		var err error
		if _, m.secrets, err = m.secrets.Take(m.own, schedule.Application, schedule.JumpMax-1); err != nil {
			t.Fatal(err)
		}
		message, _, err := m.Seal(make([]byte, bytes), nil, SealOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return func() error { _, err := v.Process(message); return err }
	}},
	{"impossible generation", func(t testing.TB, bytes int) func() error {
		v, m := victim(t)
		message := generation(t, m, 1<<31, make([]byte, bytes))
		return func() error { _, err := v.Process(message); return err }
	}},
	{"padding", func(t testing.TB, bytes int) func() error {
		v, m := victim(t)
		message, _, err := m.Seal(nil, nil, SealOptions{Padding: bytes})
		if err != nil {
			t.Fatal(err)
		}
		return func() error { _, err := v.Process(message); return err }
	}},
	{"welcome to many others", func(t testing.TB, bytes int) func() error {
		kp := keyPackage(t, identity(t, testSuite, "victim"))
		message := wire.Marshal(&wire.Message{WireFormat: wire.WelcomeFormat, Welcome: &wire.Welcome{
			CipherSuite: uint16(testSuite), Secrets: make([]wire.EncryptedGroupSecrets, bytes/3),
		}})
		return func() error { _, err := Join(message, kp, JoinOptions{Now: testNow}); return err }
	}},
	welcomeWith("welcome to a blank tree", func(t testing.TB, own *wire.LeafNode, bytes int) wire.RatchetTree {
		list := make(wire.RatchetTree, bytes|1)
		list[len(list)-1] = &wire.Node{Leaf: own}
		return list
	}),
	treeOf("tree of blank nodes", func(t testing.TB, bytes int) wire.RatchetTree {
		list := make(wire.RatchetTree, bytes|1)
		list[len(list)-1] = &wire.Node{Leaf: signedLeaves(t, 1)[0]}
		return list
	}),
	treeOf("tree of unmerged leaves", func(t testing.TB, bytes int) wire.RatchetTree {
		const leafBytes = 160
		leaves := signedLeaves(t, bytes/(leafBytes+40+28))
		list := make(wire.RatchetTree, 2*len(leaves)-1)
		all := make([]uint32, len(leaves))
		for i := range leaves {
			all[i], list[2*i] = uint32(i), &wire.Node{Leaf: leaves[i]}
		}
		for x := 1; x < len(list); x += 2 {
			half := 1 // leaves on each side of x
			for ; x>>1&half == half; half = half<<1 | 1 {
			}
			first := (x+1)/2 - (half+1)/2
			last := min(first+half+1, len(all))
			list[x] = &wire.Node{Parent: &wire.ParentNode{EncryptionKey: random(32), UnmergedLeaves: all[max(first, 0):last]}}
		}
		return list
	}),
	treeOf("tree of parents over one leaf", func(t testing.TB, bytes int) wire.RatchetTree {
		list := make(wire.RatchetTree, bytes/20|1)
		for x := 1; x < len(list); x += 2 {
			list[x] = &wire.Node{Parent: &wire.ParentNode{EncryptionKey: random(32)}}
		}
		list[len(list)-1] = &wire.Node{Leaf: signedLeaves(t, 1)[0]}
		return list
	}),
}

// generation is a message of g with a generation of our choice.
func generation(t testing.TB, g *Group, n uint32, plaintext []byte) []byte {
	t.Helper()
	a := &wire.AuthenticatedContent{WireFormat: wire.PrivateMessageFormat, Content: g.content(nil)}
	a.Content.ContentType, a.Content.Application = wire.ApplicationContent, plaintext
	if err := framing.Sign(g.suite, g.key.private, a, &g.context); err != nil {
		t.Fatal(err)
	}
	key := schedule.Key{Generation: n, Key: random(g.suite.KeyBytes()), Nonce: random(suite.NonceBytes)}
	m, err := framing.Private(g.suite, g.epoch.SenderData, key, g.own, a, 0)
	if err != nil {
		t.Fatal(err)
	}
	return wire.Marshal(&wire.Message{WireFormat: wire.PrivateMessageFormat, Private: m})
}

func TestImpossibleGenerations(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	for _, n := range []uint32{schedule.JumpMax + 1, 1 << 31, math.MaxUint32} {
		message := generation(t, w.groups["ann"], n, nil)
		var err error
		allocated := leastAllocatedBytes(func() { _, err = w.groups["bob"].Process(message) })
		if !errors.Is(err, ErrTooFarAhead) {
			t.Errorf("generation %d: %v", n, err)
		}
		if allocated > 20_000 {
			t.Errorf("generation %d: %d bytes were allocated before it was refused", n, allocated)
		}
	}
}

// allocatedBytes returns the bytes that f allocates: a measure of cost that is the same on every
// machine.
func allocatedBytes(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// leastAllocatedBytes returns the least of several runs. A single run may allocate more: under the
// race detector every sync.Pool drops a quarter of its values, and buffers then grow again.
func leastAllocatedBytes(f func()) uint64 {
	least := allocatedBytes(f)
	for range 7 {
		least = min(least, allocatedBytes(f))
	}
	return least
}

// The cost of a message is linear in its size, besides that of the group.
func TestHostileShapesTakeLinearMemory(t *testing.T) {
	// The garbage collector would empty caches at any time.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for _, s := range shapes {
		var used [3]uint64
		for i, bytes := range []int{0, 16 << 10, 64 << 10} {
			try := s.make(t, max(bytes, 256))
			runtime.GC()
			_ = try() // what is remembered after the first time counts less
			used[i] = leastAllocatedBytes(func() { _ = try() })
		}
		small, large := used[1]-min(used[0], used[1]), used[2]-min(used[0], used[2])
		if large > 6*small+100_000 {
			t.Errorf("%s: %d bytes of memory for 16 KiB, %d for 64 KiB", s.name, small, large)
		}
	}
}

// BenchmarkHostile shows what a hostile message costs: linear in its size, and at
// 32 KiB less than 5 ms, in a group of a thousand members.
func BenchmarkHostile(b *testing.B) {
	for _, s := range shapes {
		for _, bytes := range []int{8 << 10, 32 << 10} {
			b.Run(fmt.Sprintf("%s/%dKiB", s.name, bytes>>10), func(b *testing.B) {
				try := s.make(b, bytes)
				_ = try()
				start := cpuTime()
				for b.Loop() {
					_ = try()
				}
				b.ReportMetric(float64((cpuTime()-start).Microseconds())/1000/float64(b.N), "cpu-ms/op")
			})
		}
	}
}

// validateTree does what joining does with a tree.
func validateTree(s *suite.Suite, raw []byte) error {
	var list wire.RatchetTree
	if err := wire.Unmarshal(raw, &list); err != nil {
		return err
	}
	t, err := tree.Decode(s, list)
	if err != nil {
		return err
	}
	t.Hash()
	return t.Validate([]byte("group"), nil)
}
