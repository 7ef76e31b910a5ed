package mls

import (
	"bytes"
	"fmt"
	"time"

	"waxwing.im/waxwing/mls/keypackage"
	"waxwing.im/waxwing/mls/leaf"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

// LifetimeMax is the default of Limits.Lifetime and KeyPackageOptions.LifetimeMax, 366 days.
// LifetimeUnlimited removes the bound. RFC 9420, section 7.2.
const (
	LifetimeMax       = keypackage.LifetimeMax
	LifetimeUnlimited = keypackage.LifetimeUnlimited
)

// keyPackageLife and keyPackageSkew are the default lifetime of a KeyPackage, and how much of it
// has passed already when it is made: the clocks of its users may be slow.
const (
	keyPackageLife = 90 * 24 * time.Hour
	keyPackageSkew = time.Hour
)

// KeyPackageOptions holds the lifetime of a KeyPackage and whether it is reusable. The zero value
// makes a package that is used once, from now on.
type KeyPackageOptions struct {
	NotBefore  time.Time        // an hour before Now if zero, since clocks differ; less if LifetimeMax leaves no room
	NotAfter   time.Time        // 90 days after NotBefore if zero, or LifetimeMax if that is shorter
	Now        func() time.Time // time.Now if nil
	LastResort bool             // may be used more than once
	// LifetimeMax is the longest lifetime that the package may have: that of Limits.Lifetime in
	// the groups that it is for. Zero selects the constant LifetimeMax.
	LifetimeMax time.Duration
}

// KeyPackage is a KeyPackage of RFC 9420, section 10, with its private keys, and is immutable.
// Save it (MarshalBinary) before publishing Message. Delete it when a Welcome has used it, unless
// it is one of last resort, or when it has expired.
type KeyPackage struct {
	suite             *suite.Suite
	public            *wire.KeyPackage
	key               SignatureKey
	initPrivate       []byte
	encryptionPrivate []byte
}

// NewKeyPackage makes a KeyPackage with fresh keys. Errors wrap ErrUnsupportedSuite,
// ErrInvalidKey (the signature key is one of another suite) or ErrLifetime. RFC 9420, section 10.
func NewKeyPackage(s Suite, id Identity, o KeyPackageOptions) (*KeyPackage, error) {
	cipher, err := id.cipher(s)
	if err != nil {
		return nil, err
	}
	if o.LifetimeMax <= 0 {
		o.LifetimeMax = LifetimeMax
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.NotBefore.IsZero() {
		now, skew := o.Now(), min(keyPackageSkew, o.LifetimeMax/2)
		if !o.NotAfter.IsZero() {
			skew = max(0, min(skew, o.LifetimeMax-o.NotAfter.Sub(now)))
		}
		o.NotBefore = now.Add(-skew)
	}
	if o.NotAfter.IsZero() {
		o.NotAfter = o.NotBefore.Add(min(keyPackageLife, o.LifetimeMax))
	}
	if o.NotBefore.Unix() < 0 || !o.NotBefore.Before(o.NotAfter) || o.NotAfter.Sub(o.NotBefore) > o.LifetimeMax {
		return nil, broken(ErrLifetime, "7.2", "from %v to %v", o.NotBefore, o.NotAfter)
	}
	initPrivate, initPublic, err := cipher.GenerateKeyPair()
	if err != nil {
		return nil, err
	}
	encryptionPrivate, encryptionPublic, err := cipher.GenerateKeyPair()
	if err != nil {
		return nil, err
	}
	k := &wire.KeyPackage{Version: wire.MLS10, CipherSuite: uint16(s), InitKey: initPublic, Leaf: id.leaf(nil)}
	k.Leaf.EncryptionKey, k.Leaf.Source = encryptionPublic, wire.KeyPackageLeaf
	k.Leaf.NotBefore, k.Leaf.NotAfter = uint64(o.NotBefore.Unix()), uint64(o.NotAfter.Unix())
	if o.LastResort {
		k.Extensions = []wire.Extension{{Type: wire.LastResortExtension}}
	}
	if err := leaf.Sign(cipher, id.Key.private, &k.Leaf, nil, 0); err != nil {
		return nil, err
	}
	if k.Signature, err = cipher.SignWithLabel(id.Key.private, "KeyPackageTBS", k.SignedContent()); err != nil {
		return nil, err
	}
	if err := keypackage.Check(cipher, k); err != nil {
		return nil, err
	}
	return &KeyPackage{suite: cipher, public: k, key: id.Key, initPrivate: initPrivate, encryptionPrivate: encryptionPrivate}, nil
}

// Message returns the MLSMessage to publish.
func (k *KeyPackage) Message() []byte {
	return wire.Marshal(&wire.Message{WireFormat: wire.KeyPackageFormat, KeyPackage: k.public})
}

// Ref returns the KeyPackageRef by which a Welcome names the package.
// RFC 9420, section 5.2.
func (k *KeyPackage) Ref() []byte { return k.suite.KeyPackageRef(wire.Marshal(k.public)) }

// Suite returns the package's cipher suite.
func (k *KeyPackage) Suite() Suite { return Suite(k.suite.ID()) }

// Lifetime returns the first and the last second in which others may use the package.
// RFC 9420, section 7.2.
func (k *KeyPackage) Lifetime() (notBefore, notAfter time.Time) {
	return keypackage.Time(k.public.Leaf.NotBefore), keypackage.Time(k.public.Leaf.NotAfter)
}

// checkPrivate verifies that the private keys match the public ones.
func (k *KeyPackage) checkPrivate() error {
	for _, pair := range []struct{ private, public []byte }{
		{k.initPrivate, k.public.InitKey}, {k.encryptionPrivate, k.public.Leaf.EncryptionKey},
	} {
		public, err := k.suite.PublicKey(pair.private)
		if err != nil {
			return err
		}
		if !bytes.Equal(public, pair.public) {
			return fmt.Errorf("%w: a private key does not belong to the key package", ErrInvalidKey)
		}
	}
	if !bytes.Equal(k.key.public, k.public.Leaf.SignatureKey) {
		return fmt.Errorf("%w: the signature key does not belong to the key package", ErrInvalidKey)
	}
	return nil
}
