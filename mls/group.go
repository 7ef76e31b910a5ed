package mls

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"waxwing.im/waxwing/mls/leaf"
	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/tree"
	"waxwing.im/waxwing/mls/wire"
)

// Group is the state of one member of a group in one epoch. It is an immutable value: every
// operation returns a new Group and leaves the old one usable, so that after a refused message
// or a lost race the caller continues with the old one. Values share their unchanged parts.
// Concurrent use of one Group is safe.
//
// Old values hold old keys. Forward secrecy begins when the last reference to them, and the
// last saved copy, is gone. Secrets that no value holds are overwritten after use; copies in
// the memory of Go's garbage collector, its stacks and the cryptographic libraries are beyond
// the control of this package.
type Group struct {
	settings
	suite *suite.Suite

	own             uint32
	key             SignatureKey
	context         wire.GroupContext
	interim         []byte // interim transcript hash
	confirmationTag []byte
	tree            *tree.Tree
	keys            tree.Keys
	epoch           *schedule.Epoch
	secrets         schedule.SecretTree
	proposals       []proposal  // of this epoch, our own included
	past            []pastEpoch // by rising epoch
	removed         bool
	reInit          *wire.ReInit // of the last commit; else nil

	// source and usage are set while the group is created or joined and continues another one:
	// that group, and the usage of its resumption keys. Neither is saved.
	source *Group
	usage  uint8

	inviter *Leaf // see Inviter; not saved
}

// GroupOptions holds the parameters of a new group.
type GroupOptions struct {
	Extensions []Extension // of the GroupContext; any type
	Hook       CredentialHook
	PSK        PSKSource        // nil: no keys known
	Now        func() time.Time // time.Now if nil
	Padding    PaddingPolicy    // of PrivateMessages; nil: no padding
	Limits     Limits
}

// NewGroup creates a group of one member, in epoch 0. Group ids must be unique; 32 random bytes
// are a good choice. Errors wrap ErrUnsupportedSuite, ErrInvalidKey (the signature key is one of
// another suite), ErrInvalidExtensions or ErrInvalidLeaf. RFC 9420, section 11.
func NewGroup(s Suite, groupID []byte, id Identity, o GroupOptions) (*Group, error) {
	cipher, err := id.cipher(s)
	if err != nil {
		return nil, err
	}
	private, public, err := cipher.GenerateKeyPair()
	if err != nil {
		return nil, err
	}
	extensions := toWire(o.Extensions)
	own := id.leaf(extensions)
	// A leaf of source update carries neither a lifetime nor a parent hash; the
	// first commit replaces it.
	own.EncryptionKey, own.Source = public, wire.UpdateLeaf
	if err := leaf.Sign(cipher, id.Key.private, &own, groupID, 0); err != nil {
		return nil, err
	}
	t := tree.New(cipher, &own)
	if err := errors.Join(checkContextExtensions(ErrInvalidExtensions, extensions), t.Validate(groupID, extensions)); err != nil {
		return nil, err
	}
	secret := make([]byte, suite.HashBytes)
	if _, err := rand.Read(secret); err != nil {
		return nil, fmt.Errorf("make an epoch secret: %w", err)
	}
	g := &Group{
		settings: newSettings(o.Hook, o.PSK, o.Now, o.Padding, o.Limits),
		suite:    cipher, key: id.Key, tree: t,
		keys:    tree.Keys{0: {Private: private, Public: public}},
		context: wire.GroupContext{Version: wire.MLS10, CipherSuite: uint16(s), GroupID: bytes.Clone(groupID), TreeHash: t.Hash(), Extensions: extensions},
	}
	g.begin(schedule.FromEpochSecret(cipher, secret))
	clear(secret)
	return g, nil
}

// begin enters the epoch e, which g.context describes: it stores e's secrets, and computes the
// confirmation tag and the interim transcript hash. RFC 9420, section 8.2.
func (g *Group) begin(e *schedule.Epoch) {
	g.secrets = g.secretTree(g.tree.Size(), e.Encryption)
	clear(e.Encryption)
	e.Encryption = nil
	g.epoch = e
	g.confirmationTag = e.ConfirmationTag(g.suite, g.context.ConfirmedTranscriptHash)
	g.interim = schedule.InterimTranscript(g.suite, g.context.ConfirmedTranscriptHash, g.confirmationTag)
}

// ID returns the group_id. RFC 9420, section 8.1.
func (g *Group) ID() []byte { return bytes.Clone(g.context.GroupID) }

// Epoch returns the number of the current epoch; every commit adds one.
func (g *Group) Epoch() uint64 { return g.context.Epoch }

// Suite returns the group's cipher suite.
func (g *Group) Suite() Suite { return Suite(g.suite.ID()) }

// OwnLeaf returns our own leaf.
func (g *Group) OwnLeaf() Leaf { return newLeaf(g.own, g.tree.Leaf(g.own)) }

// Members lists all members by rising leaf index, ourselves included.
func (g *Group) Members() []Leaf { return members(g.tree) }

// Inviter returns the member that signed the Welcome by which we joined. It is nil in a group that
// we have created, entered by an external commit, or loaded.
func (g *Group) Inviter() *Leaf { return g.inviter }

// Extensions returns the extensions of the GroupContext, unknown types included.
func (g *Group) Extensions() []Extension { return fromWire(g.context.Extensions) }

// Removed reports whether a commit removed us. Such a group stays in its last epoch and only
// opens late messages.
func (g *Group) Removed() bool { return g.removed }

// Proposals returns the number of PendingProposals.
func (g *Group) Proposals() int { return len(g.proposals) }

// EpochAuthenticator returns 32 bytes that are equal for all members that agree on the whole
// history of the group. They are not secret. RFC 9420, section 8.7.
func (g *Group) EpochAuthenticator() []byte { return bytes.Clone(g.epoch.Authenticator) }

// Export derives a secret for the application, of length bytes (at most 8160), that all members
// of the epoch can derive. Other lengths are refused with ErrTooLarge. RFC 9420, section 8.5.
func (g *Group) Export(label string, context []byte, length int) ([]byte, error) {
	if length < 0 || length > suite.ExpandBytesMax {
		return nil, broken(ErrTooLarge, "8.5", "an export of %d bytes", length)
	}
	return g.epoch.Export(g.suite, label, context, length)
}

// clone returns a shallow copy, to be changed.
func (g *Group) clone() *Group {
	next := *g
	return &next
}

// sender identifies us as a member.
func (g *Group) sender() wire.Sender { return wire.Sender{Type: wire.MemberSender, Index: g.own} }

// checkOpen reports an error if the group can no longer change. RFC 9420, sections 11.2 and
// 12.4.
func (g *Group) checkOpen(section string) error {
	switch {
	case g.removed:
		return broken(ErrRemoved, section, "the group can no longer be changed")
	case g.reInit != nil:
		return broken(ErrReinitialized, "11.2", "the group continues in another one")
	}
	return nil
}
