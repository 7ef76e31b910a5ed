-- One log, many cursors: conversation logs ("c/…") and account logs ("a/…") stand in
-- the same two tables. A row of logs is the head that every append locks, so it is
-- narrow, and no index covers a column that an append changes.
CREATE TABLE logs (
    log_id         TEXT COLLATE "C" PRIMARY KEY,
    pos            BIGINT NOT NULL,
    seq            BIGINT NOT NULL,
    hash           BYTEA,
    term           BIGINT NOT NULL,
    home           TEXT COLLATE "C",            -- NULL: this service
    group_id       BYTEA UNIQUE,                -- NULL until bound
    generation     BIGINT NOT NULL DEFAULT 0,
    epoch          BIGINT NOT NULL DEFAULT 0,
    members        BIGINT NOT NULL DEFAULT 0,
    record_senders SMALLINT NOT NULL DEFAULT 0,
    refuse_opaque  SMALLINT NOT NULL DEFAULT 0,
    committer_account TEXT COLLATE "C",         -- until the next commit only
    committer_device  TEXT COLLATE "C",
    earliest_seq   BIGINT NOT NULL DEFAULT 1,   -- low-water mark of retained messages
    created_ms     BIGINT NOT NULL,
    latest_ms      BIGINT NOT NULL DEFAULT 0,
    frozen_ms      BIGINT
) WITH (fillfactor = 60);

CREATE TABLE records (
    log_id         TEXT COLLATE "C" NOT NULL,
    pos            BIGINT NOT NULL,
    seq            BIGINT,                      -- NULL: a control record or device event
    kind           SMALLINT NOT NULL,
    generation     BIGINT NOT NULL,
    epoch          BIGINT NOT NULL,             -- the resulting one
    term           BIGINT NOT NULL,
    message_id     TEXT COLLATE "C",
    created_ms     BIGINT NOT NULL,
    hash           BYTEA,
    sender_account TEXT COLLATE "C",
    sender_device  TEXT COLLATE "C",
    recipient      TEXT COLLATE "C",            -- account logs: the only device that may see it
    encoding       SMALLINT NOT NULL,
    body           BYTEA NOT NULL,
    PRIMARY KEY (log_id, pos)
);
CREATE UNIQUE INDEX records_seq ON records (log_id, seq) WHERE seq IS NOT NULL;

-- What a message id answers, kept apart from the body and longer than it.
CREATE TABLE message_ids (
    log_id         TEXT COLLATE "C" NOT NULL,
    message_id     TEXT COLLATE "C" NOT NULL,
    pos            BIGINT NOT NULL,
    seq            BIGINT NOT NULL,
    kind           SMALLINT NOT NULL,
    epoch          BIGINT NOT NULL,
    created_ms     BIGINT NOT NULL,
    PRIMARY KEY (log_id, message_id)
);

-- A stay of an account in a conversation, from the record that began it through
-- the one that ended it.
CREATE TABLE intervals (
    log_id         TEXT COLLATE "C" NOT NULL,
    account        TEXT COLLATE "C" NOT NULL,
    from_pos       BIGINT NOT NULL,
    until_pos      BIGINT,                      -- NULL: a member now
    role           TEXT NOT NULL,
    PRIMARY KEY (log_id, account, from_pos)
);
CREATE UNIQUE INDEX intervals_now ON intervals (log_id, account) WHERE until_pos IS NULL;
CREATE INDEX intervals_account ON intervals (account, log_id) WHERE until_pos IS NULL;

-- The wide and seldom read side of a conversation.
CREATE TABLE conversation_details (
    log_id         TEXT COLLATE "C" PRIMARY KEY,
    title          TEXT NOT NULL DEFAULT '',
    group_info     BYTEA,
    group_info_pos BIGINT NOT NULL DEFAULT 0
);

-- A Welcome is stored once; the events that announce it stand in account logs.
CREATE TABLE welcomes (
    welcome_id     TEXT COLLATE "C" PRIMARY KEY,
    log_id         TEXT COLLATE "C" NOT NULL,
    pos            BIGINT NOT NULL,
    body           BYTEA NOT NULL,
    created_ms     BIGINT NOT NULL,
    expires_ms     BIGINT NOT NULL
);
CREATE INDEX welcomes_expiry ON welcomes (expires_ms);

CREATE TABLE cursors (
    account        TEXT COLLATE "C" NOT NULL,
    device         TEXT COLLATE "C" NOT NULL,
    log_id         TEXT COLLATE "C" NOT NULL,
    next           BIGINT NOT NULL,             -- seq in a conversation, pos in an account log
    updated_ms     BIGINT NOT NULL,
    PRIMARY KEY (account, device, log_id)
) WITH (fillfactor = 70);
CREATE INDEX cursors_log ON cursors (log_id);

CREATE TABLE key_packages (
    key_package_id TEXT COLLATE "C" PRIMARY KEY, -- the ref in hex, or a random name for an opaque one
    ref            TEXT COLLATE "C",
    account        TEXT COLLATE "C" NOT NULL,
    device         TEXT COLLATE "C" NOT NULL,
    suite          BIGINT NOT NULL,
    encoding       SMALLINT NOT NULL,
    body           BYTEA NOT NULL,
    last_resort    SMALLINT NOT NULL,
    published_ms   BIGINT NOT NULL,
    ordinal        BIGINT NOT NULL,             -- order within one publish
    expires_ms     BIGINT NOT NULL,
    claimed_ms     BIGINT,
    claimed_by     TEXT COLLATE "C"
);
CREATE INDEX key_packages_free ON key_packages (account, device, published_ms, ordinal) WHERE claimed_ms IS NULL;
CREATE INDEX key_packages_expiry ON key_packages (expires_ms);

CREATE TABLE sessions (
    session_hash   BYTEA PRIMARY KEY,
    session_id     TEXT COLLATE "C" NOT NULL UNIQUE,
    account        TEXT COLLATE "C" NOT NULL,
    device         TEXT COLLATE "C" NOT NULL,
    client_label   TEXT NOT NULL,
    features       TEXT NOT NULL,               -- comma separated
    created_ms     BIGINT NOT NULL,
    last_seen_ms   BIGINT NOT NULL,
    expires_ms     BIGINT NOT NULL,
    resume_hash    BYTEA NOT NULL UNIQUE,
    resume_sealed  BYTEA NOT NULL,              -- what a repeated resume must answer, sealed with the predecessor
    previous_hash  BYTEA UNIQUE,                -- the predecessor, while it is still accepted
    revoked_ms     BIGINT
);
CREATE INDEX sessions_account ON sessions (account, device);
CREATE INDEX sessions_expiry ON sessions (expires_ms);

CREATE TABLE nonces (
    nonce          BYTEA PRIMARY KEY,           -- SHA-256 of issuer, NUL, jti
    expires_ms     BIGINT NOT NULL
);
CREATE INDEX nonces_expiry ON nonces (expires_ms);
