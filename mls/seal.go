package mls

import (
	"bytes"
	"fmt"

	"waxwing.im/waxwing/mls/framing"
	"waxwing.im/waxwing/mls/wire"
)

// argumentBytesMax bounds the application's data in one message.
const argumentBytesMax = wire.MessageBytesMax / 4

// SealOptions holds the parameters of Seal.
type SealOptions struct {
	// Padding is the number of zero bytes that hide the length; they are encrypted with the
	// message. If it is 0, a policy decides.
	Padding int
	Policy  PaddingPolicy // instead of the group's
}

// Seal encrypts plaintext to the other members. authenticatedData stays readable and is
// authenticated. next replaces g; sealing again with g would use a key twice. RFC 9420, section
// 15.
func (g *Group) Seal(plaintext, authenticatedData []byte, o SealOptions) (message []byte, next *Group, err error) {
	if err := g.checkOpen("15"); err != nil {
		return nil, nil, err
	}
	switch {
	case len(g.proposals) > 0:
		return nil, nil, broken(ErrProposalsPending, "12.4", "%d", len(g.proposals))
	case o.Padding < 0 || o.Padding > argumentBytesMax || len(plaintext) > argumentBytesMax || len(authenticatedData) > argumentBytesMax:
		return nil, nil, fmt.Errorf("%w: application message", ErrTooLarge)
	}
	a := &wire.AuthenticatedContent{WireFormat: wire.PrivateMessageFormat, Content: g.content(authenticatedData)}
	a.Content.ContentType, a.Content.Application = wire.ApplicationContent, bytes.Clone(plaintext)
	if err := framing.Sign(g.suite, g.key.private, a, &g.context); err != nil {
		return nil, nil, err
	}
	return g.frame(a, g.paddingOf(a, o.Padding, o.Policy))
}

// paddingOf returns the number of zero bytes that hide the length of a: wanted or, if that is
// 0, the choice of a policy.
func (g *Group) paddingOf(a *wire.AuthenticatedContent, wanted int, policy PaddingPolicy) int {
	if a.WireFormat != wire.PrivateMessageFormat || wanted > 0 {
		return wanted
	}
	if policy == nil {
		policy = g.padding
	}
	return paddingFor(policy, a)
}
