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
-- Counts are recomputed from the step timings, so that a repeated batch adds nothing; a late batch never moves a row back.
-- $1 execution_id bigint[] $2 version bigint[] $3 last_event_type text[] $4 last_node_name text[] $5 last_event_time timestamptz[]
INSERT INTO noetl.execution_summary AS s (execution_id, version, last_event_type, last_node_name, last_event_time,
                                          commands_issued, commands_done, commands_failed)
SELECT u.execution_id, u.version, u.last_event_type, u.last_node_name, u.last_event_time, t.issued, t.done, t.failed
  FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::timestamptz[])
    AS u (execution_id, version, last_event_type, last_node_name, last_event_time)
  CROSS JOIN LATERAL (
        SELECT count(*) AS issued, count(*) FILTER (WHERE status = 'COMPLETED') AS done,
               count(*) FILTER (WHERE status = 'FAILED') AS failed
          FROM noetl.step_timing x WHERE x.execution_id = u.execution_id
  ) t
    ON CONFLICT (execution_id) DO UPDATE
   SET version = GREATEST(s.version, EXCLUDED.version),
       last_event_type = CASE WHEN EXCLUDED.version >= s.version THEN EXCLUDED.last_event_type ELSE s.last_event_type END,
       last_node_name = CASE WHEN EXCLUDED.version >= s.version THEN EXCLUDED.last_node_name ELSE s.last_node_name END,
       last_event_time = GREATEST(s.last_event_time, EXCLUDED.last_event_time),
       commands_issued = EXCLUDED.commands_issued, commands_done = EXCLUDED.commands_done,
       commands_failed = EXCLUDED.commands_failed, updated_at = now();

-- name: upsert_step_timings
-- Each fact is set once: the earliest start, the latest end.
-- $1 execution_id bigint[] $2 command_id bigint[] $3 step_name text[] $4 issued_at timestamptz[] $5 started_at timestamptz[]
-- $6 ended_at timestamptz[] $7 status text[] $8 attempt int[]
INSERT INTO noetl.step_timing AS s (execution_id, command_id, step_name, issued_at, started_at, ended_at, status, attempt)
SELECT u.execution_id, u.command_id, u.step_name, u.issued_at, u.started_at, u.ended_at, u.status, u.attempt
  FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[], $7::text[],
              $8::int[])
    AS u (execution_id, command_id, step_name, issued_at, started_at, ended_at, status, attempt)
 ORDER BY u.execution_id, u.command_id
    ON CONFLICT (execution_id, command_id) DO UPDATE
   SET issued_at = LEAST(s.issued_at, EXCLUDED.issued_at), started_at = LEAST(s.started_at, EXCLUDED.started_at),
       ended_at = GREATEST(s.ended_at, EXCLUDED.ended_at), status = COALESCE(EXCLUDED.status, s.status),
       attempt = GREATEST(s.attempt, EXCLUDED.attempt);

-- name: step_timings
-- $1 execution id bigint, $2 limit int
SELECT step_name, command_id, issued_at, started_at, ended_at, status, attempt
  FROM noetl.step_timing WHERE execution_id = $1 ORDER BY issued_at NULLS LAST, command_id LIMIT $2;
