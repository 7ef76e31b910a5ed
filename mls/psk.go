package mls

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"slices"

	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

// PSKSource finds the external pre-shared key with the given id; an error refuses
// the message that needs it. RFC 9420, section 8.4.
type PSKSource func(id []byte) ([]byte, error)

// usageApplication is the usage of resumption keys inside their own group.
const usageApplication = 1

// newPSK names an external key for one use.
func newPSK(id []byte) (*wire.PreSharedKeyID, error) {
	nonce := make([]byte, suite.HashBytes)
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("make a nonce: %w", err)
	}
	return &wire.PreSharedKeyID{Kind: wire.ExternalPSK, ID: bytes.Clone(id), Nonce: nonce}, nil
}

// pskSecret combines the keys that ids name. RFC 9420, sections 8.4 and 12.1.4.
func (g *Group) pskSecret(ids []wire.PreSharedKeyID) ([]byte, error) {
	var psks []schedule.PSK
	seen := map[string]bool{}
	for _, id := range ids {
		name := string(wire.Marshal(&id))
		if seen[name] {
			return nil, broken(ErrInvalidProposal, "12.2", "a pre-shared key is named twice")
		}
		seen[name] = true
		if len(id.Nonce) != suite.HashBytes {
			return nil, broken(ErrInvalidProposal, "12.1.4", "a nonce of %d bytes", len(id.Nonce))
		}
		secret, err := g.findPSK(&id)
		if err != nil {
			return nil, err
		}
		psks = append(psks, schedule.PSK{ID: id, Secret: secret})
	}
	return schedule.PSKSecret(g.suite, psks), nil
}

func (g *Group) findPSK(id *wire.PreSharedKeyID) ([]byte, error) {
	if id.Kind == wire.ExternalPSK {
		if g.psk == nil {
			return nil, broken(ErrUnknownPSK, "8.4", "there is no source of external keys")
		}
		secret, err := g.psk(id.ID)
		if err != nil {
			return nil, fmt.Errorf("%w (RFC 9420, section 8.4): %w", ErrUnknownPSK, err)
		}
		return secret, nil
	}
	if id.Usage != usageApplication {
		return nil, unsupported("11", "branches and reinitialization")
	}
	if g.epoch != nil && bytes.Equal(id.GroupID, g.context.GroupID) {
		if id.Epoch == g.context.Epoch {
			return g.epoch.Resumption, nil
		}
		if i := slices.IndexFunc(g.past, func(p pastEpoch) bool { return p.context.Epoch == id.Epoch }); i >= 0 {
			return g.past[i].resumption, nil
		}
	}
	return nil, broken(ErrUnknownPSK, "8.6", "resumption of epoch %d", id.Epoch)
}
