-- One log, many cursors: conversation logs ("c/…") and account logs ("a/…") stand in
-- the same two tables. A row of logs is the head that every append locks, so it is
-- narrow, and no index covers a column that an append changes.
CREATE TABLE logs (
    log_id         TEXT PRIMARY KEY,
    pos            INTEGER NOT NULL,
    seq            INTEGER NOT NULL,
    hash           BLOB,
    term           INTEGER NOT NULL,
    home           TEXT, -- NULL: this service
    group_id       BLOB UNIQUE, -- NULL until bound
    generation     INTEGER NOT NULL DEFAULT 0,
    epoch          INTEGER NOT NULL DEFAULT 0,
    members        INTEGER NOT NULL DEFAULT 0,
    record_senders INTEGER NOT NULL DEFAULT 0,
    refuse_opaque  INTEGER NOT NULL DEFAULT 0,
    committer_account TEXT, -- until the next commit only
    committer_device  TEXT,
    earliest_seq   INTEGER NOT NULL DEFAULT 1, -- low-water mark of retained messages
    created_ms     INTEGER NOT NULL,
    latest_ms      INTEGER NOT NULL DEFAULT 0,
    frozen_ms      INTEGER
) STRICT;

CREATE TABLE records (
    log_id         TEXT NOT NULL,
    pos            INTEGER NOT NULL,
    seq            INTEGER, -- NULL: a control record or device event
    kind           INTEGER NOT NULL,
    generation     INTEGER NOT NULL,
    epoch          INTEGER NOT NULL, -- the resulting one
    term           INTEGER NOT NULL,
    message_id     TEXT,
    created_ms     INTEGER NOT NULL,
    hash           BLOB,
    sender_account TEXT,
    sender_device  TEXT,
    recipient      TEXT, -- account logs: the only device that may see it
    encoding       INTEGER NOT NULL,
    body           BLOB NOT NULL,
    PRIMARY KEY (log_id, pos)
) STRICT;
CREATE UNIQUE INDEX records_seq ON records (log_id, seq) WHERE seq IS NOT NULL;

-- What a message id answers, kept apart from the body and longer than it.
CREATE TABLE message_ids (
    log_id         TEXT NOT NULL,
    message_id     TEXT NOT NULL,
    pos            INTEGER NOT NULL,
    seq            INTEGER NOT NULL,
    kind           INTEGER NOT NULL,
    epoch          INTEGER NOT NULL,
    created_ms     INTEGER NOT NULL,
    PRIMARY KEY (log_id, message_id)
) STRICT, WITHOUT ROWID;

-- A stay of an account in a conversation, from the record that began it through
-- the one that ended it.
CREATE TABLE intervals (
    log_id         TEXT NOT NULL,
    account        TEXT NOT NULL,
    from_pos       INTEGER NOT NULL,
    until_pos      INTEGER, -- NULL: a member now
    role           TEXT NOT NULL,
    PRIMARY KEY (log_id, account, from_pos)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX intervals_now ON intervals (log_id, account) WHERE until_pos IS NULL;
CREATE INDEX intervals_account ON intervals (account, log_id) WHERE until_pos IS NULL;

-- The wide and seldom read side of a conversation.
CREATE TABLE conversation_details (
    log_id         TEXT PRIMARY KEY,
    title          TEXT NOT NULL DEFAULT '',
    group_info     BLOB,
    group_info_pos INTEGER NOT NULL DEFAULT 0
) STRICT;

-- A Welcome is stored once; the events that announce it stand in account logs.
CREATE TABLE welcomes (
    welcome_id     TEXT PRIMARY KEY,
    log_id         TEXT NOT NULL,
    pos            INTEGER NOT NULL,
    body           BLOB NOT NULL,
    created_ms     INTEGER NOT NULL,
    expires_ms     INTEGER NOT NULL
) STRICT;
CREATE INDEX welcomes_expiry ON welcomes (expires_ms);

CREATE TABLE cursors (
    account        TEXT NOT NULL,
    device         TEXT NOT NULL,
    log_id         TEXT NOT NULL,
    next           INTEGER NOT NULL, -- seq in a conversation, pos in an account log
    updated_ms     INTEGER NOT NULL,
    PRIMARY KEY (account, device, log_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX cursors_log ON cursors (log_id);

CREATE TABLE key_packages (
    key_package_id TEXT PRIMARY KEY, -- the ref in hex, or a random name for an opaque one
    ref            TEXT,
    account        TEXT NOT NULL,
    device         TEXT NOT NULL,
    suite          INTEGER NOT NULL,
    encoding       INTEGER NOT NULL,
    body           BLOB NOT NULL,
    last_resort    INTEGER NOT NULL,
    published_ms   INTEGER NOT NULL,
    ordinal        INTEGER NOT NULL, -- order within one publish
    expires_ms     INTEGER NOT NULL,
    claimed_ms     INTEGER,
    claimed_by     TEXT
) STRICT;
CREATE INDEX key_packages_free ON key_packages (account, device, published_ms, ordinal) WHERE claimed_ms IS NULL;
CREATE INDEX key_packages_expiry ON key_packages (expires_ms);

CREATE TABLE sessions (
    session_hash   BLOB PRIMARY KEY,
    session_id     TEXT NOT NULL UNIQUE,
    account        TEXT NOT NULL,
    device         TEXT NOT NULL,
    client_label   TEXT NOT NULL,
    features       TEXT NOT NULL, -- comma separated
    created_ms     INTEGER NOT NULL,
    last_seen_ms   INTEGER NOT NULL,
    expires_ms     INTEGER NOT NULL,
    resume_hash    BLOB NOT NULL UNIQUE,
    resume_sealed  BLOB NOT NULL, -- what a repeated resume must answer, sealed with the predecessor
    previous_hash  BLOB UNIQUE, -- the predecessor, while it is still accepted
    revoked_ms     INTEGER
) STRICT;
CREATE INDEX sessions_account ON sessions (account, device);
CREATE INDEX sessions_expiry ON sessions (expires_ms);

CREATE TABLE nonces (
    nonce          BLOB PRIMARY KEY, -- SHA-256 of issuer, NUL, jti
    expires_ms     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX nonces_expiry ON nonces (expires_ms);
