package directory

import (
	"context"
	"strings"
	"sync"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// RememberedGeneration returns the newest generation of the API that the account's devices
// were seen to use: 0 unknown, 1 A, 2 B. It may be a minute old.
func (s *Service) RememberedGeneration(ctx context.Context, account ds.AccountID) (int, error) {
	now := s.now()
	if generation, isKnown := s.generations.of(account, now); isKnown {
		return generation, nil
	}
	var generation int
	err := s.store.Read(ctx, func(tx *store.Tx) error {
		var err error
		generation, err = tx.Devices.RememberedGeneration(account)
		return err
	})
	if err == nil {
		s.generations.remember(account, generation, now)
	}
	return generation, err
}

// generations holds the generations of accounts that were read lately. The zero value is
// empty; it is safe for concurrent use.
type generations struct {
	mu    sync.Mutex // guards known and bytes
	known map[ds.AccountID]knownGeneration
	bytes int // of known
}

// generationBytes is the size of an entry of generations without the account's name.
const generationBytes = 128

type knownGeneration struct {
	generation int
	until      time.Time
}

func (g *generations) of(account ds.AccountID, now time.Time) (generation int, isKnown bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	k, ok := g.known[account]
	return k.generation, ok && now.Before(k.until)
}

func (g *generations) remember(account ds.AccountID, generation int, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.drop(account)
	if cost := generationBytes + len(account); g.known == nil || g.bytes+cost > generationsBytesMax {
		g.known, g.bytes = map[ds.AccountID]knownGeneration{}, 0
	}
	account = ds.AccountID(strings.Clone(string(account))) // it may be part of a whole request
	g.known[account] = knownGeneration{generation, now.Add(generationLifetime)}
	g.bytes += generationBytes + len(account)
}

// drop removes an account. The caller holds mu.
func (g *generations) drop(account ds.AccountID) {
	if _, ok := g.known[account]; ok {
		g.bytes -= generationBytes + len(account)
		delete(g.known, account)
	}
}

// forget removes an account after a change of its devices.
func (g *generations) forget(account ds.AccountID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.drop(account)
}
