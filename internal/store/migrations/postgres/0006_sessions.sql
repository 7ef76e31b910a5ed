-- Numbers that are given out under a lock that lasts until the transaction ends: numbers
-- become visible in their order.
CREATE TABLE counters (
    name           TEXT COLLATE "C" PRIMARY KEY,
    value          BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('revocations', 0);

-- Which revocation ended the session, by the counter: what other nodes look for. A node of
-- an earlier version leaves it; its revocations are found when the expiry slides.
ALTER TABLE sessions ADD COLUMN revoked_seq BIGINT;
CREATE INDEX sessions_revoked_seq ON sessions (revoked_seq, session_hash) WHERE revoked_seq IS NOT NULL;

-- Until when previous_hash is accepted; NULL while its answer has not been written.
ALTER TABLE sessions ADD COLUMN previous_until_ms BIGINT;
CREATE INDEX sessions_previous ON sessions (previous_until_ms) WHERE previous_until_ms IS NOT NULL;
