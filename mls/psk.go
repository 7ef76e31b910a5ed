package mls

import (
	"crypto/rand"
	"fmt"

	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

// PSKSource returns the external pre-shared key with the given id. An error refuses the message
// that needs the key; it is wrapped together with ErrUnknownPSK. RFC 9420, section 8.4.
type PSKSource func(id []byte) ([]byte, error)

// addNonce gives id a fresh nonce, which makes it valid for one use. RFC 9420, section 8.4.
func addNonce(id *wire.PreSharedKeyID) error {
	id.Nonce = make([]byte, suite.HashBytes)
	if _, err := rand.Read(id.Nonce); err != nil {
		return fmt.Errorf("make a nonce: %w", err)
	}
	return nil
}

// checkPSK verifies the id of a pre-shared key in a proposal. usage is that of resumption keys
// in a group that is being created or joined, else 0. RFC 9420, section 12.1.4.
func checkPSK(id *wire.PreSharedKeyID, usage uint8) error {
	if len(id.Nonce) != suite.HashBytes {
		return broken(ErrInvalidProposal, "12.1.4", "a nonce of %d bytes", len(id.Nonce))
	}
	if id.Kind == wire.ResumptionPSK && id.Usage != wire.ApplicationUsage && id.Usage != usage {
		return broken(ErrInvalidProposal, "12.1.4", "resumption usage %d in an existing group", id.Usage)
	}
	return nil
}

// pskSecret combines the keys that ids name. RFC 9420, sections 8.4 and 12.1.4.
func (g *Group) pskSecret(ids []wire.PreSharedKeyID) ([]byte, error) {
	psks, seen := make([]schedule.PSK, 0, len(ids)), make(map[string]bool, len(ids))
	for _, id := range ids {
		name := string(wire.Marshal(&id))
		if seen[name] {
			return nil, broken(ErrInvalidProposal, "12.2", "the same PreSharedKeyID occurs twice")
		}
		seen[name] = true
		if err := checkPSK(&id, g.usage); err != nil {
			return nil, err
		}
		secret, err := g.findPSK(&id)
		if err != nil {
			return nil, err
		}
		psks = append(psks, schedule.PSK{ID: id, Secret: secret})
	}
	return schedule.PSKSecret(g.suite, psks), nil
}

// findPSK returns the pre-shared key that id names. RFC 9420, sections 8.4 and 8.6.
func (g *Group) findPSK(id *wire.PreSharedKeyID) ([]byte, error) {
	if id.Kind == wire.ExternalPSK {
		if g.psk == nil {
			return nil, broken(ErrUnknownPSK, "8.4", "no PSKSource is set")
		}
		secret, err := g.psk(id.ID)
		if err != nil {
			return nil, fmt.Errorf("%w (RFC 9420, section 8.4): %w", ErrUnknownPSK, err)
		}
		return secret, nil
	}
	for _, from := range []*Group{g, g.source} {
		if secret := from.resumption(id.GroupID, id.Epoch); secret != nil {
			return secret, nil
		}
	}
	return nil, broken(ErrUnknownPSK, "8.6", "no resumption key of epoch %d is kept", id.Epoch)
}
