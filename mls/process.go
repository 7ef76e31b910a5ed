package mls

import (
	"bytes"
	"slices"

	"waxwing.im/waxwing/mls/framing"
	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/wire"
)

// Kind is the kind of a processed message.
type Kind int

// The kinds of messages. RFC 9420, section 6.
const (
	Application Kind = iota + 1
	Proposal
	Commit
)

// Processed holds the content of a message and its effects.
type Processed struct {
	Kind  Kind
	Group *Group // replaces the group that processed the message
	// Plaintext is the content of an application message.
	Plaintext         []byte
	AuthenticatedData []byte
	// Sender is the sender's leaf in the epoch of the message. Its Index is the place among the
	// group's external senders for an external sender, and 0 for a new member that proposes.
	SenderKind SenderKind
	Sender     Leaf
	Epoch      uint64 // in which the message was sent
	// Proposals lists those that a commit carries out; for a proposal message, the proposal.
	Proposals []ProposalInfo
	// Added, Removed and SelfRemoved are the effects of a commit. If SelfRemoved is true, Group
	// stays in the old epoch, for late messages only.
	Added, Removed []Leaf
	SelfRemoved    bool
	// ReInit is set if the commit ended the group, and describes its successor.
	ReInit *ReInit
}

// Process opens, verifies and applies message, an MLSMessage of another client: an application
// message, a proposal or a commit. On error g stays valid, and the next message may succeed. The
// cost is linear in the message and, for a commit, in the group. RFC 9420, sections 6, 12.1.8,
// 12.4.2 and 12.4.3.2.
//
// Errors wrap ErrOwnMessage for our own messages; ErrWrongGroup, ErrWrongEpoch, ErrReplay or
// ErrTooFarAhead for messages for which there is no key; ErrUnknownProposal, ErrUnknownPSK,
// ErrRemoved or ErrReinitialized for messages that the group cannot apply; ErrRefused if the
// hook refuses; and ErrMalformed, ErrDecrypt or an ErrInvalid variable for invalid ones.
func (g *Group) Process(message []byte) (*Processed, error) {
	var m wire.Message
	if err := wire.Unmarshal(message, &m); err != nil {
		return nil, err
	}
	switch m.WireFormat {
	case wire.PublicMessageFormat:
		return processPublic(g, m.Public)
	case wire.PrivateMessageFormat:
		return processPrivate(g, m.Private)
	}
	return nil, broken(ErrUnexpectedMessage, "6", "wire format %d in a group", m.WireFormat)
}

// processPublic processes a PublicMessage. RFC 9420, section 6.2.
func processPublic(g *Group, m *wire.PublicMessage) (*Processed, error) {
	content := &m.Content
	if !bytes.Equal(content.GroupID, g.context.GroupID) {
		return nil, broken(ErrWrongGroup, "6", "group id %x", content.GroupID)
	}
	if content.Epoch != g.context.Epoch {
		return nil, broken(ErrWrongEpoch, "6", "epoch %d, the group is in epoch %d", content.Epoch, g.context.Epoch)
	}
	if err := g.checkOpen("12.4"); err != nil {
		return nil, err
	}
	if content.ContentType == wire.ApplicationContent {
		return nil, broken(ErrInvalidMessage, "6", "an application message as a PublicMessage")
	}
	if content.Sender.Type == wire.MemberSender {
		if err := framing.CheckTag(g.suite, g.epoch.Membership, m, &g.context); err != nil {
			return nil, err
		}
	}
	return processHandshake(g, m.Authenticated())
}

// view is an epoch that a PrivateMessage may belong to.
type view struct {
	context    *wire.GroupContext
	senderData []byte
	secrets    *schedule.SecretTree
	leaf       func(uint32) *wire.LeafNode
}

// newView returns the epoch of m in g, a copy of a group: its secrets may be changed.
func newView(g *Group, m *wire.PrivateMessage) (view, error) {
	if m.Epoch == g.context.Epoch {
		// A removed member opens late messages of its last epoch; after a reinitialization
		// nothing may be sent. RFC 9420, section 11.2.
		if err := g.checkOpen("12.4"); err != nil && (!g.removed || m.ContentType != wire.ApplicationContent) {
			return view{}, err
		}
		return view{&g.context, g.epoch.SenderData, &g.secrets, g.tree.Leaf}, nil
	}
	i := g.pastIndex(m.Epoch)
	if i < 0 || m.ContentType != wire.ApplicationContent {
		return view{}, broken(ErrWrongEpoch, "6", "epoch %d, the group is in epoch %d", m.Epoch, g.context.Epoch)
	}
	g.past = slices.Clone(g.past)
	past := &g.past[i]
	return view{&past.context, past.senderData, &past.secrets, past.leaf}, nil
}

// processPrivate processes a PrivateMessage of this epoch or, if it is an application message,
// of a past one. RFC 9420, section 6.3.
func processPrivate(g *Group, m *wire.PrivateMessage) (*Processed, error) {
	if !bytes.Equal(m.GroupID, g.context.GroupID) {
		return nil, broken(ErrWrongGroup, "6", "group id %x", m.GroupID)
	}
	next := g.clone()
	v, err := newView(next, m)
	if err != nil {
		return nil, err
	}
	data, err := framing.OpenSender(g.suite, v.senderData, m)
	if err != nil {
		return nil, err
	}
	if data.Leaf == g.own {
		return nil, broken(ErrOwnMessage, "6.3", "generation %d", data.Generation)
	}
	sender := v.leaf(data.Leaf)
	if sender == nil {
		return nil, broken(ErrInvalidMessage, "6.3.2", "there is no member at leaf %d", data.Leaf)
	}
	key, secrets, err := v.secrets.Take(data.Leaf, ratchetFor(m.ContentType), data.Generation)
	if err != nil {
		return nil, err
	}
	*v.secrets = secrets
	a, err := framing.Open(g.suite, key, data, m)
	clear(key.Key)
	if err != nil {
		return nil, err
	}
	if m.ContentType != wire.ApplicationContent {
		return processHandshake(next, a)
	}
	if err := framing.Verify(g.suite, sender.SignatureKey, a, v.context); err != nil {
		return nil, err
	}
	return &Processed{
		Kind: Application, Group: next, Plaintext: a.Content.Application, AuthenticatedData: m.AuthenticatedData,
		SenderKind: SentByMember, Sender: newLeaf(data.Leaf, sender), Epoch: m.Epoch,
	}, nil
}
