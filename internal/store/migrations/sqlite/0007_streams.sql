-- Where streams stand, in place of stream_positions, which no longer grows: one row for
-- all of a stream's logs, and later ones for what has moved since.
CREATE TABLE streams (
    stream_id      TEXT PRIMARY KEY,
    account        TEXT NOT NULL,
    device         TEXT NOT NULL, -- '': any of the account
    size           INTEGER NOT NULL, -- what its rows may come to
    used_ms        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX streams_account ON streams (account, used_ms);
CREATE INDEX streams_age ON streams (used_ms);

CREATE TABLE stream_rows (
    stream_id      TEXT NOT NULL,
    n              INTEGER NOT NULL,
    since          INTEGER NOT NULL, -- the row that it builds upon besides the first
    moves          BLOB NOT NULL,
    PRIMARY KEY (stream_id, n)
) STRICT;

-- What an account is in, and what it was in, by when it came.
CREATE INDEX intervals_joined ON intervals (account, joined_ms, log_id) WHERE until_pos IS NULL;
CREATE INDEX intervals_left ON intervals (account, joined_ms, log_id) WHERE until_pos IS NOT NULL;
