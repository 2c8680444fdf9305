-- name: lock_executions
-- Lock the rows of a batch in id order, so that two batches cannot deadlock. Every writer of an execution's events and
-- commands holds this lock.
-- $1 execution ids bigint[]
SELECT execution_id, catalog_id, parent_execution_id, status, stream_version, actionable_version, decided_version,
       last_event_id, parent_command_id, execution_pool, run_by_playhead, now() AS now
  FROM noetl.execution
 WHERE execution_id = ANY ($1::bigint[])
 ORDER BY execution_id
   FOR UPDATE;

-- name: database_now
-- The transaction's time by the database's clock.
SELECT now();

-- name: load_commands
-- Commands that a batch touches, with the worker row of the present claimant. Guarded by the execution lock.
-- $1 execution ids bigint[], $2 command ids bigint[], of equal length
SELECT c.execution_id, c.command_id, c.event_id, c.step_name, c.tool_kind, c.status, c.worker_id, c.claimed_at, c.started_at,
       c.completed_at, c.attempt, c.lease_until, c.call_event_id, c.latest_event_id, c.error,
       r.status AS worker_status, r.heartbeat AS worker_heartbeat
  FROM unnest($1::bigint[], $2::bigint[]) AS k (execution_id, command_id)
  JOIN noetl.command c ON c.execution_id = k.execution_id AND c.command_id = k.command_id
  LEFT JOIN noetl.runtime r ON r.kind = 'worker_pool' AND r.name = c.worker_id;

-- name: find_idempotent
-- The first event stored under an idempotency key of an execution. LATERAL with a limit makes it a lookup per key: as a join the
-- planner would read all keys that were ever stored, once per batch.
-- $1 execution ids bigint[], $2 keys text[], of equal length
SELECT f.execution_id, f.idempotency_key, f.stream_version, f.meta
  FROM unnest($1::bigint[], $2::text[]) AS k (execution_id, key)
 CROSS JOIN LATERAL (
        SELECT e.execution_id, e.idempotency_key, e.stream_version, e.meta
          FROM noetl.event e
         WHERE e.execution_id = k.execution_id AND e.idempotency_key = k.key
         LIMIT 1
       ) f;

-- name: events_of_batch
-- The ids of the events that one request stored: consecutive versions.
-- $1 execution id bigint, $2 first version bigint, $3 last version bigint
SELECT event_id
  FROM noetl.event
 WHERE execution_id = $1 AND aggregate_type = 'execution' AND stream_version BETWEEN $2 AND $3
 ORDER BY stream_version
 LIMIT 1000;

-- name: find_events
-- Which of these event ids exist already (a worker that mints its own ids retries with the same).
-- $1 execution ids bigint[], $2 event ids bigint[], of equal length
SELECT e.execution_id, e.event_id
  FROM unnest($1::bigint[], $2::bigint[]) AS k (execution_id, event_id)
  JOIN noetl.event e ON e.execution_id = k.execution_id AND e.event_id = k.event_id;

-- name: insert_executions
-- $1 execution ids bigint[], $2 catalog ids bigint[], $3 parent execution ids bigint[], $4 status text[],
-- $5 stream_version bigint[], $6 last_event_id bigint[], $7 state text[] (JSON), $8 terminal bool[], $9 error text[],
-- $10 actionable_version bigint[], $11 decided_version bigint[], $12 parent_command_id bigint[], $13 root_execution_id bigint[],
-- $14 execution_pool text[]
INSERT INTO noetl.execution (execution_id, catalog_id, parent_execution_id, status, start_time, end_time, last_event_id,
                             state, error, stream_version, actionable_version, decided_version, parent_command_id, root_execution_id,
                             execution_pool, run_by_playhead)
SELECT u.execution_id, u.catalog_id, u.parent_execution_id, u.status, now(), CASE WHEN u.terminal THEN now() END,
       u.last_event_id, u.state::jsonb, u.error, u.stream_version, u.actionable_version, u.decided_version,
       u.parent_command_id, u.root_execution_id, u.execution_pool, true
  FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[], $7::text[], $8::bool[],
              $9::text[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::text[])
    AS u (execution_id, catalog_id, parent_execution_id, status, stream_version, last_event_id, state, terminal, error,
          actionable_version, decided_version, parent_command_id, root_execution_id, execution_pool);

-- name: insert_commands
-- $1 execution_id bigint[] $2 command_id bigint[] $3 event_id bigint[] $4 catalog_id bigint[] $5 parent_execution_id bigint[]
-- $6 step_name text[] $7 tool_kind text[] $8 attempt int[] $9 context text[] $10 meta text[] (JSON) $11 loop_event_id text[]
-- $12 iter_index int[] $13 pool text[] $14 claimant text[] (NULL: a worker will claim it)
INSERT INTO noetl.command (execution_id, command_id, event_id, catalog_id, parent_execution_id, step_name, tool_kind, status,
                           attempt, context, meta, loop_event_id, iter_index, latest_event_id, pool, notified_at, worker_id,
                           claimed_at, started_at)
SELECT u.execution_id, u.command_id, u.event_id, u.catalog_id, u.parent_execution_id, u.step_name, u.tool_kind,
       CASE WHEN u.claimant IS NULL THEN 'PENDING' ELSE 'RUNNING' END, u.attempt, u.context::jsonb, u.meta::jsonb,
       u.loop_event_id, u.iter_index, u.event_id, u.pool, now(), u.claimant, CASE WHEN u.claimant IS NOT NULL THEN now() END,
       CASE WHEN u.claimant IS NOT NULL THEN now() END
  FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::int[],
              $9::text[], $10::text[], $11::text[], $12::int[], $13::text[], $14::text[])
    AS u (execution_id, command_id, event_id, catalog_id, parent_execution_id, step_name, tool_kind, attempt, context, meta,
          loop_event_id, iter_index, pool, claimant);

-- name: update_commands
-- Write back what a batch changed. Notification columns belong to the reconciler and are not touched here.
-- $1 execution_id bigint[] $2 command_id bigint[] $3 status text[] $4 worker_id text[] $5 claimed_at timestamptz[]
-- $6 started_at timestamptz[] $7 completed_at timestamptz[] $8 attempt int[] $9 lease_until timestamptz[]
-- $10 call_event_id bigint[] $11 latest_event_id bigint[] $12 result text[] (JSON, NULL keeps) $13 error text[]
UPDATE noetl.command AS c
   SET status = u.status, worker_id = u.worker_id, claimed_at = u.claimed_at, started_at = u.started_at,
       completed_at = u.completed_at, attempt = u.attempt, lease_until = u.lease_until, call_event_id = u.call_event_id,
       latest_event_id = u.latest_event_id, result = COALESCE(u.result::jsonb, c.result), error = u.error, updated_at = now()
  FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[],
              $8::int[], $9::timestamptz[], $10::bigint[], $11::bigint[], $12::text[], $13::text[])
    AS u (execution_id, command_id, status, worker_id, claimed_at, started_at, completed_at, attempt, lease_until,
          call_event_id, latest_event_id, result, error)
 WHERE c.execution_id = u.execution_id AND c.command_id = u.command_id;

-- name: cancel_commands
-- Close what a terminal execution leaves open. NOT IN keeps the planner from walking the index of all open commands.
-- Its snapshot is of no more use.
-- $1 execution ids bigint[]
WITH snapshots AS (
DELETE FROM noetl.projection_snapshot
 WHERE tenant_id = 'default' AND organization_id = 'default' AND aggregate_type = 'playhead_state'
   AND aggregate_id = ANY (SELECT 'execution/' || u.execution_id FROM unnest($1::bigint[]) AS u (execution_id))
)
UPDATE noetl.command AS c
   SET status = 'CANCELLED', completed_at = now(), updated_at = now()
  FROM unnest($1::bigint[]) AS u (execution_id)
 WHERE c.execution_id = u.execution_id AND c.status NOT IN ('COMPLETED', 'FAILED', 'CANCELLED');

-- name: append
-- Append to the log, queue its messages, move the marks of its executions: one statement, one round trip.
-- The unique index on (execution_id, stream_version) refuses a second writer of one version. Arrays may be empty.
-- Events: $1 execution_id bigint[] $2 catalog_id bigint[] $3 event_id bigint[] $4 parent_event_id bigint[]
-- $5 parent_execution_id bigint[] $6 event_type text[] $7 node_name text[] $8 node_type text[] $9 status text[]
-- $10 context text[] $11 result text[] $12 meta text[] (JSON) $13 error text[] $14 worker_id text[]
-- $15 stream_version bigint[] $16 idempotency_key text[] $17 command_id bigint[]
-- Outbox: $18 execution_id bigint[] $19 event_id bigint[] $20 subject text[] $21 payload text[] (JSON) $22 msg_id text[]
-- Executions: $23 execution_id bigint[] $24 status text[] $25 stream_version bigint[] $26 actionable_version bigint[]
-- $27 decided_version bigint[] $28 last_event_id bigint[] $29 ended bool[] $30 error text[] $31 state text[] (JSON, NULL keeps)
WITH events AS (
INSERT INTO noetl.event (execution_id, catalog_id, event_id, parent_event_id, parent_execution_id, event_type, node_id,
                         node_name, node_type, status, context, result, meta, error, worker_id, stream_id, stream_version,
                         aggregate_type, idempotency_key, command_id)
SELECT u.execution_id, u.catalog_id, u.event_id, u.parent_event_id, u.parent_execution_id, u.event_type, u.node_name,
       u.node_name, u.node_type, u.status, u.context::jsonb, u.result::jsonb, u.meta::jsonb, u.error, u.worker_id,
       'execution/' || u.execution_id, u.stream_version, 'execution', u.idempotency_key, u.command_id
  FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::text[],
              $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::bigint[], $16::text[],
              $17::bigint[])
    AS u (execution_id, catalog_id, event_id, parent_event_id, parent_execution_id, event_type, node_name, node_type,
          status, context, result, meta, error, worker_id, stream_version, idempotency_key, command_id)
), outbox AS (
INSERT INTO noetl.outbox (execution_id, event_id, subject, payload, payload_codec, msg_id)
SELECT u.execution_id, u.event_id, u.subject, u.payload::jsonb, 'json', u.msg_id
  FROM unnest($18::bigint[], $19::bigint[], $20::text[], $21::text[], $22::text[])
    AS u (execution_id, event_id, subject, payload, msg_id)
)
UPDATE noetl.execution AS e
   SET status = u.status, stream_version = u.stream_version, actionable_version = u.actionable_version,
       decided_version = u.decided_version, last_event_id = u.last_event_id,
       end_time = CASE WHEN u.ended THEN COALESCE(e.end_time, now()) ELSE e.end_time END,
       error = COALESCE(u.error, e.error), state = COALESCE(u.state::jsonb, e.state), updated_at = now()
  FROM unnest($23::bigint[], $24::text[], $25::bigint[], $26::bigint[], $27::bigint[], $28::bigint[], $29::bool[], $30::text[],
              $31::text[])
    AS u (execution_id, status, stream_version, actionable_version, decided_version, last_event_id, ended, error, state)
 WHERE e.execution_id = u.execution_id;

-- name: insert_timers
-- $1 execution_id bigint[] $2 timer_id bigint[] $3 due_at timestamptz[] $4 purpose text[] $5 step_name text[] $6 command_id bigint[]
INSERT INTO noetl.timer (execution_id, timer_id, due_at, purpose, step_name, command_id)
SELECT u.execution_id, u.timer_id, u.due_at, u.purpose, u.step_name, u.command_id
  FROM unnest($1::bigint[], $2::bigint[], $3::timestamptz[], $4::text[], $5::text[], $6::bigint[])
    AS u (execution_id, timer_id, due_at, purpose, step_name, command_id)
    ON CONFLICT (execution_id, timer_id) DO NOTHING;

-- name: fire_timer
-- Mark a due timer; no row means it fired already.
-- $1 execution id bigint, $2 timer id bigint
UPDATE noetl.timer SET fired_at = now()
 WHERE execution_id = $1 AND timer_id = $2 AND fired_at IS NULL
RETURNING purpose, step_name, command_id;
