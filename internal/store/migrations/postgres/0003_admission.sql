-- Who may use this service. A row of accounts is written at the first contact,
-- whatever the mode of admission, and stays: later modes do not shut it out.
CREATE TABLE accounts (
    account        TEXT COLLATE "C" PRIMARY KEY,
    admitted_ms    BIGINT NOT NULL,
    invite_id      TEXT COLLATE "C" -- NULL: without one
);

CREATE TABLE invites (
    invite_id      TEXT COLLATE "C" PRIMARY KEY,
    code_hash      BYTEA NOT NULL UNIQUE,
    note           TEXT NOT NULL,
    uses           BIGINT NOT NULL,
    uses_max       BIGINT NOT NULL,
    created_ms     BIGINT NOT NULL,
    expires_ms     BIGINT, -- NULL: never
    revoked_ms     BIGINT
);

CREATE TABLE allowed_accounts (
    account        TEXT COLLATE "C" PRIMARY KEY,
    created_ms     BIGINT NOT NULL
);

-- Those who have been here before there was admission.
INSERT INTO accounts (account, admitted_ms)
    SELECT DISTINCT account, 0 FROM sessions UNION SELECT account, 0 FROM key_packages UNION SELECT account, 0 FROM cursors;
