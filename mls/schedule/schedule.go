// Package schedule implements the key schedule of MLS (RFC 9420, section 8), the transcript hashes
// (section 8.2), and the secret tree with its ratchets, which derives the keys of messages (section
// 9). Secrets are suite.HashBytes long.
//
// Functions and methods return new values and do not change their arguments, so that an older state
// of a group stays usable; the Code methods, which decode saved state, are the exception.
package schedule

import (
	"fmt"

	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

// Epoch holds the secrets of one epoch. RFC 9420, section 8, table 4.
type Epoch struct {
	SenderData    []byte
	Encryption    []byte // nil once the secret tree was derived from it
	Exporter      []byte
	External      []byte
	Confirmation  []byte
	Membership    []byte
	Resumption    []byte
	Authenticator []byte
	Init          []byte // input of the next epoch
}

// Code visits the secrets in saved state: all except Encryption.
func (e *Epoch) Code(c *wire.Coder) {
	for _, secret := range []*[]byte{&e.SenderData, &e.Exporter, &e.External, &e.Confirmation, &e.Membership, &e.Resumption, &e.Authenticator, &e.Init} {
		c.Bytes(secret)
		if c.Decoding() && len(*secret) != suite.HashBytes {
			c.Fail("a secret of %d bytes", len(*secret))
		}
	}
}

// Joiner returns the joiner secret of the epoch that context describes.
// RFC 9420, section 8.
func Joiner(s *suite.Suite, init, commit []byte, context *wire.GroupContext) []byte {
	secret := s.Extract(init, commit)
	defer clear(secret)
	return s.ExpandWithLabel(secret, "joiner", wire.Marshal(context), suite.HashBytes)
}

// FromJoiner derives the secrets of the epoch that context describes.
// RFC 9420, section 8.
func FromJoiner(s *suite.Suite, joiner, psk []byte, context *wire.GroupContext) *Epoch {
	extracted := s.Extract(joiner, psk)
	secret := s.ExpandWithLabel(extracted, "epoch", wire.Marshal(context), suite.HashBytes)
	defer clear(secret)
	defer clear(extracted)
	return FromEpochSecret(s, secret)
}

// FromEpochSecret derives the secrets of an epoch from its epoch secret, which a
// new group chooses at random. RFC 9420, sections 8 and 11.
func FromEpochSecret(s *suite.Suite, secret []byte) *Epoch {
	return &Epoch{
		SenderData:    s.DeriveSecret(secret, "sender data"),
		Encryption:    s.DeriveSecret(secret, "encryption"),
		Exporter:      s.DeriveSecret(secret, "exporter"),
		External:      s.DeriveSecret(secret, "external"),
		Confirmation:  s.DeriveSecret(secret, "confirm"),
		Membership:    s.DeriveSecret(secret, "membership"),
		Resumption:    s.DeriveSecret(secret, "resumption"),
		Authenticator: s.DeriveSecret(secret, "authentication"),
		Init:          s.DeriveSecret(secret, "init"),
	}
}

// Welcome returns the welcome secret of an epoch. RFC 9420, section 8.
func Welcome(s *suite.Suite, joiner, psk []byte) []byte {
	return s.DeriveSecret(s.Extract(joiner, psk), "welcome")
}

// WelcomeKey returns the key and the nonce that encrypt the GroupInfo of a Welcome with a welcome
// secret. RFC 9420, section 12.4.3.1.
func WelcomeKey(s *suite.Suite, welcome []byte) (key, nonce []byte) {
	return s.ExpandWithLabel(welcome, "key", nil, s.KeyBytes()), s.ExpandWithLabel(welcome, "nonce", nil, suite.NonceBytes)
}

// Export derives a secret of length bytes, at most suite.ExpandBytesMax, for the application. RFC
// 9420, section 8.5.
func (e *Epoch) Export(s *suite.Suite, label string, context []byte, length int) ([]byte, error) {
	if length < 0 || length > suite.ExpandBytesMax {
		return nil, fmt.Errorf("an export of %d bytes, the limits are 0 and %d (RFC 9420, section 8.5)", length, suite.ExpandBytesMax)
	}
	return s.ExpandWithLabel(s.DeriveSecret(e.Exporter, label), "exported", s.Hash(context), length), nil
}

// ExternalPub returns the public key of the external_pub extension. RFC 9420, section 8.3.
func (e *Epoch) ExternalPub(s *suite.Suite) ([]byte, error) {
	_, public, err := s.DeriveKeyPair(e.External)
	return public, err
}

// OpenExternalInit returns the init secret for the epoch after an external commit with kemOutput.
// Errors wrap suite.ErrOpen. RFC 9420, section 8.3.
func (e *Epoch) OpenExternalInit(s *suite.Suite, kemOutput []byte) ([]byte, error) {
	private, _, err := s.DeriveKeyPair(e.External)
	if err != nil {
		return nil, err
	}
	defer clear(private)
	return s.OpenExternalInit(private, kemOutput)
}

// NoPSK returns the PSK secret of an epoch without pre-shared keys.
// RFC 9420, section 8.4.
func NoPSK() []byte { return make([]byte, suite.HashBytes) }

// PSK is a pre-shared key and its id.
type PSK struct {
	ID     wire.PreSharedKeyID
	Secret []byte
}

// PSKSecret combines pre-shared keys, in their order. RFC 9420, section 8.4.
func PSKSecret(s *suite.Suite, psks []PSK) []byte {
	none, secret := NoPSK(), NoPSK()
	for i, p := range psks {
		label := wire.Marshal(wire.Func(func(c *wire.Coder) {
			index, count := uint16(i), uint16(len(psks))
			p.ID.Code(c)
			c.U16(&index)
			c.U16(&count)
		}))
		input := s.ExpandWithLabel(s.Extract(none, p.Secret), "derived psk", label, suite.HashBytes)
		secret = s.Extract(input, secret)
	}
	return secret
}

// ConfirmedTranscript returns the confirmed transcript hash after commit.
// RFC 9420, section 8.2.
func ConfirmedTranscript(s *suite.Suite, interim []byte, commit *wire.AuthenticatedContent) []byte {
	return s.Hash(interim, commit.ConfirmedInput())
}

// InterimTranscript returns the interim transcript hash after a commit with the given
// confirmation tag. RFC 9420, section 8.2.
func InterimTranscript(s *suite.Suite, confirmed, confirmationTag []byte) []byte {
	return s.Hash(confirmed, wire.Marshal(wire.Func(func(c *wire.Coder) { c.Bytes(&confirmationTag) })))
}

// ConfirmationTag returns the confirmation tag of the epoch with a confirmed transcript hash. RFC
// 9420, section 6.1.
func (e *Epoch) ConfirmationTag(s *suite.Suite, confirmed []byte) []byte {
	return s.MAC(e.Confirmation, confirmed)
}
