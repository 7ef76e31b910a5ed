package directory

import (
	"context"
	"crypto/rand"
	"errors"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
)

// Addition is a device of a member that is to be added to the group of a conversation: it was
// registered after its account became a member. Another member claims it, adds the device with
// the key package of the claim, and completes it.
type Addition = store.Addition

// Refusals of additions. A caller that is not a member of the conversation gets the refusal
// of an addition that does not exist.
var (
	refuseNoAddition      = (&ds.Refusal{Code: ds.NotFound, Message: "no such addition"}).Because(ds.NoAddition)
	refuseAdditionClaimed = (&ds.Refusal{Code: ds.InvalidRequest, Message: "somebody else has claimed the addition"}).Because(ds.AdditionClaimed)
	refuseOwnAddition     = (&ds.Refusal{Code: ds.Forbidden, Message: "a device is added by another member"}).Because(ds.NotAllowed)
	refuseUnclaimed       = (&ds.Refusal{Code: ds.Forbidden, Message: "claim the addition first"}).Because(ds.NotAllowed)
)

// PendingAdditions lists, oldest first and at most limit of them (up to 100), the devices of
// other members that wait to be added to the caller's conversations: to these, or to any for
// nil. Conversations that the caller is not a member of are ignored. A claim lasts for five
// minutes.
func (s *Service) PendingAdditions(ctx context.Context, who ds.Caller, conversations []ds.ConversationID, limit int) ([]Addition, error) {
	var list []Addition
	err := s.store.Read(ctx, func(tx *store.Tx) error {
		var err error
		list, err = tx.Devices.PendingAdditions(who.Account, conversations, tx.NowMS()-claimLifetime.Milliseconds(), min(max(limit, 0), additionsPage))
		return err
	})
	return list, err
}

// ClaimAddition assigns an addition to the caller for five minutes, and returns it with, if
// withPackage is set, a key package of the device, if it has any. The same caller gets the
// same package again. Refusals: NoAddition; NotAllowed for a device of the caller's own;
// AdditionClaimed, then with the addition, which names the claimant; rate_limited.
func (s *Service) ClaimAddition(ctx context.Context, who ds.Caller, id string, withPackage bool) (Addition, []ds.KeyPackage, error) {
	if !ds.IsValidID(id) {
		return Addition{}, nil, refuseNoAddition
	}
	if r := s.limits.TakeN(who.Meter, limits.KeyPackageFetches, string(who.Account), "", 1); r != nil {
		return Addition{}, nil, r
	}
	var a Addition
	var refusal error
	list, err := s.claim(ctx, who, func(tx *store.Tx) ([]ds.KeyPackage, error) {
		var given []ds.KeyPackage
		var err error
		a, given, refusal, err = s.claimAddition(tx, who, id, withPackage)
		return given, err
	})
	if err == nil {
		err = refusal
	}
	return a, list, err
}

// claimAddition does the work of ClaimAddition within its transaction. A refusal is not an
// error, because the loaded addition is part of the answer.
func (s *Service) claimAddition(tx *store.Tx, who ds.Caller, id string, withPackage bool) (a Addition, given []ds.KeyPackage, refusal, err error) {
	ranOutMS := tx.NowMS() - claimLifetime.Milliseconds()
	a, err = tx.Devices.Addition(who.Account, id, ranOutMS)
	switch {
	case errors.Is(err, store.ErrNotFound) || err == nil && a.Status == store.AdditionCompleted:
		return Addition{}, nil, refuseNoAddition, nil
	case err != nil:
		return a, nil, nil, err
	case a.Device.Account == who.Account:
		return Addition{}, nil, refuseOwnAddition, nil
	}
	packageRef, err := tx.Devices.ClaimAddition(id, who.Account, ranOutMS)
	if errors.Is(err, store.ErrNotFound) { // another member has claimed it, perhaps a moment ago
		a, err = tx.Devices.Addition(who.Account, id, ranOutMS)
		return a, nil, refuseAdditionClaimed, err
	}
	if err != nil {
		return a, nil, nil, err
	}
	a.Status, a.ClaimedBy = store.AdditionClaimed, who.Account
	if !withPackage {
		return a, nil, nil, nil
	}
	if err := tx.Packages.LockPools([]ds.AccountID{a.Device.Account}); err != nil {
		return a, nil, nil, err
	}
	given, err = tx.Packages.ForClaimant(id, packageRef, a.Device, who.Account)
	return a, given, nil, err
}

// CompleteAddition records that the device has been added. Only its claimant may call it, also
// repeatedly. Refusals: NoAddition, AdditionClaimed, NotAllowed.
func (s *Service) CompleteAddition(ctx context.Context, who ds.Caller, id string) error {
	if !ds.IsValidID(id) {
		return refuseNoAddition
	}
	var refusal error
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		refusal = nil
		a, err := tx.Devices.Addition(who.Account, id, 0)
		if errors.Is(err, store.ErrNotFound) {
			refusal = refuseNoAddition
			return nil
		}
		if err != nil {
			return err
		}
		isDone, err := tx.Devices.CompleteAddition(id, who.Account)
		switch {
		case err != nil || isDone:
		case a.Status == store.AdditionPending:
			refusal = refuseUnclaimed
		default:
			refusal = refuseAdditionClaimed
		}
		return err
	})
	if err != nil {
		return err
	}
	return refusal
}

// newAdditionIDs returns n ids that cannot be guessed.
func newAdditionIDs(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = rand.Text()
	}
	return ids
}
