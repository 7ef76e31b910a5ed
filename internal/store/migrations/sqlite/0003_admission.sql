-- Who may use this service. A row of accounts is written at the first contact,
-- whatever the mode of admission, and stays: later modes do not shut it out.
CREATE TABLE accounts (
    account        TEXT PRIMARY KEY,
    admitted_ms    INTEGER NOT NULL,
    invite_id      TEXT -- NULL: without one
) STRICT, WITHOUT ROWID;

CREATE TABLE invites (
    invite_id      TEXT PRIMARY KEY,
    code_hash      BLOB NOT NULL UNIQUE,
    note           TEXT NOT NULL,
    uses           INTEGER NOT NULL,
    uses_max       INTEGER NOT NULL,
    created_ms     INTEGER NOT NULL,
    expires_ms     INTEGER, -- NULL: never
    revoked_ms     INTEGER
) STRICT;

CREATE TABLE allowed_accounts (
    account        TEXT PRIMARY KEY,
    created_ms     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Those who have been here before there was admission.
INSERT INTO accounts (account, admitted_ms)
    SELECT DISTINCT account, 0 FROM sessions UNION SELECT account, 0 FROM key_packages UNION SELECT account, 0 FROM cursors;
