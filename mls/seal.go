package mls

import (
	"bytes"
	"fmt"

	"waxwing.im/waxwing/mls/framing"
	"waxwing.im/waxwing/mls/wire"
)

// argumentBytesMax bounds what the application puts into one message.
const argumentBytesMax = wire.MessageBytesMax / 4

// SealOptions say how an application message is made.
type SealOptions struct {
	Padding int // zero bytes to hide the length with; they travel sealed
}

// Seal encrypts plaintext to the other members. authenticatedData travels
// readable and protected from change. next replaces g; sealing again with g would
// use a key twice. RFC 9420, section 15.
func (g *Group) Seal(plaintext, authenticatedData []byte, o SealOptions) (message []byte, next *Group, err error) {
	switch {
	case g.removed:
		return nil, nil, broken(ErrRemoved, "15", "nothing can be sealed")
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
	return g.frame(a, o.Padding)
}
