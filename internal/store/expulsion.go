package store

import "waxwing.im/waxwing/internal/ds"

// Expulsion is an account that is refused until it is admitted again. Seq is the number of its
// transaction among those that revoke sessions.
type Expulsion struct {
	Account    ds.AccountID
	Seq        int64
	ExpelledMS int64
}

// Expel refuses an account from now on, for an operator: it is neither admitted nor on the
// allowlist. An account that is expelled already is to be removed from conversations again. The
// caller has called LockRevocations. Of concurrent transactions that admit the account, those
// that commit before are undone, and later ones find it expelled by Expelled.
func (q Admission) Expel(account ds.AccountID, by string) error {
	for _, sql := range []string{
		// It waits for a transaction that inserts the same row.
		`INSERT INTO accounts (account, admitted_ms) VALUES ($1, 0) ON CONFLICT (account) DO NOTHING`,
		`DELETE FROM accounts WHERE account = $1`,
		`DELETE FROM allowed_accounts WHERE account = $1`,
		`DELETE FROM did_documents WHERE did = $1`,
	} {
		if _, err := q.tx.exec(sql, string(account)); err != nil {
			return err
		}
	}
	_, err := q.tx.exec(`INSERT INTO expelled_accounts (account, expelled_ms, expelled_by, revoked_seq) VALUES ($1, $2, $3, $4)
		ON CONFLICT (account) DO UPDATE SET finished_ms = NULL, revoked_seq = excluded.revoked_seq`, string(account), q.tx.nowMS, by, q.tx.revocation)
	return err
}

// Readmit ends an expulsion, if there is one: the account is treated as a new one.
func (q Admission) Readmit(account ds.AccountID) error {
	_, err := q.tx.exec(`DELETE FROM expelled_accounts WHERE account = $1`, string(account))
	return err
}

// Expelled returns those of the accounts that are expelled.
func (q Admission) Expelled(accounts []ds.AccountID) (map[ds.AccountID]bool, error) {
	expelled := map[ds.AccountID]bool{}
	if len(accounts) == 0 {
		return expelled, nil
	}
	err := q.tx.each(func(scan func(...any) error) error {
		var account string
		err := scan(&account)
		expelled[ds.AccountID(account)] = true
		return err
	}, `SELECT account FROM expelled_accounts WHERE account `+q.tx.in(1), q.tx.setOf(texts(accounts)))
	return expelled, err
}

// ExpelledSince lists at most max expulsions with numbers from seq on, by number.
func (q Admission) ExpelledSince(seq int64, max int) ([]Expulsion, error) {
	return q.expulsions(`revoked_seq >= $1 ORDER BY revoked_seq, account LIMIT `+bound(2), seq, int64(max))
}

// Unfinished lists at most max accounts after that one that are to be removed from
// conversations, by account.
func (q Admission) Unfinished(after ds.AccountID, max int) ([]Expulsion, error) {
	return q.expulsions(`finished_ms IS NULL AND account > $1 ORDER BY account LIMIT `+bound(2), string(after), int64(max))
}

func (q Admission) expulsions(where string, args ...any) ([]Expulsion, error) {
	var list []Expulsion
	err := q.tx.each(func(scan func(...any) error) error {
		var e Expulsion
		err := scan((*string)(&e.Account), &e.Seq, &e.ExpelledMS)
		list = append(list, e)
		return err
	}, `SELECT account, revoked_seq, expelled_ms FROM expelled_accounts WHERE `+where, args...)
	return list, err
}

// FinishExpulsion records that an account was removed everywhere.
func (q Admission) FinishExpulsion(account ds.AccountID) error {
	_, err := q.tx.exec(`UPDATE expelled_accounts SET finished_ms = $1 WHERE account = $2 AND finished_ms IS NULL`, q.tx.nowMS, string(account))
	return err
}

// RevokeSome deletes at most max unclaimed packages of an account, and returns how many.
func (q Packages) RevokeSome(account ds.AccountID, max int) (int64, error) {
	return q.tx.exec(`DELETE FROM key_packages WHERE key_package_id IN (
		SELECT key_package_id FROM key_packages WHERE account = $1 AND claimed_ms IS NULL LIMIT `+bound(2)+`)`, string(account), int64(max))
}
