-- What the AT Protocol door needs beside the logs. The rules of a conversation and the
-- tag of its epoch stand in the head, for every append looks at them; policy is NULL
-- where the default rules hold. A tag is that of tag_epoch: a node of an earlier version
-- moves the epoch and leaves it.
ALTER TABLE logs ADD COLUMN policy TEXT;
ALTER TABLE logs ADD COLUMN confirmation_tag BLOB;
ALTER TABLE logs ADD COLUMN tag_epoch INTEGER;

ALTER TABLE conversation_details ADD COLUMN creator TEXT NOT NULL DEFAULT '';
ALTER TABLE conversation_details ADD COLUMN suite TEXT NOT NULL DEFAULT ''; -- by name, as the creator wrote it
ALTER TABLE conversation_details ADD COLUMN description TEXT NOT NULL DEFAULT '';
ALTER TABLE conversation_details ADD COLUMN policy_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE conversation_details ADD COLUMN policy_by TEXT NOT NULL DEFAULT '';
ALTER TABLE conversation_details ADD COLUMN group_info_epoch INTEGER; -- NULL: unknown, or without group_info

ALTER TABLE intervals ADD COLUMN joined_ms INTEGER NOT NULL DEFAULT 0; -- 0: with the record from_pos
ALTER TABLE intervals ADD COLUMN promoted_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE intervals ADD COLUMN promoted_by TEXT NOT NULL DEFAULT '';

CREATE TABLE devices (
    account        TEXT NOT NULL,
    device         TEXT NOT NULL,
    name           TEXT NOT NULL,
    uuid           TEXT, -- the device's own lasting id
    signature_key  BLOB NOT NULL,
    push_token     TEXT,
    generation     INTEGER NOT NULL DEFAULT 0, -- of the API that it speaks: 0 unknown, 1 A, 2 B
    registered_ms  INTEGER NOT NULL,
    seen_ms        INTEGER NOT NULL,
    PRIMARY KEY (account, device)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX devices_uuid ON devices (account, uuid) WHERE uuid IS NOT NULL;
CREATE UNIQUE INDEX devices_key ON devices (account, signature_key);
CREATE UNIQUE INDEX devices_id ON devices (device);

-- A device of a member that waits to be added to a group.
CREATE TABLE additions (
    addition_id    TEXT PRIMARY KEY,
    log_id         TEXT NOT NULL,
    account        TEXT NOT NULL,
    device         TEXT NOT NULL,
    status         TEXT NOT NULL, -- pending, in_progress, completed
    claimed_by     TEXT,
    claimed_ms     INTEGER,
    key_package_ref TEXT, -- what was handed to the claimant
    created_ms     INTEGER NOT NULL,
    noted_ms       INTEGER, -- when the members were told of it
    UNIQUE (log_id, account, device)
) STRICT;
CREATE INDEX additions_device ON additions (account, device);

-- Whom a Welcome is for, so that it can be asked for and not only be told of.
CREATE TABLE welcome_recipients (
    welcome_id     TEXT NOT NULL,
    log_id         TEXT NOT NULL,
    account        TEXT NOT NULL,
    device         TEXT NOT NULL, -- "": any of the account
    key_package_ref TEXT NOT NULL, -- "": unknown
    created_ms     INTEGER NOT NULL,
    consumed_ms    INTEGER,
    reason         TEXT, -- why it was given up
    PRIMARY KEY (welcome_id, account, device, key_package_ref)
) STRICT, WITHOUT ROWID;
CREATE INDEX welcome_recipients_account ON welcome_recipients (account, log_id, consumed_ms);

-- What became of an account's key packages, claimed ones too.
CREATE INDEX key_packages_account ON key_packages (account, published_ms);

-- Commits are few among the messages, and asked for by themselves.
CREATE INDEX records_commits ON records (log_id, seq) WHERE kind = 3;

CREATE TABLE reactions (
    log_id         TEXT NOT NULL,
    message_id     TEXT NOT NULL,
    account        TEXT NOT NULL,
    reaction       TEXT NOT NULL,
    created_ms     INTEGER NOT NULL,
    PRIMARY KEY (log_id, message_id, account, reaction)
) STRICT, WITHOUT ROWID;

-- Tickets open one subscription each. Only their hash is kept.
CREATE TABLE tickets (
    ticket_hash    BLOB PRIMARY KEY,
    account        TEXT NOT NULL,
    generation     INTEGER NOT NULL,
    conversations  TEXT NOT NULL, -- JSON; empty: all of the account
    expires_ms     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tickets_expiry ON tickets (expires_ms);

-- Codes that invite to a conversation. Only their hash is kept; a revoked one is gone.
CREATE TABLE conversation_invites (
    code_hash      BLOB PRIMARY KEY,
    log_id         TEXT NOT NULL,
    created_by     TEXT NOT NULL,
    created_ms     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX conversation_invites_log ON conversation_invites (log_id, created_ms);
