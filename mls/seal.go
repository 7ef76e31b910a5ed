package mls

import (
	"bytes"
	"fmt"

	"waxwing.im/waxwing/mls/framing"
	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/wire"
)

// argumentBytesMax bounds the application's data in one message.
const argumentBytesMax = wire.MessageBytesMax / 4

// SealOptions holds the parameters of Seal.
type SealOptions struct {
	// Padding is the number of zero bytes to encrypt with the message, which hide its length. If
	// it is 0, Policy decides.
	Padding int
	Policy  PaddingPolicy // nil: that of the group
}

// Seal encrypts plaintext to the other members, as a PrivateMessage. authenticatedData is
// authenticated and stays readable. next replaces g: sealing again with g would use a key twice.
// Errors wrap ErrProposalsPending, ErrTooLarge (16 MiB for each argument), ErrRemoved or
// ErrReinitialized. RFC 9420, section 15.
func (g *Group) Seal(plaintext, authenticatedData []byte, o SealOptions) (message []byte, next *Group, err error) {
	if err := g.checkOpen("15"); err != nil {
		return nil, nil, err
	}
	switch {
	case len(g.proposals) > 0:
		return nil, nil, broken(ErrProposalsPending, "12.4", "%d proposals", len(g.proposals))
	case o.Padding < 0 || o.Padding > argumentBytesMax || len(plaintext) > argumentBytesMax || len(authenticatedData) > argumentBytesMax:
		return nil, nil, fmt.Errorf("%w: application message", ErrTooLarge)
	}
	a := &wire.AuthenticatedContent{WireFormat: wire.PrivateMessageFormat, Content: g.content(authenticatedData)}
	a.Content.ContentType, a.Content.Application = wire.ApplicationContent, bytes.Clone(plaintext)
	if err := framing.Sign(g.suite, g.key.private, a, &g.context); err != nil {
		return nil, nil, err
	}
	return g.frame(a, o)
}

// content returns a message of ours in the current epoch without its body.
func (g *Group) content(authenticatedData []byte) wire.FramedContent {
	return wire.FramedContent{
		GroupID: g.context.GroupID, Epoch: g.context.Epoch, AuthenticatedData: bytes.Clone(authenticatedData), Sender: g.sender(),
	}
}

// frame protects signed content as its WireFormat demands, and returns the MLSMessage and the
// group without the message key that was used. o applies to PrivateMessages. RFC 9420, sections
// 6.2 and 6.3.
func (g *Group) frame(a *wire.AuthenticatedContent, o SealOptions) ([]byte, *Group, error) {
	if a.WireFormat == wire.PublicMessageFormat {
		m := framing.Public(g.suite, g.epoch.Membership, a, &g.context)
		return wire.Marshal(&wire.Message{WireFormat: wire.PublicMessageFormat, Public: m}), g, nil
	}
	if o.Policy == nil {
		o.Policy = g.padding
	}
	if o.Padding == 0 {
		o.Padding = paddingFor(o.Policy, a)
	}
	key, secrets, err := g.secrets.Next(g.own, ratchetFor(a.Content.ContentType))
	if err != nil {
		return nil, nil, err
	}
	m, err := framing.Private(g.suite, g.epoch.SenderData, key, g.own, a, o.Padding)
	clear(key.Key)
	if err != nil {
		return nil, nil, err
	}
	next := g.clone()
	next.secrets = secrets
	return wire.Marshal(&wire.Message{WireFormat: wire.PrivateMessageFormat, Private: m}), next, nil
}

// handshakeFormat returns the wire format of a Proposal or a Commit of ours.
func handshakeFormat(public bool) wire.WireFormat {
	if public {
		return wire.PublicMessageFormat
	}
	return wire.PrivateMessageFormat
}

// ratchetFor returns the ratchet that seals a content type. RFC 9420, section 6.3.1.
func ratchetFor(t wire.ContentType) schedule.Kind {
	if t == wire.ApplicationContent {
		return schedule.Application
	}
	return schedule.Handshake
}
