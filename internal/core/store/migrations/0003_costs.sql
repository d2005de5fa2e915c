-- +goose Up
-- What partitions cost. A meter runs while the site has, or may have, something
-- of a partition; when it ends, its shares go into costs, which nothing deletes.
-- Prices are billionths per node and hour, amounts millionths, node_time is
-- microseconds summed up over nodes.
CREATE TABLE meters (
    partition_id TEXT PRIMARY KEY,
    account      TEXT NOT NULL,
    site         TEXT NOT NULL,
    flavor       TEXT NOT NULL,
    spot         BIGINT NOT NULL,
    nodes        BIGINT NOT NULL,
    currency     TEXT NOT NULL,
    price        BIGINT NOT NULL,
    unpriced     BIGINT NOT NULL,
    began        BIGINT NOT NULL
);

-- Which attempts hold or held a partition that is not removed yet. They stay
-- when the job is purged.
CREATE TABLE holds (
    partition_id TEXT NOT NULL,
    job          TEXT NOT NULL,
    attempt      BIGINT NOT NULL,
    owner        TEXT NOT NULL,
    cpus         BIGINT NOT NULL,
    began        BIGINT NOT NULL,
    ended        BIGINT NOT NULL,
    PRIMARY KEY (partition_id, job, attempt)
);
INSERT INTO holds (partition_id, job, attempt, owner, cpus, began, ended)
    SELECT a.partition_id, a.job, a.number, j.owner, a.cpus, a.created, a.ended
    FROM attempts a JOIN jobs j ON j.id = a.job JOIN partitions p ON p.id = a.partition_id
    WHERE p.state <> 'deleted';

CREATE TABLE costs (
    partition_id TEXT NOT NULL,
    job          TEXT NOT NULL,
    attempt      BIGINT NOT NULL,
    day          TEXT NOT NULL,
    owner        TEXT NOT NULL,
    account      TEXT NOT NULL,
    site         TEXT NOT NULL,
    flavor       TEXT NOT NULL,
    spot         BIGINT NOT NULL,
    nodes        BIGINT NOT NULL,
    currency     TEXT NOT NULL,
    unpriced     BIGINT NOT NULL,
    began        BIGINT NOT NULL,
    ended        BIGINT NOT NULL,
    amount       BIGINT NOT NULL,
    node_time    BIGINT NOT NULL,
    PRIMARY KEY (partition_id, job, attempt, day)
);
CREATE INDEX costs_by_owner ON costs (owner, day);
CREATE INDEX costs_by_job ON costs (job);
-- Budgets and metrics are answered from this index alone.
CREATE INDEX costs_by_account ON costs (account, day, currency, site, amount, node_time, unpriced);
