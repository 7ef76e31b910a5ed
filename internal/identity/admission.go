package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"slices"
	"strings"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
)

// Admission is the rule for accounts that begin to use the service. An admitted account stays
// admitted, whatever the mode later is, until an operator expels it.
type Admission string

// The modes.
const (
	AdmissionOpen      Admission = "open"      // any account that can prove a DID
	AdmissionInvite    Admission = "invite"    // accounts with a code or on the allowlist
	AdmissionAllowlist Admission = "allowlist" // accounts on the allowlist
)

// InviteCodeBytesMax bounds a code that a client presents.
const InviteCodeBytesMax = 64

// Clients recognise what is missing by these messages.
var (
	refuseInviteRequired = ds.Refuse(ds.Forbidden, "invite required").Because(ds.InviteRequired)
	refuseInvalidInvite  = ds.Refuse(ds.Forbidden, "invalid invite").Because(ds.InvalidInvite)
	refuseExpelled       = ds.Refuse(ds.Forbidden, "expelled by the operator of the service").Because(ds.Expelled)
	refuseNotAllowed     = ds.Refuse(ds.Forbidden, "not on the allowlist").Because(ds.NotOnAllowlist)
)

// admission holds what the first contact of an account writes.
type admission struct {
	account ds.AccountID
	invite  *[32]byte // to be used; nil: none is needed
}

// admittedBytesMax bounds the memory of admitted accounts.
const admittedBytesMax = 32 << 20

// admittedFor is the time for which an account is believed to be admitted. Expulsions by other
// processes are found sooner, by pollRevoked, while the database answers.
const admittedFor = 10 * time.Second

// admittedAccounts remembers accounts that were admitted at the last lookup.
type admittedAccounts struct{ memory[time.Time] }

func newAdmittedAccounts() *admittedAccounts {
	return &admittedAccounts{memory[time.Time]{bytesMax: admittedBytesMax}}
}

func (s *admittedAccounts) has(account ds.AccountID, now time.Time) bool {
	seen, ok := s.get(string(account))
	return ok && now.Sub(seen) < admittedFor
}

// isRemembered reports whether an account was admitted at the last lookup, however long ago.
func (s *admittedAccounts) isRemembered(account ds.AccountID) bool {
	_, ok := s.get(string(account))
	return ok
}

func (s *admittedAccounts) drop(account ds.AccountID) { s.remove(string(account)) }

func (s *admittedAccounts) add(account ds.AccountID, now time.Time) {
	s.put(strings.Clone(string(account)), now)
}

// admission decides whether a verified account may continue. It returns nil for one that is
// admitted, the data to write for one that is to be admitted, or a refusal, after which a token is
// not used up. A code is checked here and used when that data is written.
func (a *Authenticator) admission(ctx context.Context, account ds.AccountID, code, address string) (*admission, error) {
	seen := a.o.Now()
	if a.admitted.has(account, seen) {
		return nil, nil
	}
	var isAdmitted, isExpelled, isAllowed, isUsable, isReferenced bool
	hash := sha256.Sum256([]byte(code))
	now := seen.UnixMilli()
	err := a.o.Store.View(ctx, func(tx *store.Tx) (err error) {
		if isAdmitted, err = tx.Admission.Has(account); err != nil || isAdmitted {
			return err
		}
		expelled, err := tx.Admission.Expelled([]ds.AccountID{account})
		if isExpelled = expelled[account]; err != nil || isExpelled {
			return err
		}
		if isReferenced, err = tx.Sessions.HasAccount(account); err != nil || a.o.Admission == AdmissionOpen {
			return err
		}
		if isAllowed, err = tx.Admission.IsAllowed(account); err != nil || isAllowed || code == "" {
			return err
		}
		invite, err := tx.Admission.InviteByCode(hash)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		isUsable = err == nil && isUsableInvite(invite, now)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case isAdmitted:
		a.believe(account, seen)
		return nil, nil
	case isExpelled:
		return nil, refuseExpelled
	}
	// New DIDs cost nothing, so unknown accounts are counted for their address. Accounts that
	// others here know or have invited are not blocked by that.
	if !isReferenced && !isAllowed && !isUsable {
		if err := a.take(limits.FirstContacts, address); err != nil {
			return nil, err
		}
	}
	switch {
	case a.o.Admission == AdmissionOpen || isAllowed:
		return &admission{account: account}, nil
	case a.o.Admission != AdmissionInvite:
		return nil, refuseNotAllowed
	case code == "":
		return nil, refuseInviteRequired
	case !isUsable:
		return nil, refuseInvalidInvite
	}
	return &admission{account, &hash}, nil
}

func isUsableInvite(i store.Invite, nowMS int64) bool {
	return i.RevokedMS == 0 && i.Uses < i.UsesMax && (i.ExpiresMS == 0 || i.ExpiresMS > nowMS)
}

// applyAdmissions writes the data of first contacts. If the invite of one was used up
// meanwhile, it ends with a refusal.
func (a *Authenticator) applyAdmissions(tx *store.Tx, jobs []*job) error {
	nowMS := a.o.Now().UnixMilli()
	var free []ds.AccountID
	for _, j := range jobs {
		if j.admit.invite == nil {
			free = append(free, j.admit.account)
		}
	}
	slices.Sort(free) // all nodes use one order
	if _, err := tx.Admission.Admit(slices.Compact(free), nowMS); err != nil {
		return err
	}
	accounts := make([]ds.AccountID, len(jobs))
	for i, j := range jobs {
		accounts[i] = j.admit.account
	}
	for _, j := range jobs {
		if j.admit.invite == nil {
			continue
		}
		isNew, err := tx.Admission.Admit([]ds.AccountID{j.admit.account}, nowMS)
		if err != nil {
			return err
		}
		if !isNew[j.admit.account] {
			continue // it was admitted in another way meanwhile, and the code stays unused
		}
		id, err := tx.Admission.UseInvite(*j.admit.invite, nowMS)
		switch {
		case errors.Is(err, store.ErrNotFound):
			j.err = refuseInvalidInvite
			err = tx.Admission.Forget(j.admit.account)
		case err == nil:
			err = tx.Admission.SetInvite(j.admit.account, id)
		}
		if err != nil {
			return err
		}
	}
	// An account that was expelled since it was looked up is found now: Admit has waited for that.
	expelled, err := tx.Admission.Expelled(accounts)
	for _, j := range jobs {
		if err != nil || !expelled[j.admit.account] {
			continue
		}
		j.err = refuseExpelled
		if err = tx.Admission.Forget(j.admit.account); errors.Is(err, store.ErrNotFound) {
			err = nil // several jobs are for it
		}
	}
	return err
}

// errExpelled is the error of a start if the account was expelled after it had been looked up.
var errExpelled = errors.New("the account was expelled")

// checkStarts checks again the accounts that begin a session because they were admitted before:
// one that is expelled at the same time either does not begin it, or has it ended.
func (a *Authenticator) checkStarts(tx *store.Tx, batch []*job) error {
	var accounts []ds.AccountID
	wasAdmitted := func(j *job) bool { return j.start != nil && j.err == nil && j.admit == nil }
	for _, j := range batch {
		if wasAdmitted(j) {
			accounts = append(accounts, j.start.Device.Account)
		}
	}
	admitted, err := tx.Admission.Hold(accounts)
	if err != nil {
		return err
	}
	for _, j := range batch {
		if wasAdmitted(j) && !admitted[j.start.Device.Account] {
			j.err = errExpelled
		}
	}
	return nil
}

// Admissions manages invites and the allowlist, for operators. It works beside a running server
// on the same store, and without one.
type Admissions struct {
	Store *store.DB
	Now   func() time.Time // nil: the system clock
	// Running is notified at once of expelled accounts; nil if there is none in this process.
	// Authenticators in other processes learn of them from the store.
	Running *Authenticator
	By      string // the operator, as local:UID
}

func (s Admissions) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}

// RefusalMessage returns the message of a refusal in err; ok is false if err is not a refusal.
func RefusalMessage(err error) (message string, ok bool) {
	var refusal *ds.Refusal
	if !errors.As(err, &refusal) {
		return "", false
	}
	return refusal.Message, true
}

// Bounds of invites.
const (
	inviteUsesMax      = 1_000_000
	inviteNoteBytesMax = 200
	inviteLifeMax      = 10 * 365 * 24 * time.Hour
	invitesPage        = 1000
)

// Invite is an invite as operators see it. Times are in milliseconds, 0 for never.
type Invite struct {
	ID        string `json:"id"`
	Code      string `json:"code,omitempty"` // only in the answer to its creation: it is not stored
	Note      string `json:"note,omitempty"`
	Uses      int64  `json:"uses"`
	UsesMax   int64  `json:"uses_max"`
	CreatedMS int64  `json:"created_ms"`
	ExpiresMS int64  `json:"expires_ms,omitempty"`
	RevokedMS int64  `json:"revoked_ms,omitempty"`
	CreatedBy string `json:"created_by,omitempty"` // an operator
	RevokedBy string `json:"revoked_by,omitempty"`
}

const (
	inviteCodePrefix = "wxi_"
	inviteIDPrefix   = "inv_"
)

// inviteEncoding is for codes that people read aloud: no letter looks like a digit.
var inviteEncoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// CreateInvite creates a code for uses accounts, which expires after life, 0 for never.
func (s Admissions) CreateInvite(ctx context.Context, uses int64, life time.Duration, note string) (Invite, error) {
	switch {
	case uses < 1 || uses > inviteUsesMax:
		return Invite{}, ds.Refuse(ds.InvalidRequest, "uses: want 1 to %d", inviteUsesMax)
	case life < 0 || life > inviteLifeMax:
		return Invite{}, ds.Refuse(ds.InvalidRequest, "expires: want up to %s", inviteLifeMax)
	case len(note) > inviteNoteBytesMax || note != "" && !ds.IsValidAccount(note) || strings.ContainsAny(note, "\r\n\t"):
		return Invite{}, ds.Refuse(ds.InvalidRequest, "note: want one line of at most %d bytes", inviteNoteBytesMax)
	}
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails (crypto/rand)
	code := inviteCodePrefix + inviteEncoding.EncodeToString(random[:])
	hash := sha256.Sum256([]byte(code))
	row := store.Invite{ID: inviteID(hash), CodeHash: hash, Note: note, UsesMax: uses, CreatedMS: s.now().UnixMilli(), CreatedBy: s.By}
	if life > 0 {
		row.ExpiresMS = s.now().Add(life).UnixMilli()
	}
	if err := s.Store.Update(ctx, func(tx *store.Tx) error { return tx.Admission.InsertInvite(row) }); err != nil {
		return Invite{}, err
	}
	invite := asInvite(row)
	invite.Code = code
	return invite, nil
}

// inviteID derives an invite's id from 60 bits of the hash of its code.
func inviteID(hash [32]byte) string {
	return inviteIDPrefix + inviteEncoding.EncodeToString(hash[:])[:12]
}

func asInvite(i store.Invite) Invite {
	return Invite{ID: i.ID, Note: i.Note, Uses: i.Uses, UsesMax: i.UsesMax, CreatedMS: i.CreatedMS, ExpiresMS: i.ExpiresMS, RevokedMS: i.RevokedMS,
		CreatedBy: i.CreatedBy, RevokedBy: i.RevokedBy}
}

// Invites lists all invites, including ended ones.
func (s Admissions) Invites(ctx context.Context) ([]Invite, error) {
	all := []Invite{}
	for {
		after := ""
		if len(all) > 0 {
			after = all[len(all)-1].ID
		}
		page, err := store.Get(ctx, s.Store.View, func(tx *store.Tx) ([]store.Invite, error) {
			return tx.Admission.Invites(after, invitesPage)
		})
		if err != nil {
			return nil, err
		}
		for _, row := range page {
			all = append(all, asInvite(row))
		}
		if len(page) < invitesPage {
			slices.SortStableFunc(all, func(a, b Invite) int { return int(min(1, max(-1, a.CreatedMS-b.CreatedMS))) })
			return all, nil
		}
	}
}

// RevokeInvite ends an invite, named by its id or its code. Accounts admitted with it stay
// admitted.
func (s Admissions) RevokeInvite(ctx context.Context, idOrCode string) error {
	id := idOrCode
	if strings.HasPrefix(idOrCode, inviteCodePrefix) {
		id = inviteID(sha256.Sum256([]byte(idOrCode)))
	}
	err := s.Store.Update(ctx, func(tx *store.Tx) error { return tx.Admission.RevokeInvite(id, s.By) })
	if errors.Is(err, store.ErrNotFound) {
		return ds.Refuse(ds.NotFound, "no such invite, or it is revoked already")
	}
	return err
}

// Allow adds an account to the allowlist, and ends its expulsion.
func (s Admissions) Allow(ctx context.Context, account string) error {
	if err := checkAccountDID(account); err != nil {
		return err
	}
	return s.Store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.Admission.Readmit(ds.AccountID(account)); err != nil {
			return err
		}
		return tx.Admission.Allow(ds.AccountID(account), s.By)
	})
}

// Disallow removes an account from the allowlist. An account that is already admitted stays
// admitted.
func (s Admissions) Disallow(ctx context.Context, account string) error {
	err := s.Store.Update(ctx, func(tx *store.Tx) error { return tx.Admission.Disallow(ds.AccountID(account)) })
	if errors.Is(err, store.ErrNotFound) {
		return ds.Refuse(ds.NotFound, "not on the allowlist")
	}
	return err
}

// Expel refuses an account until Allow: it is neither admitted nor on the allowlist, no invite
// admits it, and its sessions, subscriptions and tokens end, at once in Running and within the
// PollInterval of other processes. Its memberships and key packages are core's to end.
func (s Admissions) Expel(ctx context.Context, account string) error {
	who := ds.AccountID(account)
	var hashes [][32]byte
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		hashes = nil
		if err := tx.Sessions.LockRevocations(); err != nil {
			return err
		}
		if isKnown, err := isKnownAccount(tx, who); err != nil {
			return err
		} else if !isKnown {
			return ds.Refuse(ds.NotFound, "no such account: it was never here, nor is it on the allowlist")
		}
		if err := tx.Admission.Expel(who, s.By); err != nil {
			return err
		}
		rows, err := tx.Sessions.Revoke(who, "", "", nil, s.now().UnixMilli())
		for _, row := range rows {
			hashes = append(hashes, [32]byte(row.Hash))
		}
		return err
	})
	if err == nil && s.Running != nil {
		s.Running.expel(who)
		s.Running.end(hashes)
	}
	return err
}

// isKnownAccount reports whether an account has been admitted, allowed, expelled or named here.
func isKnownAccount(tx *store.Tx, account ds.AccountID) (bool, error) {
	_, err := tx.Admission.Get(account)
	if !errors.Is(err, store.ErrNotFound) {
		return err == nil, err
	}
	is, err := tx.Admission.IsAllowed(account)
	if err != nil || is {
		return is, err
	}
	return tx.Sessions.HasAccount(account)
}

// AllowedAccount is an entry of the allowlist as operators see it.
type AllowedAccount struct {
	Account   string `json:"account"`
	CreatedMS int64  `json:"created_ms"`
	CreatedBy string `json:"created_by,omitempty"` // an operator
}

// Allowed returns the allowlist, by account.
func (s Admissions) Allowed(ctx context.Context) ([]AllowedAccount, error) {
	all := []AllowedAccount{}
	for {
		after := ds.AccountID("")
		if len(all) > 0 {
			after = ds.AccountID(all[len(all)-1].Account)
		}
		page, err := store.Get(ctx, s.Store.View, func(tx *store.Tx) ([]store.AllowedAccount, error) {
			return tx.Admission.Allowed(after, invitesPage)
		})
		if err != nil {
			return nil, err
		}
		for _, row := range page {
			all = append(all, AllowedAccount{string(row.Account), row.CreatedMS, row.CreatedBy})
		}
		if len(page) < invitesPage {
			return all, nil
		}
	}
}

// checkAccountDID returns an error for a DID that no account can have: such an entry would be a
// mistake that has no visible effect.
func checkAccountDID(did string) error {
	if strings.HasPrefix(did, didKeyPrefix) {
		if _, err := parseDIDKey(did); err != nil {
			return ds.Refuse(ds.InvalidRequest, "account: not a did:key of a supported kind")
		}
		return nil
	}
	if _, err := locate(did, PLCDirectory, true); err != nil {
		return ds.Refuse(ds.InvalidRequest, "account: not a did:key, did:plc or did:web")
	}
	return nil
}
