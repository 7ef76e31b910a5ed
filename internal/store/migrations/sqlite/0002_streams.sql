-- Where an SSE stream stood: what the ids of its events are counted from. next is
-- JSON: for each log its id and the number that the stream wanted next, which is a
-- seq in a conversation and a pos in an account log.
CREATE TABLE stream_positions (
    position_id    BLOB PRIMARY KEY,
    account        TEXT NOT NULL,
    device         TEXT NOT NULL,
    next           TEXT NOT NULL,
    created_ms     INTEGER NOT NULL
) STRICT;
CREATE INDEX stream_positions_age ON stream_positions (created_ms);

-- What other nodes revoked lately.
CREATE INDEX sessions_revoked ON sessions (revoked_ms) WHERE revoked_ms IS NOT NULL;
