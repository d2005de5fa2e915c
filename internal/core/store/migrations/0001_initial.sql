-- +goose Up
CREATE TABLE counters (
    name  TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('job', 0), ('event', 0);

-- Times are microseconds since 1970, 0 for "not yet". Lists and structures that
-- no query looks into are JSON.
CREATE TABLE jobs (
    number       BIGINT PRIMARY KEY,
    id           TEXT NOT NULL UNIQUE,
    owner        TEXT NOT NULL,
    account      TEXT NOT NULL,
    name         TEXT NOT NULL,
    state        TEXT NOT NULL,
    details      TEXT NOT NULL,
    request      TEXT NOT NULL,
    attempt      BIGINT NOT NULL,
    partition_id TEXT NOT NULL,
    site         TEXT NOT NULL,
    flavor       TEXT NOT NULL,
    node_names   TEXT NOT NULL,
    address      TEXT NOT NULL,
    exit_code    BIGINT NOT NULL,
    signal       BIGINT NOT NULL,
    warnings     TEXT NOT NULL,
    result_bytes BIGINT NOT NULL,
    inputs       TEXT NOT NULL,
    retried      BIGINT NOT NULL,
    misplaced    BIGINT NOT NULL,
    not_before   BIGINT NOT NULL,
    origin       TEXT NOT NULL,
    purged       BIGINT NOT NULL,
    submit_time  BIGINT NOT NULL,
    start_time   BIGINT NOT NULL,
    end_time     BIGINT NOT NULL
);
CREATE INDEX jobs_by_owner ON jobs (owner, number);
CREATE INDEX jobs_active ON jobs (number) WHERE state IN ('Q', 'W', 'T', 'R') OR purged = 1;

CREATE INDEX jobs_ended ON jobs (end_time) WHERE state IN ('F', 'C', 'E');

CREATE TABLE scripts (
    job  TEXT PRIMARY KEY,
    body BYTEA NOT NULL
);

CREATE TABLE attempts (
    job          TEXT NOT NULL,
    number       BIGINT NOT NULL,
    partition_id TEXT NOT NULL,
    cpus         BIGINT NOT NULL,
    memory       BIGINT NOT NULL,
    gpus         BIGINT NOT NULL,
    address      TEXT NOT NULL,
    phase        BIGINT NOT NULL,
    exit_code    BIGINT NOT NULL,
    signal       BIGINT NOT NULL,
    outcome      TEXT NOT NULL,
    usage        TEXT NOT NULL,
    created      BIGINT NOT NULL,
    started      BIGINT NOT NULL,
    ended        BIGINT NOT NULL,
    PRIMARY KEY (job, number)
);
CREATE INDEX attempts_held ON attempts (partition_id) WHERE phase < 6;

CREATE TABLE partitions (
    id             TEXT PRIMARY KEY,
    name           TEXT NOT NULL,
    state          TEXT NOT NULL,
    details        TEXT NOT NULL,
    account        TEXT NOT NULL,
    site           TEXT NOT NULL,
    flavor         TEXT NOT NULL,
    image          TEXT NOT NULL,
    nodes          TEXT NOT NULL,
    keep_alive     BIGINT NOT NULL,
    keep_resources BIGINT NOT NULL,
    created        BIGINT NOT NULL,
    ready_at       BIGINT NOT NULL,
    idle_since     BIGINT NOT NULL,
    deleted_at     BIGINT NOT NULL
);
CREATE INDEX partitions_live ON partitions (created) WHERE state <> 'deleted';
CREATE INDEX partitions_by_time ON partitions (created, id);

CREATE TABLE events (
    seq          BIGINT PRIMARY KEY,
    time         BIGINT NOT NULL,
    kind         TEXT NOT NULL,
    job          TEXT NOT NULL,
    owner        TEXT NOT NULL,
    attempt      BIGINT NOT NULL,
    partition_id TEXT NOT NULL,
    state        TEXT NOT NULL,
    text         TEXT NOT NULL,
    transfer     TEXT NOT NULL
);
CREATE INDEX events_by_job ON events (job, seq);
CREATE INDEX events_by_owner ON events (owner, seq);
CREATE INDEX events_by_partition ON events (partition_id, seq);

CREATE TABLE submissions (
    owner TEXT NOT NULL,
    key   TEXT NOT NULL,
    hash  TEXT NOT NULL,
    jobs  TEXT NOT NULL,
    time  BIGINT NOT NULL,
    PRIMARY KEY (owner, key)
);
CREATE INDEX submissions_by_time ON submissions (time);

CREATE TABLE facts (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
