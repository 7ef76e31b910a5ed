// Package keypackage checks published KeyPackages (RFC 9420, section 10). It is sufficient for
// a directory to refuse packages that no client could use:
//
//	info, err := keypackage.Validate(raw, time.Now())
//
// It cannot check that the identity belongs to the publisher of the package: compare
// Info.Identity with the authenticated caller.
package keypackage

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"time"

	"waxwing.im/waxwing/mls/leaf"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

var (
	// ErrInvalid reports a KeyPackage that breaks a rule of RFC 9420.
	ErrInvalid = errors.New("invalid key package")
	// ErrLifetime reports a KeyPackage that is not valid now, or for too long.
	ErrLifetime = errors.New("key package lifetime")
)

// LifetimeMax is the longest lifetime that Validate accepts: a year, and a day for clocks that
// differ. Applications must define one by RFC 9420, section 7.2.
const LifetimeMax = 366 * 24 * time.Hour

// LifetimeUnlimited removes the bound on lifetimes.
const LifetimeUnlimited = time.Duration(math.MaxInt64)

// Info describes a valid KeyPackage.
type Info struct {
	Ref                 []byte // KeyPackageRef, section 5.2
	Suite               uint16
	Identity            []byte // of the basic credential; nil for an X.509 credential
	NotBefore, NotAfter time.Time
	LastResort          bool // may be used more than once
	SignatureKey        []byte
	InitKey             []byte
}

// Validate decodes raw, which must be exactly one MLSMessage with a KeyPackage, and verifies all of
// it at the time now: version, suite, leaf source, both signatures, keys, capabilities, lifetime.
// Unknown and GREASE values are accepted in the lists of capabilities. The suites are those of
// package suite and XWing. The cost is linear in len(raw), plus two verifications. Errors wrap
// wire.ErrMalformed, suite.ErrUnsupported, suite.ErrKey, leaf.ErrInvalid, leaf.ErrSignature,
// ErrInvalid or ErrLifetime. RFC 9420, section 10.1.
func Validate(raw []byte, now time.Time) (Info, error) {
	return ValidateWithin(raw, now, LifetimeMax)
}

// ValidateWithin does the checks of Validate with another longest lifetime.
func ValidateWithin(raw []byte, now time.Time, longest time.Duration) (Info, error) {
	var m wire.Message
	if err := wire.Unmarshal(raw, &m); err != nil {
		return Info{}, err
	}
	if m.KeyPackage == nil {
		return Info{}, invalid("10", "the message is not a KeyPackage")
	}
	k := m.KeyPackage
	s, keys, err := directorySuite(k.CipherSuite)
	if err != nil {
		return Info{}, err
	}
	if err := checkForm(k.CipherSuite, keys, k); err != nil {
		return Info{}, err
	}
	if err := CheckSignatures(s, k); err != nil {
		return Info{}, err
	}
	if err := CheckLifetime(&k.Leaf, now, longest); err != nil {
		return Info{}, err
	}
	_, lastResort := wire.FindExtension(k.Extensions, wire.LastResortExtension)
	return Info{
		Ref: s.KeyPackageRef(wire.Marshal(k)), Suite: k.CipherSuite,
		Identity:  k.Leaf.Credential.Identity,
		NotBefore: Time(k.Leaf.NotBefore), NotAfter: Time(k.Leaf.NotAfter),
		LastResort: lastResort, SignatureKey: k.Leaf.SignatureKey, InitKey: k.InitKey,
	}, nil
}

// Time converts the seconds since 1970 of a lifetime. Values after the year 9999 become its last
// second, so that the result can be compared and formatted.
func Time(seconds uint64) time.Time {
	const latest = 253402300799 // 9999-12-31T23:59:59Z
	return time.Unix(int64(min(seconds, latest)), 0).UTC()
}

// Check verifies all of k except for its lifetime, which applies when a package is published or
// used, but not when a commit is processed later. Errors wrap suite.ErrKey, leaf.ErrInvalid,
// leaf.ErrSignature or ErrInvalid. RFC 9420, section 10.1.
func Check(s *suite.Suite, k *wire.KeyPackage) error {
	if err := CheckForm(s, k); err != nil {
		return err
	}
	return CheckSignatures(s, k)
}

// CheckForm does the checks of Check except for the signatures, at a hundredth of the cost.
func CheckForm(s *suite.Suite, k *wire.KeyPackage) error {
	return checkForm(s.ID(), s.PublicKeys(), k)
}

func checkForm(id suite.ID, keys suite.PublicKeys, k *wire.KeyPackage) error {
	switch {
	case k.Version != wire.MLS10:
		return invalid("10.1", "version %d", k.Version)
	case k.CipherSuite != id:
		return invalid("10.1", "cipher suite %d instead of %d", k.CipherSuite, id)
	case k.Leaf.Source != wire.KeyPackageLeaf:
		return invalid("10.1", "leaf node source %d instead of key_package", k.Leaf.Source)
	case bytes.Equal(keys.Canonical(k.InitKey), keys.Canonical(k.Leaf.EncryptionKey)):
		return invalid("10.1", "init key and encryption key are the same")
	}
	if t, found := wire.RepeatedExtension(k.Extensions); found {
		return invalid("13.4", "extension type %#x occurs twice", t)
	}
	for _, key := range [][]byte{k.InitKey, k.Leaf.EncryptionKey} {
		if err := keys.Check(key); err != nil {
			return err
		}
	}
	return leaf.CheckContent(id, &k.Leaf)
}

// CheckSignatures verifies the two signatures of k, the rest of Check.
func CheckSignatures(s *suite.Suite, k *wire.KeyPackage) error {
	if err := leaf.CheckSignature(s, &k.Leaf, nil, 0); err != nil {
		return err
	}
	if !s.VerifyWithLabel(k.Leaf.SignatureKey, "KeyPackageTBS", k.SignedContent(), k.Signature) {
		return fmt.Errorf("%w: key package (RFC 9420, section 10.1)", leaf.ErrSignature)
	}
	return nil
}

// CheckLifetime verifies that n, the leaf of a KeyPackage, is valid at now, not_before and not_after
// included, and not for longer than longest. The error wraps ErrLifetime. RFC 9420, section 7.2.
func CheckLifetime(n *wire.LeafNode, now time.Time, longest time.Duration) error {
	seconds := now.Unix()
	switch {
	case n.NotBefore > math.MaxInt64 || seconds < int64(n.NotBefore):
		return fmt.Errorf("%w: not valid yet (RFC 9420, section 7.2)", ErrLifetime)
	case n.NotAfter <= math.MaxInt64 && seconds > int64(n.NotAfter):
		return fmt.Errorf("%w: expired (RFC 9420, section 7.2)", ErrLifetime)
	}
	return CheckDuration(n, longest)
}

// CheckDuration verifies that the lifetime of n, the leaf of a KeyPackage, is not longer than
// longest. The error wraps ErrLifetime. RFC 9420, section 7.2.
func CheckDuration(n *wire.LeafNode, longest time.Duration) error {
	if longest < LifetimeUnlimited && n.NotAfter-n.NotBefore > uint64(longest/time.Second) {
		return fmt.Errorf("%w: longer than %v (RFC 9420, section 7.2)", ErrLifetime, longest)
	}
	return nil
}

func invalid(section, format string, args ...any) error {
	return fmt.Errorf("%w: %s (RFC 9420, section %s)", ErrInvalid, fmt.Sprintf(format, args...), section)
}
