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

// DeriveKeyPair returns the HPKE key pair that secret determines. RFC 9420, section 7.4.
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

// CheckPublicKey verifies that secrets can be encrypted to public, an HPKE key; the error wraps
// ErrKey. See PublicKeys.Check.
func (s *Suite) CheckPublicKey(public []byte) error { return s.PublicKeys().Check(public) }

// EncryptWithLabel encrypts plaintext to public. The error wraps ErrKey. RFC 9420, section 5.1.3.
func (s *Suite) EncryptWithLabel(public []byte, label string, context, plaintext []byte) (wire.HPKECiphertext, error) {
	return s.NewSealer(label, context).Seal(public, plaintext)
}

// DecryptWithLabel decrypts the output of EncryptWithLabel or of a Sealer. The error wraps ErrKey
// or ErrOpen. RFC 9420, section 5.1.3.
func (s *Suite) DecryptWithLabel(private []byte, label string, context []byte, sealed wire.HPKECiphertext) ([]byte, error) {
	recipient, err := s.recipient(private, sealed.KEMOutput, withLabel(label, context))
	if err != nil {
		return nil, err
	}
	plaintext, err := recipient.Open(nil, sealed.Ciphertext)
	if err != nil {
		return nil, ErrOpen
	}
	return plaintext, nil
}

// externalInitLabel is the exporter label of an external initialization.
const externalInitLabel = "MLS 1.0 external init secret"

// ExternalInit returns a new init secret, and the KEM output from which the owner of public
// derives it. The error wraps ErrKey. RFC 9420, section 8.3.
func (s *Suite) ExternalInit(public []byte) (kemOutput, secret []byte, err error) {
	kemOutput, sender, err := s.sender(public, nil)
	if err != nil {
		return nil, nil, err
	}
	secret, err = sender.Export(externalInitLabel, HashBytes)
	return kemOutput, secret, err
}

// OpenExternalInit returns the init secret that the owner of private derives from kemOutput.
// The error wraps ErrKey or ErrOpen. RFC 9420, section 8.3.
func (s *Suite) OpenExternalInit(private, kemOutput []byte) ([]byte, error) {
	recipient, err := s.recipient(private, kemOutput, nil)
	if err != nil {
		return nil, err
	}
	return recipient.Export(externalInitLabel, HashBytes)
}

// sender encapsulates to the owner of public. The error wraps ErrKey.
func (s *Suite) sender(public, info []byte) (kemOutput []byte, sender *hpke.Sender, err error) {
	k, err := s.kem.NewPublicKey(public)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: public HPKE key (RFC 9420, section 5.1.1)", ErrKey)
	}
	if kemOutput, sender, err = hpke.NewSender(k, hpke.HKDFSHA256(), s.hpkeAEAD, info); err != nil {
		return nil, nil, fmt.Errorf("%w: encapsulate to a public HPKE key", ErrKey)
	}
	return kemOutput, sender, nil
}

// recipient decapsulates kemOutput with private. The error wraps ErrKey or ErrOpen.
func (s *Suite) recipient(private, kemOutput, info []byte) (*hpke.Recipient, error) {
	k, err := s.kem.NewPrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("%w: private HPKE key", ErrKey)
	}
	recipient, err := hpke.NewRecipient(kemOutput, k, hpke.HKDFSHA256(), s.hpkeAEAD, info)
	if err != nil {
		return nil, fmt.Errorf("%w: KEM output", ErrOpen)
	}
	return recipient, nil
}
