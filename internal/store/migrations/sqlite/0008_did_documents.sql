-- What is used of the DID documents of accounts, as it was fetched last, so that they get in
-- while the directory or their host is away. fetched_ms is by the clock of the database.
CREATE TABLE did_documents (
    did            TEXT PRIMARY KEY,
    document       BLOB NOT NULL,
    fetched_ms     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX did_documents_fetched ON did_documents (fetched_ms, did);
