package identity

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"slices"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
)

// SessionStartMethod is the lxm of a token that starts a session.
const SessionStartMethod = "im.waxwing.session.start"

// Session is a live session of a verified device.
type Session struct {
	ds.Caller
	ID        string   // sid_…, not secret
	Features  []string // granted, sorted
	ExpiresMS int64    // expiry unless it is used

	ClientLabel           string
	CreatedMS, LastSeenMS int64

	hash [32]byte
}

// Has reports whether the session was granted the feature.
func (s Session) Has(feature string) bool { return slices.Contains(s.Features, feature) }

// Ready is the answer to a start or a resume.
type Ready struct {
	Session
	SessionToken, ResumeToken string
	FromResume                bool
}

// Start is a request to start a session.
type Start struct {
	Token       string // a service token for SessionStartMethod
	Device      ds.DeviceID
	ClientLabel string
	Features    []string // to be granted, sorted
	// InviteCode admits a new account if the mode requires it; "" is none.
	InviteCode string
	// Address is the key of limits per address; "" is not counted.
	Address string
	// Admit is called with the account after its verification and before the token is used up;
	// its refusal is the answer. nil admits every account.
	Admit func(ctx context.Context, account ds.AccountID) error
}

// StartSession exchanges a service token for a session, whose other values its caller has
// checked. Token and session are written together, so that a certain fault does not use the
// token up. A refusal because of the token is ds.Unauthorized.
func (a *Authenticator) StartSession(ctx context.Context, start Start) (Ready, error) {
	now := a.o.Now()
	v, err := a.verify(ctx, start.Token, SessionStartMethod, start.Address)
	if err != nil {
		a.chargeSigned(err, start.Address)
		return Ready{}, a.refuse(ctx, err)
	}
	if start.Admit != nil {
		if err := start.Admit(ctx, v.issuer); err != nil {
			a.waitOut(err, start.Address, v.issuer)
			return Ready{}, err
		}
	}
	admit, err := a.admission(ctx, v.issuer, start.InviteCode, start.Address)
	if err != nil {
		return Ready{}, err
	}
	session, resume := newSecret(), newSecret()
	hash, resumeHash := session.hash(sessionPrefix), resume.hash(resumePrefix)
	sealed, err := sealFor(resume, hash[:], session)
	if err != nil {
		return Ready{}, err
	}
	row := store.Session{
		Hash:         hash[:],
		ID:           sessionID(hash),
		Device:       ds.Device{Account: v.issuer, ID: start.Device},
		Label:        start.ClientLabel,
		Features:     start.Features,
		CreatedMS:    now.UnixMilli(),
		LastSeenMS:   now.UnixMilli(),
		ExpiresMS:    now.Add(a.o.SessionTTL).UnixMilli(),
		ResumeHash:   resumeHash[:],
		ResumeSealed: sealed,
	}
	if err := a.writer.do(ctx, &job{nonce: &v.nonce, admit: admit, start: &row}); err != nil {
		if errors.Is(err, errExpelled) {
			a.admitted.drop(v.issuer)
			_, refused := a.admission(ctx, v.issuer, start.InviteCode, "")
			return Ready{}, cmp.Or(refused, ds.Unavailable(err)) // the client may return with another token
		}
		if errors.Is(err, errReplayed) {
			a.chargeSigned(&signedRefusal{v.issuer, err}, start.Address)
		}
		return Ready{}, a.refuse(ctx, err)
	}
	a.chargeAccepted(v.issuer)
	a.welcome(v.issuer, admit)
	return Ready{Session: asSession(row), SessionToken: session.text(sessionPrefix), ResumeToken: resume.text(resumePrefix)}, nil
}

func sessionID(hash [32]byte) string {
	return "sid_" + base64.RawURLEncoding.EncodeToString(hash[:16])
}

func asSession(row store.Session) Session {
	return Session{
		Caller:      ds.Caller{Account: row.Device.Account, Device: row.Device.ID},
		ID:          row.ID,
		Features:    row.Features,
		ExpiresMS:   row.ExpiresMS,
		ClientLabel: row.Label,
		CreatedMS:   row.CreatedMS,
		LastSeenMS:  row.LastSeenMS,
		hash:        [32]byte(row.Hash),
	}
}

// Session returns the live session of a token, or refuses with ds.Unauthorized "invalid
// session_token". It does not slide the expiry.
func (a *Authenticator) Session(ctx context.Context, sessionToken string) (Session, error) {
	refused := ds.Refuse(ds.Unauthorized, "invalid session_token")
	s, ok := parseSecret(sessionPrefix, sessionToken)
	if !ok {
		return Session{}, refused
	}
	hash := s.hash(sessionPrefix)
	row, err := store.Get(ctx, a.o.Store.Read, func(tx *store.Tx) (store.Session, error) { return tx.Sessions.Get(hash[:]) })
	if errors.Is(err, store.ErrNotFound) {
		return Session{}, refused
	}
	if err != nil {
		return Session{}, err
	}
	now := a.o.Now()
	if !a.isAlive(row, now.UnixMilli()) {
		return Session{}, refused
	}
	if now.UnixMilli()-row.LastSeenMS >= seenEvery.Milliseconds() {
		a.writer.later(func(tx *store.Tx) error { return tx.Sessions.See(hash[:], now.UnixMilli()) })
	}
	return asSession(row), nil
}

// SessionFrom does the work of Session for a caller at an address: each lookup costs a query,
// so for an address that sent too many unknown tokens few are looked up at a time, and the
// others are refused with ds.RateLimited. Sessions attached here are found without a turn.
// Lookups under "" are not counted.
func (a *Authenticator) SessionFrom(ctx context.Context, sessionToken, address string) (Session, error) {
	penalty := a.sessionPenalties.check(address, a.o.Now())
	if penalty != nil {
		token, ok := parseSecret(sessionPrefix, sessionToken)
		if !ok {
			return Session{}, penalty
		}
		if !a.isAttached(token.hash(sessionPrefix)) {
			leave, err := a.looks.enter(ctx)
			if err != nil {
				return Session{}, penalty
			}
			defer leave()
		}
	}
	s, err := a.Session(ctx, sessionToken)
	if ds.CodeOf(err) != ds.Unauthorized {
		return s, err
	}
	if penalty != nil {
		return Session{}, penalty
	}
	var limit *ds.Refusal
	if errors.As(a.take(limits.AddressSessions, address), &limit) {
		a.sessionPenalties.put(address, a.o.Now().Add(limit.RetryAfter))
	}
	return s, err
}

// isAlive reports whether a session that is not revoked has not expired: an attached session
// does not expire, even if its expiry could not be written.
func (a *Authenticator) isAlive(row store.Session, nowMS int64) bool {
	return row.ExpiresMS > nowMS || a.isAttached([32]byte(row.Hash))
}
