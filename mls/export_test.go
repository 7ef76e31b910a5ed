package mls

import (
	"errors"

	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

// ImportKeyPackage builds a KeyPackage from the keys of a test vector.
func ImportKeyPackage(message, signaturePrivate, encryptionPrivate, initPrivate []byte) (*KeyPackage, error) {
	var m wire.Message
	if err := wire.Unmarshal(message, &m); err != nil {
		return nil, err
	}
	if m.KeyPackage == nil {
		return nil, errors.New("not a key package")
	}
	s, err := suite.Lookup(m.KeyPackage.CipherSuite)
	if err != nil {
		return nil, err
	}
	key, err := signatureKey(s, signaturePrivate)
	if err != nil {
		return nil, err
	}
	k := &KeyPackage{suite: s, public: m.KeyPackage, key: key, initPrivate: initPrivate, encryptionPrivate: encryptionPrivate}
	return k, k.checkPrivate()
}
