package identity

import (
	"context"
	"errors"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// AccountsMax bounds the accounts of one page.
const AccountsMax = 1000

// AccountDetails describes one account to operators.
type AccountDetails struct {
	store.Account
	IsAllowed bool `json:"allowed,omitempty"` // is on the allowlist
	store.AccountDetails
}

// Accounts lists the admitted and expelled accounts that begin with prefix and follow after, by
// account: at most max of them, or AccountsMax if that is 0 or more.
func (s Admissions) Accounts(ctx context.Context, prefix, after string, max int) ([]store.Account, error) {
	if max < 1 || max > AccountsMax {
		max = AccountsMax
	}
	for _, text := range []string{prefix, after} {
		if text != "" && !ds.IsValidAccount(text) {
			return nil, ds.Refuse(ds.InvalidRequest, "accounts begin with other characters")
		}
	}
	return store.Get(ctx, s.Store.View, func(tx *store.Tx) ([]store.Account, error) {
		return tx.Admission.List(prefix, ds.AccountID(after), max)
	})
}

// Account returns the details of an admitted or expelled account.
func (s Admissions) Account(ctx context.Context, account string) (AccountDetails, error) {
	id := ds.AccountID(account)
	d, err := store.Get(ctx, s.Store.View, func(tx *store.Tx) (d AccountDetails, err error) {
		if !ds.IsValidAccount(account) {
			return d, store.ErrNotFound
		}
		if d.Account, err = tx.Admission.Get(id); err != nil {
			return d, err
		}
		if d.IsAllowed, err = tx.Admission.IsAllowed(id); err != nil {
			return d, err
		}
		d.AccountDetails, err = tx.Admission.Details(id)
		return d, err
	})
	if errors.Is(err, store.ErrNotFound) {
		err = ds.Refuse(ds.NotFound, "no such account: it is neither admitted nor expelled")
	}
	return d, err
}
