// Package identity answers one question for every door: who is calling?
//
// An account proves itself with a service token, a JWT that is signed with the key behind its
// DID, made for this service and one method, short-lived and good for one use. The gateway
// exchanges such a token for a session, which is held by a random session token and continued
// by resume tokens. The service has an identity of its own, a did:web with a published key.
//
// All checks fail closed. Refusals say only that a token is not valid; the reason goes to the
// debug log, without any content of the token. The permissions of a verified caller are the
// business of core, and the transport of tokens that of the doors.
package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/internal/condition"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
)

// Options configures an Authenticator.
type Options struct {
	Store *store.DB
	// Audience lists the names of this service that tokens may be made for, compared byte by
	// byte; see Audiences. It is called for every verification, and without names every token
	// is refused.
	Audience func() []string
	Now      func() time.Time // nil: the system clock
	Logger   *slog.Logger     // nil: discard
	// SessionTTL is the lifetime of a session with nothing attached to it; 0 means an hour.
	SessionTTL time.Duration
	// Resolver finds the keys of did:plc and did:web issuers; nil supports did:key only.
	Resolver *Resolver
	// Admission is the rule for new accounts; "" means AdmissionOpen.
	Admission Admission
	// Limit counts one call of a limit of this package by its name and key, and refuses with
	// ds.RateLimited; nil does not limit.
	Limit func(name, key string) error
	// DevSecret verifies HS256 tokens, which can claim any identity; nil accepts none. It is
	// for development mode only.
	DevSecret []byte
	// PollInterval is the interval at which a node that shares its database looks for sessions
	// that were revoked on others; 0 means a second.
	PollInterval time.Duration
}

const (
	sessionTTLDefault = time.Hour
	sessionTTLMin     = time.Second
	slideEveryMax     = time.Minute
	seenEvery         = 30 * time.Second
	pollEvery         = time.Second
	sweepEvery        = time.Minute
	sweepRows         = 1000
	// forgetAfter is the time for which expired rows are kept: a node estimates the time of the
	// database, and a nonce must outlive its token on all of them.
	forgetAfter = 10 * time.Minute
)

// Authenticator verifies tokens and manages sessions. Several may share one database: a token
// is good for one use and a resume token has one successor among all of them. It is safe for
// concurrent use.
type Authenticator struct {
	o                Options
	writer           *writer
	keys             *keyCache
	penalties        *penalties
	sessionPenalties *penalties // of addresses that have sent too many unknown session tokens
	looks            lane       // lookups in the database, for penalised addresses
	signatures       lane       // verifications for them
	admitted         *admittedAccounts
	replays          prometheus.Counter
	slideEvery       time.Duration // minimum time between writes of an attached session's expiry

	mu           sync.Mutex // guards the following five
	attached     map[[32]byte]*attachment
	revoked      map[[32]byte]time.Time     // sessions that this process knows to be revoked recently
	revokedUntil store.Revocation           // position up to which it has read the revocations of others
	expelled     map[ds.AccountID]time.Time // accounts that this process knows to be expelled recently
	expelledNext int64                      // the number of the first expulsion of others to be read
	ends         chan struct{}              // see Ends

	closing sync.Once
	stop    context.CancelFunc
	running sync.WaitGroup
}

// Collectors lists the metrics for a registry.
func (a *Authenticator) Collectors() []prometheus.Collector { return []prometheus.Collector{a.replays} }

// New starts an Authenticator. Close ends its goroutines; the store stays open.
func New(o Options) (*Authenticator, error) {
	if o.Store == nil || o.Audience == nil {
		return nil, errors.New("identity: store and audience are required")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.SessionTTL == 0 {
		o.SessionTTL = sessionTTLDefault
	}
	if o.PollInterval == 0 {
		o.PollInterval = pollEvery
	}
	switch o.Admission {
	case "":
		o.Admission = AdmissionOpen
	case AdmissionOpen, AdmissionInvite, AdmissionAllowlist:
	default:
		return nil, errors.New("identity: unknown mode of admission")
	}
	if o.SessionTTL < sessionTTLMin {
		return nil, errors.New("identity: sessions must live at least a second")
	}
	a := &Authenticator{
		o:          o,
		keys:       newKeyCache(),
		penalties:  newPenalties(),
		looks:      make(lane, looksMax),
		signatures: make(lane, signaturesMax()),
		admitted:   newAdmittedAccounts(),
		replays:    prometheus.NewCounter(prometheus.CounterOpts{Name: "waxwing_auth_replays_total", Help: "Service tokens that were refused because they had been used."}),
		slideEvery: min(slideEveryMax, o.SessionTTL/10),
		attached:   map[[32]byte]*attachment{},
		revoked:    map[[32]byte]time.Time{},
		expelled:   map[ds.AccountID]time.Time{},
		ends:       make(chan struct{}, 1),

		sessionPenalties: newPenalties(),
	}
	if err := o.Store.Read(context.Background(), func(tx *store.Tx) (err error) {
		a.revokedUntil, err = tx.Sessions.LastRevocation()
		return err
	}); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	a.expelledNext = a.revokedUntil.Seq
	a.writer = newWriter(o.Store, a.apply)
	ctx, stop := context.WithCancel(context.Background())
	a.stop = stop
	a.running.Go(func() { a.every(ctx, a.slideEvery/2, a.slide) })
	a.running.Go(func() {
		_ = a.sweep(ctx) // also where servers are restarted more often than that; an error comes again
		a.every(ctx, sweepEvery, a.sweep)
	})
	if o.Store.IsShared() {
		a.running.Go(func() { a.every(ctx, o.PollInterval, a.pollRevoked) })
	}
	return a, nil
}

// Close ends the goroutines and waits for them. Running calls, and later ones that write, end
// as unavailable.
func (a *Authenticator) Close() {
	a.closing.Do(func() {
		a.stop()
		a.running.Wait()
		a.writer.close()
	})
}

// every calls do periodically until Close. A failure is retried the next time.
func (a *Authenticator) every(ctx context.Context, period time.Duration, do func(context.Context) error) {
	condition.New(a.o.Logger, "the upkeep of sessions", 0).Every(ctx, period, do)
}

// sweep deletes expired nonces and sessions, and documents that are too old for any use.
func (a *Authenticator) sweep(ctx context.Context) error {
	now := a.o.Now()
	before := now.Add(-forgetAfter).UnixMilli()
	sweeps := []func(tx *store.Tx) (int64, error){
		func(tx *store.Tx) (int64, error) { return tx.Sessions.DeleteNonces(before, sweepRows) },
		func(tx *store.Tx) (int64, error) { return tx.Sessions.Delete(before, sweepRows) },
		func(tx *store.Tx) (int64, error) {
			return tx.Sessions.ForgetPredecessors(now.UnixMilli(), currentBytes, sweepRows)
		},
		func(tx *store.Tx) (int64, error) {
			return tx.Documents.Delete(now.Add(-documentStaleMax).UnixMilli(), sweepRows)
		},
	}
	for _, sweep := range sweeps {
		for isMore := true; isMore; {
			deleted, err := store.Get(ctx, a.o.Store.Update, sweep)
			if err != nil {
				return err
			}
			isMore = deleted == sweepRows
		}
	}
	return nil
}

// verify checks a token of an account that came from address.
func (a *Authenticator) verify(ctx context.Context, token, lxm, address string) (verified, error) {
	return verifyToken(ctx, token, a.expect(lxm, false), &issuers{a: a, fragments: accountKeys, address: address, take: func() error {
		return a.take(limits.AddressStarts, address)
	}})
}
