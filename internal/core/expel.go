package core

import (
	"context"
	"errors"
	"sync"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
)

const (
	expulsionInterval = time.Minute
	// expulsionSettle is longer than a call that was let through before the expulsion can run: what
	// it adds is removed by the pass that finishes the expulsion.
	expulsionSettle   = 30 * time.Second
	expulsionsPage    = 100
	expulsionConvos   = 64   // that an account is removed from at a time
	expulsionPackages = 1000 // that are deleted in one transaction
)

// expulsion is an Op by which the service removes an expelled account from a conversation, as if
// the account had left it: the owner passes ownership on. The record names no account that did it.
type expulsion struct{ ConversationID ds.ConversationID }

func (in expulsion) place() (ds.ConversationID, ds.MessageID) { return in.ConversationID, "" }

func (in expulsion) check(a *action) error {
	a.needs.Everyone = true
	return checkConversationID(in.ConversationID)
}

func (expulsion) limits() []string { return nil }

func (expulsion) may(*logs.Conversation, *action, int64) error { return nil }

func (expulsion) judge(*logs.Conversation, *action) (verdict, error) { return verdict{}, nil }

func (expulsion) do(c *logs.Conversation, a *action, _ verdict, nowMS int64) Result {
	account := a.who.Account
	if c.Role(account) == ds.Owner {
		succeed(c, account, nowMS)
	}
	changeMembers(c, ds.MembershipChange{Remove: []ds.AccountID{account}}, nowMS)
	return Result{}
}

// finishExpulsions removes the accounts that were expelled.
func (s *Service) finishExpulsions(ctx context.Context) error {
	var errs []error
	for after := ds.AccountID(""); ; {
		list, err := store.Get(ctx, s.store.Read, func(tx *store.Tx) ([]store.Expulsion, error) { return tx.Admission.Unfinished(after, expulsionsPage) })
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		for _, e := range list {
			after = e.Account
			if err := s.removeExpelled(ctx, e); err != nil {
				errs = append(errs, err)
			}
		}
		if len(list) < expulsionsPage {
			return errors.Join(errs...)
		}
	}
}

// FinishExpulsion removes an expelled account from all conversations, and deletes its devices and
// unclaimed key packages. It may be called again after a fault; the Service does so by itself, too.
func (s *Service) FinishExpulsion(ctx context.Context, account string) error {
	return s.removeExpelled(ctx, store.Expulsion{Account: ds.AccountID(account), ExpelledMS: s.now().UnixMilli()})
}

func (s *Service) removeExpelled(ctx context.Context, e store.Expulsion) error {
	began := s.now().UnixMilli()
	for after := ds.ConversationID(""); ; {
		var ids []ds.ConversationID
		isExpelled := false
		if err := s.store.View(ctx, func(tx *store.Tx) error {
			expelled, err := tx.Admission.Expelled([]ds.AccountID{e.Account})
			if isExpelled = expelled[e.Account]; err != nil || !isExpelled {
				return err
			}
			ids, err = tx.Conversations.IDsAfter(e.Account, after, expulsionConvos)
			return err
		}); err != nil || !isExpelled {
			return err // an operator may have admitted it again
		}
		if err := s.removeFrom(ctx, e.Account, ids); err != nil {
			return err
		}
		if len(ids) < expulsionConvos {
			break
		}
		after = ids[len(ids)-1]
	}
	if err := s.deleteDevices(ctx, e.Account); err != nil {
		return err
	}
	if began < e.ExpelledMS+expulsionSettle.Milliseconds() {
		return nil
	}
	return s.store.Update(ctx, func(tx *store.Tx) error { return tx.Admission.FinishExpulsion(e.Account) })
}

// removeFrom removes an account from conversations, all at once.
func (s *Service) removeFrom(ctx context.Context, account ds.AccountID, ids []ds.ConversationID) error {
	errs := make([]error, len(ids))
	var running sync.WaitGroup
	for i, id := range ids {
		running.Go(func() {
			if _, err := s.Apply(ctx, ds.Caller{Account: account}, expulsion{id}); ds.CodeOf(err) == "" {
				errs[i] = err // a refusal says that it is no member any more
			}
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

func (s *Service) deleteDevices(ctx context.Context, account ds.AccountID) error {
	devices, err := store.Get(ctx, s.store.Read, func(tx *store.Tx) ([]store.Registration, error) { return tx.Devices.Of(account) })
	if err != nil {
		return err
	}
	for _, d := range devices {
		if err := s.store.Update(ctx, func(tx *store.Tx) error {
			_, _, err := tx.Devices.Delete(d.Device, "the account was expelled")
			return err
		}); err != nil {
			return err
		}
	}
	for {
		n, err := store.Get(ctx, s.store.Update, func(tx *store.Tx) (int64, error) { return tx.Packages.RevokeSome(account, expulsionPackages) })
		if err != nil || n < expulsionPackages {
			return err
		}
	}
}
