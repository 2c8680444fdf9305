-- name: create_history
-- The record of applied migrations.
CREATE TABLE IF NOT EXISTS noetl.playhead_migration (
    number integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: create_schema
-- The schema must exist before its record does.
CREATE SCHEMA IF NOT EXISTS noetl;

-- name: lock_history
-- Serialise replicas that migrate at the same time. $1 lock key bigint
SELECT pg_advisory_lock($1);

-- name: applied
-- What has been applied, in order.
SELECT number, sha256 FROM noetl.playhead_migration ORDER BY number LIMIT 10000;

-- name: record
-- $1 number int, $2 file name text, $3 sha256 hex text
INSERT INTO noetl.playhead_migration (number, name, sha256) VALUES ($1, $2, $3);

-- name: ensure_partitions
-- Partitions of the event table for two years ahead; run at every migration, so that a release keeps them coming.
SELECT noetl.ensure_event_partitions(now() + interval '2 years') AS created LIMIT 1;
