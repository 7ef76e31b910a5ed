package suite

import (
	"crypto/hpke"
	"fmt"

	"waxwing.im/waxwing/mls/wire"
)

// GenerateKeyPair returns a random HPKE key pair.
func (s *Suite) GenerateKeyPair() (private, public []byte, err error) {
	k, err := s.kem.GenerateKey()
	if err != nil {
		return nil, nil, fmt.Errorf("generate an HPKE key: %w", err)
	}
	return keyPair(k)
}

// DeriveKeyPair returns the HPKE key pair that belongs to secret. RFC 9420, section 7.4.
func (s *Suite) DeriveKeyPair(secret []byte) (private, public []byte, err error) {
	k, err := s.kem.DeriveKeyPair(secret)
	if err != nil {
		return nil, nil, fmt.Errorf("derive an HPKE key: %w", err)
	}
	return keyPair(k)
}

func keyPair(k hpke.PrivateKey) (private, public []byte, err error) {
	private, err = k.Bytes()
	return private, k.PublicKey().Bytes(), err
}

// PublicKey returns the public HPKE key of private; the error wraps ErrKey.
func (s *Suite) PublicKey(private []byte) ([]byte, error) {
	k, err := s.kem.NewPrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("%w: private HPKE key", ErrKey)
	}
	return k.PublicKey().Bytes(), nil
}

// CheckPublicKey reports an error if public is not an HPKE key that secrets can be sealed to;
// the error wraps ErrKey. See PublicKeys.Check.
func (s *Suite) CheckPublicKey(public []byte) error { return s.PublicKeys().Check(public) }

// EncryptWithLabel seals plaintext to the owner of public. The error wraps ErrKey.
// RFC 9420, section 5.1.3.
func (s *Suite) EncryptWithLabel(public []byte, label string, context, plaintext []byte) (wire.HPKECiphertext, error) {
	return s.NewSealer(label, context).Seal(public, plaintext)
}

// DecryptWithLabel opens what EncryptWithLabel made; the error wraps ErrKey or
// ErrOpen. RFC 9420, section 5.1.3.
func (s *Suite) DecryptWithLabel(private []byte, label string, context []byte, sealed wire.HPKECiphertext) ([]byte, error) {
	k, err := s.kem.NewPrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("%w: private HPKE key", ErrKey)
	}
	recipient, err := hpke.NewRecipient(sealed.KEMOutput, k, hpke.HKDFSHA256(), s.hpkeAEAD, withLabel(label, context))
	if err != nil {
		return nil, ErrOpen
	}
	plaintext, err := recipient.Open(nil, sealed.Ciphertext)
	if err != nil {
		return nil, ErrOpen
	}
	return plaintext, nil
}

// externalInitLabel is the label that both sides of an external initialization export with.
const externalInitLabel = "MLS 1.0 external init secret"

// ExternalInit makes an init secret for the owner of public, and the KEM output from which that
// owner derives it. The error wraps ErrKey. RFC 9420, section 8.3.
func (s *Suite) ExternalInit(public []byte) (kemOutput, secret []byte, err error) {
	k, err := s.kem.NewPublicKey(public)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: external public key (RFC 9420, section 8.3)", ErrKey)
	}
	kemOutput, sender, err := hpke.NewSender(k, hpke.HKDFSHA256(), s.hpkeAEAD, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: encapsulate to an external public key", ErrKey)
	}
	secret, err = sender.Export(externalInitLabel, HashBytes)
	return kemOutput, secret, err
}

// OpenExternalInit returns the init secret that the owner of private derives from kemOutput.
// The error wraps ErrKey or ErrOpen. RFC 9420, section 8.3.
func (s *Suite) OpenExternalInit(private, kemOutput []byte) ([]byte, error) {
	k, err := s.kem.NewPrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("%w: private HPKE key", ErrKey)
	}
	recipient, err := hpke.NewRecipient(kemOutput, k, hpke.HKDFSHA256(), s.hpkeAEAD, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: external init (RFC 9420, section 8.3)", ErrOpen)
	}
	return recipient.Export(externalInitLabel, HashBytes)
}
