-- What the AT Protocol door needs beside the logs. The rules of a conversation and the
-- tag of its epoch stand in the head, for every append looks at them; policy is NULL
-- where the default rules hold. A tag is that of tag_epoch: a node of an earlier version
-- moves the epoch and leaves it.
ALTER TABLE logs ADD COLUMN policy TEXT;
ALTER TABLE logs ADD COLUMN confirmation_tag BYTEA;
ALTER TABLE logs ADD COLUMN tag_epoch BIGINT;

ALTER TABLE conversation_details ADD COLUMN creator TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE conversation_details ADD COLUMN suite TEXT NOT NULL DEFAULT ''; -- by name, as the creator wrote it
ALTER TABLE conversation_details ADD COLUMN description TEXT NOT NULL DEFAULT '';
ALTER TABLE conversation_details ADD COLUMN policy_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE conversation_details ADD COLUMN policy_by TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE conversation_details ADD COLUMN group_info_epoch BIGINT; -- NULL: unknown, or without group_info

ALTER TABLE intervals ADD COLUMN joined_ms BIGINT NOT NULL DEFAULT 0; -- 0: with the record from_pos
ALTER TABLE intervals ADD COLUMN promoted_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE intervals ADD COLUMN promoted_by TEXT COLLATE "C" NOT NULL DEFAULT '';

CREATE TABLE devices (
    account        TEXT COLLATE "C" NOT NULL,
    device         TEXT COLLATE "C" NOT NULL,
    name           TEXT COLLATE "C" NOT NULL,
    uuid           TEXT COLLATE "C", -- the device's own lasting id
    signature_key  BYTEA NOT NULL,
    push_token     TEXT COLLATE "C",
    generation     SMALLINT NOT NULL DEFAULT 0, -- of the API that it speaks: 0 unknown, 1 A, 2 B
    registered_ms  BIGINT NOT NULL,
    seen_ms        BIGINT NOT NULL,
    PRIMARY KEY (account, device)
);
CREATE UNIQUE INDEX devices_uuid ON devices (account, uuid) WHERE uuid IS NOT NULL;
CREATE UNIQUE INDEX devices_key ON devices (account, signature_key);
CREATE UNIQUE INDEX devices_id ON devices (device);

-- A device of a member that waits to be added to a group.
CREATE TABLE additions (
    addition_id    TEXT COLLATE "C" PRIMARY KEY,
    log_id         TEXT COLLATE "C" NOT NULL,
    account        TEXT COLLATE "C" NOT NULL,
    device         TEXT COLLATE "C" NOT NULL,
    status         TEXT COLLATE "C" NOT NULL, -- pending, in_progress, completed
    claimed_by     TEXT COLLATE "C",
    claimed_ms     BIGINT,
    key_package_ref TEXT COLLATE "C", -- what was handed to the claimant
    created_ms     BIGINT NOT NULL,
    noted_ms       BIGINT, -- when the members were told of it
    UNIQUE (log_id, account, device)
);
CREATE INDEX additions_device ON additions (account, device);

-- Whom a Welcome is for, so that it can be asked for and not only be told of.
CREATE TABLE welcome_recipients (
    welcome_id     TEXT COLLATE "C" NOT NULL,
    log_id         TEXT COLLATE "C" NOT NULL,
    account        TEXT COLLATE "C" NOT NULL,
    device         TEXT COLLATE "C" NOT NULL, -- "": any of the account
    key_package_ref TEXT COLLATE "C" NOT NULL, -- "": unknown
    created_ms     BIGINT NOT NULL,
    consumed_ms    BIGINT,
    reason         TEXT COLLATE "C", -- why it was given up
    PRIMARY KEY (welcome_id, account, device, key_package_ref)
);
CREATE INDEX welcome_recipients_account ON welcome_recipients (account, log_id, consumed_ms);

-- What became of an account's key packages, claimed ones too.
CREATE INDEX key_packages_account ON key_packages (account, published_ms);

-- Commits are few among the messages, and asked for by themselves.
CREATE INDEX records_commits ON records (log_id, seq) WHERE kind = 3;

CREATE TABLE reactions (
    log_id         TEXT COLLATE "C" NOT NULL,
    message_id     TEXT COLLATE "C" NOT NULL,
    account        TEXT COLLATE "C" NOT NULL,
    reaction       TEXT COLLATE "C" NOT NULL,
    created_ms     BIGINT NOT NULL,
    PRIMARY KEY (log_id, message_id, account, reaction)
);

-- Tickets open one subscription each. Only their hash is kept.
CREATE TABLE tickets (
    ticket_hash    BYTEA PRIMARY KEY,
    account        TEXT COLLATE "C" NOT NULL,
    generation     SMALLINT NOT NULL,
    conversations  TEXT COLLATE "C" NOT NULL, -- JSON; empty: all of the account
    expires_ms     BIGINT NOT NULL
);
CREATE INDEX tickets_expiry ON tickets (expires_ms);

-- Codes that invite to a conversation. Only their hash is kept; a revoked one is gone.
CREATE TABLE conversation_invites (
    code_hash      BYTEA PRIMARY KEY,
    log_id         TEXT COLLATE "C" NOT NULL,
    created_by     TEXT COLLATE "C" NOT NULL,
    created_ms     BIGINT NOT NULL
);
CREATE INDEX conversation_invites_log ON conversation_invites (log_id, created_ms);
