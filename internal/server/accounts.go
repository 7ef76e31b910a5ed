package server

import (
	"context"
	"errors"
	"time"

	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/directory"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
)

// expelTimeout bounds the time that an operator waits for an expelled account to be removed from
// conversations; it is less than that for the whole answer.
const expelTimeout = 40 * time.Second

// Account is an entry of the answer to AdminAccountsList.
type Account = store.Account

// Expulsion is the answer to AdminAccountsExpel. The account is refused in any case.
type Expulsion struct {
	// IsRemoved reports whether it was removed from all conversations; else servers go on with
	// that.
	IsRemoved bool `json:"removed"`
}

// expel expels an account, and removes it from conversations for as long as the operator waits.
func (a administrator) expel(ctx context.Context, account string) (Expulsion, error) {
	if err := a.admissions.Expel(ctx, account); err != nil {
		return Expulsion{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, expelTimeout)
	defer cancel()
	return Expulsion{IsRemoved: a.remove(ctx, account) == nil}, nil // a fault is repeated, and logged, by the servers
}

// removeAlone removes an expelled account without a running server, or beside those of others.
func removeAlone(ctx context.Context, db *store.DB, account string) error {
	engine := logs.New(logs.Options{Store: db, Now: db.Now})
	limiter := limits.New(limits.Default(), db.Now)
	devices := directory.New(directory.Options{Store: db, Now: db.Now, Limits: limiter, Wake: engine.WakeAccount})
	service := core.New(core.Options{Store: db, Logs: engine, Directory: devices, Now: db.Now, Limits: limiter})
	err := service.FinishExpulsion(ctx, account)
	service.Close()
	return errors.Join(err, engine.Close())
}
