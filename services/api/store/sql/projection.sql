-- name: insert_foreign_events
-- Events that did not pass through ingest (another writer's): stored as they are, without a stream version.
-- $1 execution_id bigint[] $2 catalog_id bigint[] $3 event_id bigint[] $4 parent_event_id bigint[] $5 parent_execution_id bigint[]
-- $6 event_type text[] $7 node_id text[] $8 node_name text[] $9 node_type text[] $10 status text[] $11 duration float[]
-- $12 context text[] $13 result text[] $14 meta text[] (JSON) $15 error text[] $16 worker_id text[] $17 command_id bigint[]
-- $18 created_at timestamptz[]
INSERT INTO noetl.event (execution_id, catalog_id, event_id, parent_event_id, parent_execution_id, event_type, node_id,
                         node_name, node_type, status, duration, context, result, meta, error, worker_id, command_id, created_at)
SELECT u.execution_id, u.catalog_id, u.event_id, u.parent_event_id, u.parent_execution_id, u.event_type, u.node_id,
       u.node_name, u.node_type, u.status, u.duration, u.context::jsonb, u.result::jsonb, u.meta::jsonb, u.error, u.worker_id,
       u.command_id, COALESCE(u.created_at, now()) AT TIME ZONE 'UTC'
  FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::text[],
              $9::text[], $10::text[], $11::float[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[],
              $17::bigint[], $18::timestamptz[])
    AS u (execution_id, catalog_id, event_id, parent_event_id, parent_execution_id, event_type, node_id, node_name, node_type,
          status, duration, context, result, meta, error, worker_id, command_id, created_at)
    ON CONFLICT (execution_id, event_id) DO NOTHING;

-- name: known_catalog_ids
-- $1 catalog ids bigint[]
SELECT catalog_id FROM noetl.catalog WHERE catalog_id = ANY ($1::bigint[]) LIMIT 5000;

-- name: upsert_summaries
-- The row's lock makes projectors take turns at an execution; a late batch never moves a row back.
-- $1 execution_id bigint[] $2 version bigint[] $3 last_event_type text[] $4 last_node_name text[] $5 last_event_time timestamptz[]
INSERT INTO noetl.execution_summary AS s (execution_id, version, last_event_type, last_node_name, last_event_time)
SELECT u.execution_id, u.version, u.last_event_type, u.last_node_name, u.last_event_time
  FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::timestamptz[])
    AS u (execution_id, version, last_event_type, last_node_name, last_event_time)
 ORDER BY u.execution_id
    ON CONFLICT (execution_id) DO UPDATE
   SET version = GREATEST(s.version, EXCLUDED.version),
       last_event_type = CASE WHEN EXCLUDED.version >= s.version THEN EXCLUDED.last_event_type ELSE s.last_event_type END,
       last_node_name = CASE WHEN EXCLUDED.version >= s.version THEN EXCLUDED.last_node_name ELSE s.last_node_name END,
       last_event_time = GREATEST(s.last_event_time, EXCLUDED.last_event_time), updated_at = now();

-- name: upsert_step_timings
-- Each fact is set once: the earliest start, the latest end. The counts of the summaries move by what has changed, so that a
-- repeated batch adds nothing and a large loop costs no more per item than a small one. Follows `upsert_summaries`.
-- $1 execution_id bigint[] $2 command_id bigint[] $3 step_name text[] $4 issued_at timestamptz[] $5 started_at timestamptz[]
-- $6 ended_at timestamptz[] $7 status text[] $8 attempt int[]
WITH before AS (
SELECT t.execution_id, t.command_id, t.status
  FROM unnest($1::bigint[], $2::bigint[]) AS k (execution_id, command_id)
  JOIN noetl.step_timing t ON t.execution_id = k.execution_id AND t.command_id = k.command_id
), after AS (
INSERT INTO noetl.step_timing AS s (execution_id, command_id, step_name, issued_at, started_at, ended_at, status, attempt)
SELECT u.execution_id, u.command_id, u.step_name, u.issued_at, u.started_at, u.ended_at, u.status, u.attempt
  FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[], $7::text[],
              $8::int[])
    AS u (execution_id, command_id, step_name, issued_at, started_at, ended_at, status, attempt)
 ORDER BY u.execution_id, u.command_id
    ON CONFLICT (execution_id, command_id) DO UPDATE
   SET issued_at = LEAST(s.issued_at, EXCLUDED.issued_at), started_at = LEAST(s.started_at, EXCLUDED.started_at),
       ended_at = GREATEST(s.ended_at, EXCLUDED.ended_at), status = COALESCE(EXCLUDED.status, s.status),
       attempt = GREATEST(s.attempt, EXCLUDED.attempt)
RETURNING s.execution_id, s.command_id, s.status
), change AS (
SELECT a.execution_id, count(*) FILTER (WHERE b.command_id IS NULL) AS issued,
       count(*) FILTER (WHERE a.status = 'COMPLETED') - count(*) FILTER (WHERE b.status = 'COMPLETED') AS done,
       count(*) FILTER (WHERE a.status = 'FAILED') - count(*) FILTER (WHERE b.status = 'FAILED') AS failed
  FROM after a
  LEFT JOIN before b ON b.execution_id = a.execution_id AND b.command_id = a.command_id
 GROUP BY a.execution_id
)
UPDATE noetl.execution_summary AS s
   SET commands_issued = s.commands_issued + c.issued, commands_done = s.commands_done + c.done,
       commands_failed = s.commands_failed + c.failed
  FROM change c
 WHERE s.execution_id = c.execution_id AND (c.issued <> 0 OR c.done <> 0 OR c.failed <> 0);

-- name: step_timings
-- $1 execution id bigint, $2 limit int
SELECT step_name, command_id, issued_at, started_at, ended_at, status, attempt
  FROM noetl.step_timing WHERE execution_id = $1 ORDER BY issued_at NULLS LAST, command_id LIMIT $2;
