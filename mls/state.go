package mls

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/tree"
	"waxwing.im/waxwing/mls/wire"
)

// Saved state is one envelope, in the notation of RFC 9420, section 2.1:
//
//	struct {
//	    opaque magic[4];      /* "wmls" */
//	    uint8  kind;          /* 1 signature key, 2 key package, 3 group, 4 pending commit */
//	    uint16 version;       /* 2 */
//	    opaque body[...];     /* of the kind, below */
//	    opaque checksum[32];  /* SHA-256 of all before */
//	} State;
//
// The checksum detects accidents, not attackers: state holds private keys, so write access to
// it allows impersonation. Encrypt it at rest; EncryptState does.
//
// The bodies are the fields that the Code methods in this file visit, in their order; STATE.md
// documents them field by field. They contain no used message keys, and no secrets from which
// these could be derived.
//
// Loading also checks that the parts belong together (the tree with the group context, our
// private keys with the tree, the confirmation tag with the epoch, a pending commit with its
// messages), so that a state that loads does not make a later operation fail unexpectedly.
const (
	stateMagic   = "wmls"
	stateVersion = 2 // 1 had no own updates, outsiders, reinitialization, external commits
)

const (
	stateSignatureKey uint8 = iota + 1
	stateKeyPackage
	stateGroup
	statePendingCommit
)

const stateHeadBytes = len(stateMagic) + 3

func saveState(kind uint8, body wire.Struct) []byte {
	b := append([]byte(stateMagic), kind, stateVersion>>8, stateVersion&0xff)
	b = append(b, wire.Marshal(body)...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// loadState decodes a body; errors wrap ErrCorruptState or ErrNewerState.
func loadState(kind uint8, data []byte, body wire.Struct) error {
	if len(data) < stateHeadBytes+sha256.Size || string(data[:len(stateMagic)]) != stateMagic || data[len(stateMagic)] != kind {
		return fmt.Errorf("%w: not a state of this kind", ErrCorruptState)
	}
	if v := int(data[stateHeadBytes-2])<<8 | int(data[stateHeadBytes-1]); v > stateVersion {
		return fmt.Errorf("%w: version %d, at most %d is supported", ErrNewerState, v, stateVersion)
	} else if v != stateVersion {
		return fmt.Errorf("%w: version %d", ErrCorruptState, v)
	}
	content := data[:len(data)-sha256.Size]
	if sum := sha256.Sum256(content); !bytes.Equal(sum[:], data[len(content):]) {
		return fmt.Errorf("%w: wrong checksum", ErrCorruptState)
	}
	if err := wire.Unmarshal(content[stateHeadBytes:], body); err != nil {
		return fmt.Errorf("%w: %w", ErrCorruptState, err)
	}
	return nil
}

// codeSuite visits a suite's number.
func codeSuite(c *wire.Coder, s **suite.Suite) {
	var id uint16
	if *s != nil {
		id = (*s).ID()
	}
	c.U16(&id)
	if !c.Decoding() {
		return
	}
	found, err := suite.Lookup(id)
	if err != nil {
		c.Fail("%v", err)
		found, _ = suite.Lookup(suite.X25519AES128GCM) // so that decoding can continue to the end
	}
	*s = found
}

// codeKey visits a private signature key of suite s.
func codeKey(c *wire.Coder, s *suite.Suite, k *SignatureKey) {
	c.Bytes(&k.private)
	if !c.Decoding() {
		return
	}
	key, err := signatureKey(s, k.private)
	if err != nil {
		c.Fail("%v", err)
	}
	*k = key
}

// codePair visits a private HPKE key of suite s.
func codePair(c *wire.Coder, s *suite.Suite, k *tree.KeyPair) {
	c.Bytes(&k.Private)
	if !c.Decoding() {
		return
	}
	var err error
	if k.Public, err = s.PublicKey(k.Private); err != nil {
		c.Fail("%v", err)
	}
}

// MarshalBinary returns the private key. See EncryptState. The error wraps ErrUnsupportedSuite.
func (k SignatureKey) MarshalBinary() ([]byte, error) {
	s, err := lookup(k.suite)
	if err != nil {
		return nil, err
	}
	return saveState(stateSignatureKey, wire.Func(func(c *wire.Coder) {
		codeSuite(c, &s)
		codeKey(c, s, &k)
	})), nil
}

// UnmarshalBinary decodes the output of MarshalBinary. Errors wrap ErrCorruptState or
// ErrNewerState.
func (k *SignatureKey) UnmarshalBinary(data []byte) error {
	var loaded SignatureKey
	if err := loadState(stateSignatureKey, data, wire.Func(func(c *wire.Coder) {
		var s *suite.Suite
		codeSuite(c, &s)
		codeKey(c, s, &loaded)
	})); err != nil {
		return err
	}
	*k = loaded
	return nil
}

// Code visits a key package in saved state.
func (k *keyPackageState) Code(c *wire.Coder) {
	codeSuite(c, &k.suite)
	wire.Variant(c, &k.public)
	codeKey(c, k.suite, &k.key)
	c.Bytes(&k.initPrivate)
	c.Bytes(&k.encryptionPrivate)
}

type keyPackageState KeyPackage

// MarshalBinary returns the package with its private keys. See EncryptState.
func (k *KeyPackage) MarshalBinary() ([]byte, error) {
	return saveState(stateKeyPackage, (*keyPackageState)(k)), nil
}

// LoadKeyPackage decodes the output of KeyPackage.MarshalBinary. Errors wrap
// ErrCorruptState or ErrNewerState.
func LoadKeyPackage(data []byte) (*KeyPackage, error) {
	k := new(KeyPackage)
	if err := loadState(stateKeyPackage, data, (*keyPackageState)(k)); err != nil {
		return nil, err
	}
	if err := k.checkPrivate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorruptState, err)
	}
	return k, nil
}

// LoadOptions holds the settings of a loaded group, which are not part of its state.
type LoadOptions struct {
	Hook    CredentialHook
	PSK     PSKSource        // nil: no keys known
	Now     func() time.Time // time.Now if nil
	Padding PaddingPolicy    // of PrivateMessages; nil: no padding
	Limits  Limits
}

func (o *LoadOptions) settings() settings {
	return newSettings(o.Hook, o.PSK, o.Now, o.Padding, o.Limits)
}

// MarshalBinary returns the state of the group, private keys included. See EncryptState.
func (g *Group) MarshalBinary() ([]byte, error) {
	return saveState(stateGroup, (*groupState)(g)), nil
}

// LoadGroup decodes the output of Group.MarshalBinary. Errors wrap ErrCorruptState or
// ErrNewerState.
func LoadGroup(state []byte, o LoadOptions) (*Group, error) {
	g := &Group{settings: o.settings()}
	if err := loadState(stateGroup, state, (*groupState)(g)); err != nil {
		return nil, err
	}
	return g, nil
}

// groupState is a Group in saved state.
type groupState Group

// Code visits the parts of a group, and checks when decoding that they fit
// together well enough for every later operation.
func (g *groupState) Code(c *wire.Coder) {
	codeSuite(c, &g.suite)
	c.U32(&g.own)
	codeKey(c, g.suite, &g.key)
	g.context.Code(c)
	c.Bytes(&g.interim)
	c.Bytes(&g.confirmationTag)
	if !g.codeTree(c) {
		return
	}
	g.codeKeys(c)
	if c.Decoding() {
		g.epoch = new(schedule.Epoch)
		g.secrets = (*Group)(g).secretTree(g.tree.Size(), nil)
	}
	g.epoch.Code(c)
	g.checkTranscript(c)
	g.secrets.Code(c)
	wire.Vector(c, &g.proposals, g.codeProposal)
	g.codePast(c)
	g.removed = c.Present(g.removed)
	wire.Optional(c, &g.reInit)
}

// checkTranscript checks the tags of a decoded group, which bind the epoch's
// secrets to the group context. RFC 9420, sections 6.1 and 8.2.
func (g *groupState) checkTranscript(c *wire.Coder) {
	if !c.Decoding() || c.Failed() {
		return
	}
	confirmed := g.context.ConfirmedTranscriptHash
	if !g.suite.MACEqual(g.epoch.ConfirmationTag(g.suite, confirmed), g.confirmationTag) ||
		!bytes.Equal(schedule.InterimTranscript(g.suite, confirmed, g.confirmationTag), g.interim) {
		c.Fail("secrets of another epoch")
	}
}

// codeTree visits the tree and reports whether it is usable.
func (g *groupState) codeTree(c *wire.Coder) bool {
	if !c.Decoding() {
		list := g.tree.Wire()
		list.Code(c)
		return true
	}
	var list wire.RatchetTree
	if list.Code(c); c.Failed() {
		return false
	}
	t, err := tree.Decode(g.suite, list)
	switch {
	case err != nil:
		c.Fail("%v", err)
	case t.Leaf(g.own) == nil || !bytes.Equal(t.Leaf(g.own).SignatureKey, g.key.public):
		c.Fail("our leaf is not in the tree")
	case !bytes.Equal(t.Hash(), g.context.TreeHash) || g.context.CipherSuite != g.suite.ID():
		c.Fail("a tree of another group")
	default:
		g.tree = t
		return true
	}
	return false
}

// codeKeys visits our private keys, by rising node.
func (g *groupState) codeKeys(c *wire.Coder) {
	type entry struct {
		node uint32
		pair tree.KeyPair
	}
	var list []entry
	for x, pair := range g.keys {
		list = append(list, entry{x, pair})
	}
	slices.SortFunc(list, func(a, b entry) int { return int(int64(a.node) - int64(b.node)) })
	wire.Vector(c, &list, func(c *wire.Coder, e *entry) {
		c.U32(&e.node)
		codePair(c, g.suite, &e.pair)
	})
	if !c.Decoding() || c.Failed() {
		return
	}
	g.keys = make(tree.Keys, len(list))
	for _, e := range list {
		g.keys[e.node] = e.pair
	}
	if len(g.keys.Prune(g.tree)) != len(list) || g.keys[2*g.own].Private == nil {
		c.Fail("private keys that do not match the tree")
	}
}

// codeProposal visits a proposal and, if it is an Update of ours, its keys.
func (g *groupState) codeProposal(c *wire.Coder, p *proposal) {
	c.Bytes(&p.ref)
	p.sender.Code(c)
	wire.Variant(c, &p.body)
	if c.Decoding() && !c.Failed() {
		p.measure()
	}
	if !c.Present(p.own != nil) {
		return
	}
	if c.Decoding() {
		p.own = new(ownUpdate)
	}
	codePair(c, g.suite, &p.own.pair)
	codeKey(c, g.suite, &p.own.key)
	if c.Decoding() && !c.Failed() && !g.isOwnUpdate(p) {
		c.Fail("an update that is not ours")
	}
}

// isOwnUpdate reports whether the keys of p are those of its leaf, and the leaf is ours.
func (g *groupState) isOwnUpdate(p *proposal) bool {
	return p.sender == (*Group)(g).sender() && p.body.Type == wire.UpdateProposal &&
		bytes.Equal(p.body.Update.EncryptionKey, p.own.pair.Public) && bytes.Equal(p.body.Update.SignatureKey, p.own.key.public)
}

// codePast visits the past epochs, the newest first, because most of their leaves are those of
// the following epoch.
func (g *groupState) codePast(c *wire.Coder) {
	list := slices.Clone(g.past)
	slices.Reverse(list)
	later := leafNodes(g.tree)
	expected := g.context.Epoch
	wire.Vector(c, &list, func(c *wire.Coder, p *pastEpoch) {
		p.context.Code(c)
		expected--
		if c.Decoding() && (p.context.Epoch != expected || !bytes.Equal(p.context.GroupID, g.context.GroupID)) {
			c.Fail("a past epoch %d of another group, or out of order", p.context.Epoch)
		}
		c.Bytes(&p.senderData)
		c.Bytes(&p.resumption)
		if codeLeaves(c, &p.leaves, later); c.Decoding() {
			size := uint32(len(p.leaves))
			if bits.OnesCount32(size) != 1 || len(p.senderData) != suite.HashBytes || len(p.resumption) != suite.HashBytes {
				c.Fail("an invalid past epoch")
				return
			}
			p.secrets = (*Group)(g).secretTree(size, nil)
		}
		p.secrets.Code(c)
		later = p.leaves
	})
	if len(list) > pastEpochsCeiling {
		c.Fail("%d past epochs", len(list))
	}
	if c.Decoding() {
		slices.Reverse(list)
		g.past = list[max(0, len(list)-g.limits.PastEpochs):]
	}
}

// The forms in which a leaf of a past epoch is saved.
const (
	leafBlank uint8 = iota
	leafSame        // as in the epoch after
	leafOther
)

func codeLeaves(c *wire.Coder, leaves *[]*wire.LeafNode, later []*wire.LeafNode) {
	i := 0
	wire.Vector(c, leaves, func(c *wire.Coder, n **wire.LeafNode) {
		var same *wire.LeafNode
		if i < len(later) {
			same = later[i]
		}
		i++
		state := leafOther
		if *n == nil {
			state = leafBlank
		} else if *n == same {
			state = leafSame
		}
		c.U8(&state)
		switch {
		case state == leafOther:
			wire.Variant(c, n)
		case state == leafSame && same != nil:
			*n = same
		case state != leafBlank:
			c.Fail("a leaf in state %d", state)
		}
	})
}

// pendingState is a PendingCommit in saved state.
type pendingState PendingCommit

// Code visits the parts of a pending commit.
func (p *pendingState) Code(c *wire.Coder) {
	c.Bytes(&p.message)
	c.Bytes(&p.welcome)
	c.Bytes(&p.groupInfo)
	wire.Vector(c, &p.added, codeSeat)
	wire.Vector(c, &p.removed, codeSeat)
	p.external = c.Present(p.external)
	(*groupState)(p.group).Code(c)
}

func codeSeat(c *wire.Coder, s *seat) {
	c.U32(&s.index)
	wire.Variant(c, &s.node)
}

// MarshalBinary returns the commit with the group that it leads to, private keys included and
// Base excluded. See EncryptState.
func (p *PendingCommit) MarshalBinary() ([]byte, error) {
	return saveState(statePendingCommit, (*pendingState)(p)), nil
}

// LoadPendingCommit decodes the output of PendingCommit.MarshalBinary. Errors wrap
// ErrCorruptState or ErrNewerState.
func LoadPendingCommit(state []byte, o LoadOptions) (*PendingCommit, error) {
	p := &PendingCommit{group: &Group{settings: o.settings()}}
	if err := loadState(statePendingCommit, state, (*pendingState)(p)); err != nil {
		return nil, err
	}
	if p.external != (len(p.group.past) == 0) || p.group.context.Epoch == 0 {
		return nil, fmt.Errorf("%w: %w", ErrCorruptState, errors.New("a pending commit without the epoch it is for"))
	}
	if err := p.checkMessages(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorruptState, err)
	}
	if len(p.welcome) == 0 {
		p.welcome = nil
	}
	return p, nil
}

// checkMessages verifies that the messages and the seats of a loaded commit are those of the
// group it leads to.
func (p *PendingCommit) checkMessages() error {
	h, err := wire.ParseHeader(p.message)
	if err != nil {
		return err
	}
	if !bytes.Equal(h.GroupID, p.group.context.GroupID) || h.Epoch != p.Epoch() || h.ContentType != wire.CommitContent {
		return errors.New("a pending commit with the message of another")
	}
	if p.group.reInit != nil && len(p.groupInfo) == 0 && len(p.welcome) == 0 {
		p.groupInfo = nil // the group ended: no client can join any more
		return nil
	}
	var m wire.Message
	if err := wire.Unmarshal(p.groupInfo, &m); err != nil {
		return err
	}
	if m.GroupInfo == nil || !bytes.Equal(wire.Marshal(&m.GroupInfo.Context), wire.Marshal(&p.group.context)) {
		return errors.New("a pending commit with the group info of another")
	}
	if len(p.welcome) > 0 {
		if h, err := wire.ParseHeader(p.welcome); err != nil || h.WireFormat != wire.WelcomeFormat {
			return errors.New("a pending commit with an invalid welcome")
		}
	}
	for _, s := range p.added {
		if n := p.group.tree.Leaf(s.index); n == nil || !bytes.Equal(wire.Marshal(n), wire.Marshal(s.node)) {
			return fmt.Errorf("a pending commit that added another member at leaf %d", s.index)
		}
	}
	return nil
}
