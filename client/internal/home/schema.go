package home

// schemaVersion is kept in SQLite's user_version.
const schemaVersion = 6

// migrations create the database, one after the other. Columns named body, info, mls and
// pending are sealed; the others hold counters, identifiers and ciphertexts that the server
// knows as well.
var migrations = [schemaVersion]string{schema, `
ALTER TABLE messages ADD COLUMN own INTEGER NOT NULL DEFAULT 0;
CREATE TABLE log (
	conversation TEXT NOT NULL,
	digest BLOB NOT NULL,      -- SHA-256 of the ciphertext
	seq INTEGER NOT NULL,      -- its place
	lost INTEGER NOT NULL DEFAULT 0, -- the server's log no longer has it; 2: and it was sent again
	type TEXT,                 -- of an own message or commit: the frame that sent it
	frame BLOB,                -- and its body, sealed
	PRIMARY KEY (conversation, digest)
) WITHOUT ROWID;
CREATE INDEX log_seq ON log (conversation, seq);
INSERT INTO log (conversation, digest, seq) SELECT conversation, digest, seq FROM messages;
`, `-- The frames in log are sealed: sealFrames.`, `
ALTER TABLE key_packages ADD COLUMN used_ms INTEGER; -- of one of last resort: when a Welcome first used it
`, `
ALTER TABLE messages ADD COLUMN place INTEGER NOT NULL DEFAULT 0; -- the last seq in the log; the body is sealed for it
UPDATE messages SET place = abs(seq); -- a detached one was at its negative seq
CREATE INDEX messages_place ON messages (conversation, place);
`, `
ALTER TABLE messages ADD COLUMN change INTEGER NOT NULL DEFAULT 0; -- not a message, and read; 2: nor at a place of its own in the log
`}

const schema = `
CREATE TABLE settings (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE conversations (
	id TEXT PRIMARY KEY,
	phase INTEGER NOT NULL,
	next_seq INTEGER NOT NULL, -- the server's cursor: the first message not yet taken in
	created_ms INTEGER NOT NULL,
	info BLOB NOT NULL,
	mls BLOB,                  -- the group; its ratchets move in the same transaction as next_seq
	pending BLOB               -- the commit under way, with the group it leads to
);
CREATE TABLE messages (
	conversation TEXT NOT NULL,
	seq INTEGER NOT NULL,
	digest BLOB NOT NULL,      -- SHA-256 of the ciphertext: the same bytes are never taken in twice
	body BLOB NOT NULL,
	PRIMARY KEY (conversation, seq)
) WITHOUT ROWID;
CREATE UNIQUE INDEX messages_digest ON messages (conversation, digest);
CREATE TABLE outbox (
	id INTEGER PRIMARY KEY,
	conversation TEXT NOT NULL,
	message TEXT NOT NULL,     -- the id that the application knows it by
	wire TEXT NOT NULL,        -- the msg_id that the server sees; nearly always the same
	envelope TEXT,             -- the ciphertext, from the moment it is first sent
	body BLOB NOT NULL
);
CREATE UNIQUE INDEX outbox_wire ON outbox (conversation, wire);
CREATE INDEX outbox_order ON outbox (conversation, id);
CREATE TABLE events (id INTEGER PRIMARY KEY, conversation TEXT NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE key_packages (
	ref TEXT PRIMARY KEY,
	last_resort INTEGER NOT NULL,
	published INTEGER NOT NULL,
	expires_ms INTEGER NOT NULL,
	body BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE devices (name BLOB PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE welcomes (pos INTEGER PRIMARY KEY, conversation TEXT NOT NULL, body BLOB NOT NULL);
`
