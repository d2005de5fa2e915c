-- +goose Up
ALTER TABLE partitions ADD COLUMN spot BIGINT NOT NULL DEFAULT 0;
-- Why it failed, for programs.
ALTER TABLE partitions ADD COLUMN code TEXT NOT NULL DEFAULT '';
