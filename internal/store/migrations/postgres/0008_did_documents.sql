-- What is used of the DID documents of accounts, as it was fetched last, so that they get in
-- while the directory or their host is away. fetched_ms is by the clock of the database.
CREATE TABLE did_documents (
    did            TEXT COLLATE "C" PRIMARY KEY,
    document       BYTEA NOT NULL,
    fetched_ms     BIGINT NOT NULL
);
CREATE INDEX did_documents_fetched ON did_documents (fetched_ms, did);
