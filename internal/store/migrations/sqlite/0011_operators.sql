-- Which operator it was, as local:UID; '' for what is older.
ALTER TABLE invites ADD COLUMN created_by TEXT NOT NULL DEFAULT '';
ALTER TABLE invites ADD COLUMN revoked_by TEXT NOT NULL DEFAULT '';
ALTER TABLE allowed_accounts ADD COLUMN created_by TEXT NOT NULL DEFAULT '';

-- Accounts that are refused until an operator admits them again. A node of an earlier version
-- takes them for new ones.
CREATE TABLE expelled_accounts (
    account        TEXT PRIMARY KEY,
    expelled_ms    INTEGER NOT NULL,
    expelled_by    TEXT NOT NULL,
    revoked_seq    INTEGER NOT NULL, -- as that of sessions: what other nodes look for
    finished_ms    INTEGER -- NULL while it is a member somewhere, or may have key packages
) STRICT, WITHOUT ROWID;
CREATE INDEX expelled_accounts_seq ON expelled_accounts (revoked_seq);
CREATE INDEX expelled_accounts_open ON expelled_accounts (account) WHERE finished_ms IS NULL;
