package core

import (
	"context"
	"sync"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// RememberedGeneration is the newest generation of the API that the account's devices
// were seen to speak: 0 unknown, 1 A, 2 B. It may be a minute old.
func (s *Service) RememberedGeneration(ctx context.Context, account ds.AccountID) (int, error) {
	now := s.now()
	if generation, isKnown := s.generations.of(account, now); isKnown {
		return generation, nil
	}
	var generation int
	err := s.store.Read(ctx, func(tx *store.Tx) error {
		var err error
		generation, err = tx.RememberedGeneration(account)
		return err
	})
	if err == nil {
		s.generations.remember(account, generation, now)
	}
	return generation, err
}

// generations is what is remembered of the generations of accounts. The zero value is
// empty; it is safe for concurrent use.
type generations struct {
	mu    sync.Mutex
	known map[ds.AccountID]knownGeneration // mu guards known
}

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
	if g.known == nil || len(g.known) >= generationsMax {
		g.known = map[ds.AccountID]knownGeneration{}
	}
	g.known[account] = knownGeneration{generation, now.Add(generationLifetime)}
}

// forget is for an account whose devices have changed.
func (g *generations) forget(account ds.AccountID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.known, account)
}
