package store

import (
	"waxwing.im/waxwing/internal/ds"
)

// AdmissionBatchMax bounds the admissions of one call.
const AdmissionBatchMax = 256

// Invite is a code with which accounts can be admitted. It contains only the SHA-256 of the
// code.
type Invite struct {
	ID        string // not secret
	CodeHash  [32]byte
	Note      string
	Uses      int64 // so far
	UsesMax   int64
	CreatedMS int64
	ExpiresMS int64 // 0: never
	RevokedMS int64 // 0: not revoked

	CreatedBy, RevokedBy string // operators; "" if unknown
}

// InsertInvite stores a new invite.
func (q Admission) InsertInvite(i Invite) error {
	_, err := q.tx.exec(`INSERT INTO invites (invite_id, code_hash, note, uses, uses_max, created_ms, expires_ms, created_by) VALUES ($1, $2, $3, 0, $4, $5, $6, $7)`,
		i.ID, i.CodeHash[:], i.Note, i.UsesMax, i.CreatedMS, zeroNull(i.ExpiresMS), i.CreatedBy)
	return err
}

const inviteColumns = `invite_id, code_hash, note, uses, uses_max, created_ms, COALESCE(expires_ms, 0), COALESCE(revoked_ms, 0), created_by, revoked_by`

func scanInvite(scan func(...any) error) (Invite, error) {
	var i Invite
	var hash []byte
	err := scan(&i.ID, &hash, &i.Note, &i.Uses, &i.UsesMax, &i.CreatedMS, &i.ExpiresMS, &i.RevokedMS, &i.CreatedBy, &i.RevokedBy)
	copy(i.CodeHash[:], hash)
	return i, err
}

// Invites lists at most max invites with ids after that one, by id.
func (q Admission) Invites(after string, max int) ([]Invite, error) {
	var list []Invite
	err := q.tx.each(func(scan func(...any) error) error {
		i, err := scanInvite(scan)
		list = append(list, i)
		return err
	}, `SELECT `+inviteColumns+` FROM invites WHERE invite_id > $1 ORDER BY invite_id LIMIT `+bound(2), after, int64(max))
	return list, err
}

// InviteByCode finds an invite, usable or not, or returns ErrNotFound.
func (q Admission) InviteByCode(hash [32]byte) (Invite, error) {
	i, err := scanInvite(q.tx.row(`SELECT `+inviteColumns+` FROM invites WHERE code_hash = $1`, hash[:]).Scan)
	return i, notFound(err)
}

// RevokeInvite ends an invite for an operator. It returns ErrNotFound if there is no unrevoked invite with that
// id.
func (q Admission) RevokeInvite(id, by string) error {
	n, err := q.tx.exec(`UPDATE invites SET revoked_ms = $1, revoked_by = $3 WHERE invite_id = $2 AND revoked_ms IS NULL`, q.tx.nowMS, id, by)
	if err == nil && n == 0 {
		err = ErrNotFound
	}
	return err
}

// UseInvite counts a use of the invite at nowMS and returns its id, or ErrNotFound if it is
// unknown, revoked, expired or used up. Of concurrent calls for the last use, on any node, one
// succeeds.
func (q Admission) UseInvite(hash [32]byte, nowMS int64) (string, error) {
	var id string
	err := q.tx.row(`
		UPDATE invites SET uses = uses + 1
		WHERE code_hash = $1 AND revoked_ms IS NULL AND uses < uses_max AND (expires_ms IS NULL OR expires_ms > $2)
		RETURNING invite_id`, hash[:], nowMS).Scan(&id)
	return id, notFound(err)
}

// Has reports whether an account has been admitted.
func (q Admission) Has(account ds.AccountID) (bool, error) {
	var is int64
	err := q.tx.row(`SELECT CASE WHEN EXISTS (SELECT 1 FROM accounts WHERE account = $1) THEN 1 ELSE 0 END`, string(account)).Scan(&is)
	return is == 1, err
}

// Admit admits at most AdmissionBatchMax distinct accounts, and returns those that were
// not admitted before. Of concurrent transactions for one account, on any node, one admits it;
// the others wait for its commit.
func (q Admission) Admit(accounts []ds.AccountID, nowMS int64) (map[ds.AccountID]bool, error) {
	admitted := make(map[ds.AccountID]bool, len(accounts))
	if len(accounts) == 0 {
		return admitted, nil
	}
	list := q.tx.table(2, len(accounts), "account text")
	for _, account := range accounts {
		list.add(string(account))
	}
	err := q.tx.each(func(scan func(...any) error) error {
		var account string
		if err := scan(&account); err != nil {
			return err
		}
		admitted[ds.AccountID(account)] = true
		return nil
	}, `INSERT INTO accounts (account, admitted_ms) SELECT account, CAST($1 AS BIGINT) FROM `+list.from+` WHERE true
		ON CONFLICT (account) DO NOTHING RETURNING account`, list.args(nowMS)...)
	return admitted, err
}

// SetInvite records the invite with which this transaction admitted an account.
func (q Admission) SetInvite(account ds.AccountID, invite string) error {
	_, err := q.tx.exec(`UPDATE accounts SET invite_id = $1 WHERE account = $2`, invite, string(account))
	return err
}

// Hold returns the admitted ones of accounts, and keeps them admitted until the
// transaction ends.
func (q Admission) Hold(accounts []ds.AccountID) (map[ds.AccountID]bool, error) {
	admitted := make(map[ds.AccountID]bool, len(accounts))
	if len(accounts) == 0 {
		return admitted, nil
	}
	lock := "" // SQLite has one writer
	if q.tx.dialect.name == "postgres" {
		lock = " FOR KEY SHARE"
	}
	err := q.tx.each(func(scan func(...any) error) error {
		var account string
		err := scan(&account)
		admitted[ds.AccountID(account)] = true
		return err
	}, `SELECT account FROM accounts WHERE account `+q.tx.in(1)+lock, q.tx.setOf(texts(accounts)))
	return admitted, err
}

// Forget deletes an admission and the stored document of the account's DID, and returns
// ErrNotFound if there is none.
func (q Admission) Forget(account ds.AccountID) error {
	if _, err := q.tx.exec(`DELETE FROM did_documents WHERE did = $1`, string(account)); err != nil {
		return err
	}
	n, err := q.tx.exec(`DELETE FROM accounts WHERE account = $1`, string(account))
	if err == nil && n == 0 {
		err = ErrNotFound
	}
	return err
}

// AllowedAccount is an entry of the allowlist.
type AllowedAccount struct {
	Account   ds.AccountID
	CreatedMS int64
	CreatedBy string // an operator; "" if unknown
}

// Allow adds an account to the allowlist for an operator, if it is not on it already.
func (q Admission) Allow(account ds.AccountID, by string) error {
	_, err := q.tx.exec(`INSERT INTO allowed_accounts (account, created_ms, created_by) VALUES ($1, $2, $3) ON CONFLICT (account) DO NOTHING`,
		string(account), q.tx.nowMS, by)
	return err
}

// Disallow removes an account from the allowlist, or returns ErrNotFound.
func (q Admission) Disallow(account ds.AccountID) error {
	n, err := q.tx.exec(`DELETE FROM allowed_accounts WHERE account = $1`, string(account))
	if err == nil && n == 0 {
		err = ErrNotFound
	}
	return err
}

// Allowed lists at most max entries of the allowlist after that account, by account.
func (q Admission) Allowed(after ds.AccountID, max int) ([]AllowedAccount, error) {
	var list []AllowedAccount
	err := q.tx.each(func(scan func(...any) error) error {
		var a AllowedAccount
		err := scan((*string)(&a.Account), &a.CreatedMS, &a.CreatedBy)
		list = append(list, a)
		return err
	}, `SELECT account, created_ms, created_by FROM allowed_accounts WHERE account > $1 ORDER BY account LIMIT `+bound(2), string(after), int64(max))
	return list, err
}

// IsAllowed reports whether an account is on the allowlist.
func (q Admission) IsAllowed(account ds.AccountID) (bool, error) {
	var is int64
	err := q.tx.row(`SELECT CASE WHEN EXISTS (SELECT 1 FROM allowed_accounts WHERE account = $1) THEN 1 ELSE 0 END`, string(account)).Scan(&is)
	return is == 1, err
}

// zeroNull stores 0 as NULL.
func zeroNull(n int64) any {
	if n == 0 {
		return nil
	}
	return n
}
