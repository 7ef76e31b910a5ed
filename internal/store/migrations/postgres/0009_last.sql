-- The time of the last record of a conversation's log, whatever its kind: the time of the
-- next one is not before it. A node of an earlier version leaves it.
ALTER TABLE logs ADD COLUMN last_ms BIGINT NOT NULL DEFAULT 0;
