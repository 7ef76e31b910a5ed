// Package framing signs, tags, encrypts and decrypts the messages of a group (RFC 9420, section 6).
// It depends on keys and bytes alone; package mls decides whether a message may be sent or
// accepted. All functions are safe for concurrent use.
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

// ErrTag reports a membership tag or a confirmation tag that does not verify.
var ErrTag = errors.New("invalid tag")

// Sign sets the signature of a, made with the key private. context is that of the epoch of a; it is
// not used for external senders and new members that propose. RFC 9420, section 6.1.
func Sign(s *suite.Suite, private []byte, a *wire.AuthenticatedContent, context *wire.GroupContext) error {
	signature, err := s.SignWithLabel(private, "FramedContentTBS", a.SignedContent(context))
	a.Signature = signature
	return err
}

// Verify verifies the signature of a with the key public; context is as for Sign. The error wraps
// leaf.ErrSignature. RFC 9420, section 6.1.
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
		return fmt.Errorf("%w: membership tag (RFC 9420, section 6.2)", ErrTag)
	}
	return nil
}

// SenderDataKey returns the key and the nonce of the sender data of a message with ciphertext. RFC
// 9420, section 6.3.2.
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

// Private returns the PrivateMessage of the leaf sender with the content a and padding zero bytes.
// key is the next one of the sender's ratchet. RFC 9420, section 6.3.
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

// OpenSender decrypts the sender data of m: its sender and the generation of its key. Errors wrap
// suite.ErrOpen or wire.ErrMalformed. RFC 9420, section 6.3.2.
func OpenSender(s *suite.Suite, senderDataSecret []byte, m *wire.PrivateMessage) (wire.SenderData, error) {
	var data wire.SenderData
	key, nonce := SenderDataKey(s, senderDataSecret, m.Ciphertext)
	plaintext, err := s.Open(key, nonce, m.SenderDataAAD(), m.EncryptedSenderData)
	if err != nil {
		return data, fmt.Errorf("%w: sender data (RFC 9420, section 6.3.2)", err)
	}
	return data, wire.Unmarshal(plaintext, &data)
}

// Open decrypts m with the key that its sender data selects. The signature is not verified. Errors
// wrap suite.ErrOpen or wire.ErrMalformed. RFC 9420, section 6.3.1.
func Open(s *suite.Suite, key schedule.Key, data wire.SenderData, m *wire.PrivateMessage) (*wire.AuthenticatedContent, error) {
	plaintext, err := s.Open(key.Key, guarded(key.Nonce, data.ReuseGuard), m.ContentAAD(), m.Ciphertext)
	if err != nil {
		return nil, fmt.Errorf("%w: content (RFC 9420, section 6.3.1)", err)
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
