-- The confirmation tag of the epoch that a commit opens, beside its record: the head has
-- that of the current epoch only.
CREATE TABLE commit_tags (
    log_id         TEXT NOT NULL,
    pos            INTEGER NOT NULL,
    tag            BLOB NOT NULL,
    PRIMARY KEY (log_id, pos)
) STRICT, WITHOUT ROWID;
