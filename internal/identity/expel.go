package identity

import (
	"context"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// expelledPage bounds the expulsions of one query.
const expelledPage = 1000

// expel forgets that an account is admitted, and remembers for revokedFor that it was expelled.
func (a *Authenticator) expel(account ds.AccountID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for other := range a.expelled {
		if len(a.expelled) < revokedMax {
			break
		}
		delete(a.expelled, other)
	}
	a.expelled[account] = a.o.Now()
	a.admitted.drop(account)
}

// believe remembers that an account was admitted at a time, unless it was expelled since.
func (a *Authenticator) believe(account ds.AccountID, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if expelled, is := a.expelled[account]; is && !at.After(expelled) {
		return
	}
	delete(a.expelled, account)
	a.admitted.add(account, at)
}

// IsExpelled reports whether an account is known to have been expelled in the last minutes. A door
// asks it for connections that have no session.
func (a *Authenticator) IsExpelled(account ds.AccountID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, is := a.expelled[account]
	return is
}

// pollExpelled learns which accounts other nodes have expelled.
func (a *Authenticator) pollExpelled(ctx context.Context) error {
	for {
		a.mu.Lock()
		next := a.expelledNext
		a.mu.Unlock()
		list, err := store.Get(ctx, a.o.Store.Read, func(tx *store.Tx) ([]store.Expulsion, error) {
			return tx.Admission.ExpelledSince(next, expelledPage)
		})
		if err != nil || len(list) == 0 {
			return err
		}
		for _, e := range list {
			a.expel(e.Account)
		}
		a.mu.Lock()
		a.expelledNext = list[len(list)-1].Seq + 1
		a.mu.Unlock()
		if len(list) < expelledPage {
			return nil
		}
	}
}
