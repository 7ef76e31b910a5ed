package client

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// CertificateExtension is the private-use type of the leaf-node extension that
// holds a device certificate (RFC 9420, section 17.3).
const CertificateExtension uint16 = 0xF3A1

const certificateDomain = "waxwing device certificate v1"

// certificateLife is the lifetime of a new device certificate; a device renews its own after
// half of that.
const certificateLife = 400 * 24 * time.Hour

// certificateBytesMax bounds the input of the parser: two identifiers and a signature.
const certificateBytesMax = 2048

// certificate is an account's statement that a leaf signature key belongs to one of its
// devices. An MLS credential is only a DID, which anyone can write; this is signed by the
// account's own key.
//
// As the extension's data it is version (1 byte, 1), DID and device id (each with a length of 2
// bytes before it), not-after (8 bytes, seconds since 1970) and the signature (length of 2
// bytes). Signed are the domain, the DID, the device id and the leaf signature key (each with a
// length of 2 bytes) and not-after. All numbers are big-endian.
type certificate struct {
	DID       string
	DeviceID  string
	NotAfter  time.Time
	Signature []byte
}

// issueCertificate signs a certificate for the device's leaf key.
func issueCertificate(a *Account, deviceID string, leafKey []byte, notAfter time.Time) ([]byte, error) {
	c := certificate{DID: a.DID(), DeviceID: deviceID, NotAfter: notAfter}
	var err error
	if c.Signature, err = a.sign(c.signedBytes(leafKey)); err != nil {
		return nil, err
	}
	return c.marshal(), nil
}

func appendField(to, field []byte) []byte {
	to = binary.BigEndian.AppendUint16(to, uint16(len(field)))
	return append(to, field...)
}

func (c *certificate) signedBytes(leafKey []byte) []byte {
	out := appendField(nil, []byte(certificateDomain))
	out = appendField(out, []byte(c.DID))
	out = appendField(out, []byte(c.DeviceID))
	out = appendField(out, leafKey)
	return binary.BigEndian.AppendUint64(out, uint64(c.NotAfter.Unix()))
}

func (c *certificate) marshal() []byte {
	out := appendField([]byte{1}, []byte(c.DID))
	out = appendField(out, []byte(c.DeviceID))
	out = binary.BigEndian.AppendUint64(out, uint64(c.NotAfter.Unix()))
	return appendField(out, c.Signature)
}

var errCertificateForm = errors.New("malformed certificate")

func parseCertificate(data []byte) (certificate, error) {
	s := cryptobyte.String(data)
	var version uint8
	var did, device, signature cryptobyte.String
	var seconds uint64
	isWhole := s.ReadUint8(&version) && s.ReadUint16LengthPrefixed(&did) && s.ReadUint16LengthPrefixed(&device) &&
		s.ReadUint64(&seconds) && s.ReadUint16LengthPrefixed(&signature) && s.Empty()
	if !isWhole || len(data) > certificateBytesMax || version != 1 || seconds > 1<<40 || len(did) == 0 || len(device) == 0 {
		return certificate{}, errCertificateForm
	}
	return certificate{string(did), string(device), time.Unix(int64(seconds), 0), bytes.Clone(signature)}, nil
}

// verdict is the result of checking a leaf: the account, the device and the proof for them.
type verdict struct {
	Account  string
	DeviceID string // "" without a certificate
	// Verified reports that the account's own key has certified the leaf key, and the certificate
	// has not expired.
	Verified bool
	// Expected reports that the account's DID is a key that this package can verify with, so
	// that an honest SDK device would have carried a certificate.
	Expected bool
	Expired  bool
}

// judgeLeaf checks the certificate of a leaf, given as extension data (nil if absent), against
// the account named in its credential. An error wraps ErrCertificate: the leaf carries a wrong
// certificate. A leaf without one, or with one that cannot be checked, is unverified, without
// an error.
func judgeLeaf(credential string, leafKey, data []byte, now time.Time) (verdict, error) {
	v := verdict{Account: credential}
	key, err := keyOfDID(credential)
	if err != nil {
		return v, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	v.Expected = key.isKnown()
	if data == nil {
		return v, nil
	}
	c, err := parseCertificate(data)
	if err != nil {
		return v, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	if c.DID != credential {
		return v, fmt.Errorf("%w: issued for another account", ErrCertificate)
	}
	v.DeviceID = c.DeviceID
	if !key.isKnown() {
		return v, nil
	}
	if !key.verify(c.signedBytes(leafKey), c.Signature) {
		return v, fmt.Errorf("%w: wrong signature for this leaf key", ErrCertificate)
	}
	v.Expired = now.After(c.NotAfter)
	v.Verified = !v.Expired
	return v, nil
}
