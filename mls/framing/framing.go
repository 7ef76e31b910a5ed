// Package framing signs, tags, seals and opens the messages of a group (RFC 9420, section 6).
// It deals with keys and bytes; package mls decides whether a message may be sent or accepted.
package framing

import (
	"crypto/rand"
	"errors"
	"fmt"

	"waxwing.im/waxwing/mls/leaf"
	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

var (
	// ErrTag is wrapped when a membership tag does not verify.
	ErrTag = errors.New("invalid membership tag")
	// ErrOpen is wrapped when a PrivateMessage does not open; it is suite.ErrOpen.
	ErrOpen = suite.ErrOpen
)

// Sign fills in a's signature. RFC 9420, section 6.1.
func Sign(s *suite.Suite, private []byte, a *wire.AuthenticatedContent, context *wire.GroupContext) error {
	signature, err := s.SignWithLabel(private, "FramedContentTBS", a.SignedContent(context))
	a.Signature = signature
	return err
}

// Verify checks a's signature; the error wraps leaf.ErrSignature.
// RFC 9420, section 6.1.
func Verify(s *suite.Suite, public []byte, a *wire.AuthenticatedContent, context *wire.GroupContext) error {
	if !s.VerifyWithLabel(public, "FramedContentTBS", a.SignedContent(context), a.Signature) {
		return fmt.Errorf("%w: message (RFC 9420, section 6.1)", leaf.ErrSignature)
	}
	return nil
}

// Public returns the PublicMessage of a member. RFC 9420, section 6.2.
func Public(s *suite.Suite, membershipKey []byte, a *wire.AuthenticatedContent, context *wire.GroupContext) *wire.PublicMessage {
	return &wire.PublicMessage{
		Content: a.Content, Signature: a.Signature, ConfirmationTag: a.ConfirmationTag,
		MembershipTag: s.MAC(membershipKey, a.TaggedContent(context)),
	}
}

// CheckTag verifies the membership tag of a member's PublicMessage; the error
// wraps ErrTag. RFC 9420, section 6.2.
func CheckTag(s *suite.Suite, membershipKey []byte, m *wire.PublicMessage, context *wire.GroupContext) error {
	if !s.MACEqual(m.MembershipTag, s.MAC(membershipKey, m.Authenticated().TaggedContent(context))) {
		return fmt.Errorf("%w (RFC 9420, section 6.2)", ErrTag)
	}
	return nil
}

// SenderDataKey returns the key of the sender data; it depends on a sample of the message's
// ciphertext. RFC 9420, section 6.3.2.
func SenderDataKey(s *suite.Suite, secret, ciphertext []byte) (key, nonce []byte) {
	sample := ciphertext[:min(len(ciphertext), suite.HashBytes)]
	return s.ExpandWithLabel(secret, "key", sample, s.KeyBytes()), s.ExpandWithLabel(secret, "nonce", sample, suite.NonceBytes)
}

// guarded returns the nonce with the reuse guard applied to its first bytes. RFC 9420, section
// 6.3.1.
func guarded(nonce []byte, guard [4]byte) []byte {
	out := append([]byte{}, nonce...)
	for i, b := range guard {
		out[i] ^= b
	}
	return out
}

// Private seals a, sent by leaf sender, with a key of the sender's ratchet and
// padding zero bytes. RFC 9420, section 6.3.
func Private(s *suite.Suite, senderDataSecret []byte, key schedule.Key, sender uint32, a *wire.AuthenticatedContent, padding int) (*wire.PrivateMessage, error) {
	data := wire.SenderData{Leaf: sender, Generation: key.Generation}
	if _, err := rand.Read(data.ReuseGuard[:]); err != nil {
		return nil, fmt.Errorf("make a reuse guard: %w", err)
	}
	m := &wire.PrivateMessage{
		GroupID: a.Content.GroupID, Epoch: a.Content.Epoch, ContentType: a.Content.ContentType,
		AuthenticatedData: a.Content.AuthenticatedData,
	}
	plaintext := wire.Marshal(&wire.PrivateContent{Message: a, Padding: padding})
	m.Ciphertext = s.Seal(key.Key, guarded(key.Nonce, data.ReuseGuard), m.ContentAAD(), plaintext)
	dataKey, dataNonce := SenderDataKey(s, senderDataSecret, m.Ciphertext)
	m.EncryptedSenderData = s.Seal(dataKey, dataNonce, m.SenderDataAAD(), wire.Marshal(&data))
	return m, nil
}

// OpenSender returns the sender of m and the generation of its key; errors wrap ErrOpen or
// wire.ErrMalformed. RFC 9420, section 6.3.2.
func OpenSender(s *suite.Suite, senderDataSecret []byte, m *wire.PrivateMessage) (wire.SenderData, error) {
	var data wire.SenderData
	key, nonce := SenderDataKey(s, senderDataSecret, m.Ciphertext)
	plaintext, err := s.Open(key, nonce, m.SenderDataAAD(), m.EncryptedSenderData)
	if err != nil {
		return data, fmt.Errorf("%w: sender data (RFC 9420, section 6.3.2)", ErrOpen)
	}
	return data, wire.Unmarshal(plaintext, &data)
}

// Open opens m with the key that its sender data names. It does not verify the signature.
// Errors wrap ErrOpen or wire.ErrMalformed. RFC 9420, section 6.3.1.
func Open(s *suite.Suite, key schedule.Key, data wire.SenderData, m *wire.PrivateMessage) (*wire.AuthenticatedContent, error) {
	plaintext, err := s.Open(key.Key, guarded(key.Nonce, data.ReuseGuard), m.ContentAAD(), m.Ciphertext)
	if err != nil {
		return nil, fmt.Errorf("%w: content (RFC 9420, section 6.3.1)", ErrOpen)
	}
	a := &wire.AuthenticatedContent{
		WireFormat: wire.PrivateMessageFormat,
		Content: wire.FramedContent{
			GroupID: m.GroupID, Epoch: m.Epoch, ContentType: m.ContentType, AuthenticatedData: m.AuthenticatedData,
			Sender: wire.Sender{Type: wire.MemberSender, Index: data.Leaf},
		},
	}
	return a, wire.Unmarshal(plaintext, &wire.PrivateContent{Message: a})
}
