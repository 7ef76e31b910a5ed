-- The confirmation tag of the epoch that a commit opens, beside its record: the head has
-- that of the current epoch only.
CREATE TABLE commit_tags (
    log_id         TEXT COLLATE "C" NOT NULL,
    pos            BIGINT NOT NULL,
    tag            BYTEA NOT NULL,
    PRIMARY KEY (log_id, pos)
);
