package core

import (
	"context"
	"crypto/sha256"
	"slices"
	"sync"

	"waxwing.im/waxwing/internal/ds"
)

// Bounds of the attestations kept: the epochs, of which the oldest are evicted first, and the
// distinct values of one epoch.
const (
	attestedEpochsMax = 16384
	attestedValuesMax = 4
)

// Attest records the epoch authenticator (RFC 9420, section 8.7) that a member reports for an
// epoch, and refuses it with epoch_conflict if members report different ones: they are in
// different groups under one name. Only hashes are kept, in memory, without their senders.
// generation selects the group of the conversation, 0 the current one; reports of an earlier
// group, or of an epoch older than epochWindow, are ignored. Refusals: forbidden,
// invalid_request, epoch_conflict.
func (s *Service) Attest(ctx context.Context, who ds.Caller, id ds.ConversationID, generation, epoch int64, authenticator []byte) error {
	if len(authenticator) == 0 || len(authenticator) > 256 {
		return ds.Refuse(ds.InvalidRequest, "epoch_authenticator: not 1 to 256 bytes")
	}
	if epoch < 0 {
		return ds.Refuse(ds.InvalidRequest, "epoch: negative")
	}
	if generation < 0 {
		return ds.Refuse(ds.InvalidRequest, "generation: negative")
	}
	head, err := s.Head(ctx, who, id)
	switch {
	case err != nil:
		return err
	case generation > head.Generation:
		return ds.Refuse(ds.InvalidRequest, "generation: not there yet")
	case generation != 0 && generation < head.Generation:
		return nil
	case epoch > head.Epoch:
		return ds.Refuse(ds.InvalidRequest, "epoch: not there yet")
	case epoch < head.Epoch-epochWindow:
		return nil
	}
	key := attestedEpoch{id, head.Generation, epoch}
	if s.attested.differs(key, sha256.Sum256(authenticator)) {
		s.metrics.attestationConflicts.Inc()
		return &ds.Refusal{Code: ds.EpochConflict, Message: "members differ in the epoch authenticator", CurrentEpoch: head.Epoch}
	}
	return nil
}

type attestedEpoch struct {
	conversation      ds.ConversationID
	generation, epoch int64
}

// attestations holds the values reported for recent epochs.
type attestations struct {
	mu     sync.Mutex
	values map[attestedEpoch][][sha256.Size]byte // guarded by mu
	order  []attestedEpoch                       // a ring once it is full; guarded by mu
	oldest int                                   // in order; guarded by mu
}

// differs records a value and reports whether another one was reported for that epoch.
func (a *attestations) differs(key attestedEpoch, value [sha256.Size]byte) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.values == nil {
		a.values = map[attestedEpoch][][sha256.Size]byte{}
	}
	known, isOld := a.values[key]
	if !isOld {
		if len(a.order) < attestedEpochsMax {
			a.order = append(a.order, key)
		} else {
			delete(a.values, a.order[a.oldest])
			a.order[a.oldest] = key
			a.oldest = (a.oldest + 1) % attestedEpochsMax
		}
	}
	if !slices.Contains(known, value) && len(known) < attestedValuesMax {
		known = append(known, value)
		a.values[key] = known
	}
	return len(known) > 1 || !slices.Contains(known, value)
}
