-- +goose Up
-- What is sealed here opens only with the sealing key, which is not in the
-- database.
CREATE TABLE partition_keys (
    partition_id TEXT PRIMARY KEY,
    sealed       BYTEA NOT NULL
);

CREATE TABLE secrets (
    owner   TEXT NOT NULL,
    kind    TEXT NOT NULL,
    name    TEXT NOT NULL,
    sealed  BYTEA NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    PRIMARY KEY (owner, kind, name)
);
