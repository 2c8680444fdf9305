-- name: lock_stage
-- Claims of one stage come one after the other. $1 stage id bigint
SELECT s.stage_id, s.execution_id, s.step_name, s.status, s.frame_policy, s.tenant_id, s.organization_id, e.catalog_id,
       e.status AS execution_status, now() AS now
  FROM noetl.stage s
  JOIN noetl.execution e ON e.execution_id = s.execution_id
 WHERE s.stage_id = $1
 LIMIT 1
   FOR UPDATE OF s;

-- name: frame_of_key
-- The frame of a slot's turn. $1 stage id bigint, $2 worker slot id text, $3 frame index text
SELECT frame_id, stage_id, execution_id, parent_frame_id, command_id, claimed_event_id, terminal_event_id, cursor, row_count, status,
       owner_worker, lease_until, output_ref, events_emitted, attempts, COALESCE(lease_until > now(), false) AS leased
  FROM noetl.frame
 WHERE stage_id = $1 AND cursor ? 'worker_slot_id' AND cursor ? 'frame_index'
   AND cursor ->> 'worker_slot_id' = $2 AND cursor ->> 'frame_index' = $3
 LIMIT 1
   FOR UPDATE;

-- name: free_frame
-- The oldest frame that nobody holds: pending, or (with $2) its lease is over. $1 stage id bigint, $2 also expired bool,
-- $3 attempts at most int, $4 frame ids taken already bigint[]
SELECT frame_id, stage_id, execution_id, parent_frame_id, command_id, claimed_event_id, terminal_event_id, cursor, row_count, status,
       owner_worker, lease_until, output_ref, events_emitted, attempts, COALESCE(lease_until > now(), false) AS leased
  FROM noetl.frame
 WHERE stage_id = $1 AND attempts < $3 AND frame_id <> ALL ($4::bigint[])
   AND (status = 'PENDING' OR ($2::bool AND status IN ('CLAIMED', 'RUNNING') AND lease_until <= now()))
 ORDER BY frame_id
 LIMIT 1
   FOR UPDATE SKIP LOCKED;

-- name: last_of_worker
-- The parent of a worker's next frame: the one it had before. $1 stage id bigint, $2 worker text
SELECT frame_id FROM noetl.frame WHERE stage_id = $1 AND owner_worker = $2 ORDER BY frame_id DESC LIMIT 1;

-- name: insert
-- $1 frame id, $2 stage id, $3 execution id bigint, $4 parent frame id, $5 command id bigint or NULL, $6 cursor jsonb, $7 tenant,
-- $8 organization text
INSERT INTO noetl.frame (frame_id, stage_id, execution_id, parent_frame_id, command_id, cursor, tenant_id, organization_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: claim
-- $1 frame id bigint, $2 worker text, $3 command id bigint or NULL, $4 lease seconds float, $5 event id bigint
UPDATE noetl.frame
   SET status = 'CLAIMED', owner_worker = $2, command_id = COALESCE($3, command_id), claimed_event_id = $5, attempts = attempts + 1,
       lease_until = now() + make_interval(secs => $4), updated_at = now()
 WHERE frame_id = $1
RETURNING frame_id, stage_id, execution_id, parent_frame_id, command_id, claimed_event_id, terminal_event_id, cursor, row_count, status,
          owner_worker, lease_until, output_ref, events_emitted, attempts;

-- name: renew
-- $1 frame id bigint, $2 status text, $3 lease seconds float
UPDATE noetl.frame
   SET status = $2, lease_until = now() + make_interval(secs => $3), updated_at = now()
 WHERE frame_id = $1
RETURNING frame_id, stage_id, execution_id, parent_frame_id, command_id, claimed_event_id, terminal_event_id, cursor, row_count, status,
          owner_worker, lease_until, output_ref, events_emitted, attempts;

-- name: lock_frame
-- A frame with what its events need. $1 frame id bigint
SELECT f.frame_id, f.stage_id, f.execution_id, f.parent_frame_id, f.command_id, f.claimed_event_id, f.terminal_event_id, f.cursor,
       f.row_count, f.status, f.owner_worker, f.lease_until, f.output_ref, f.events_emitted, f.attempts, s.step_name, s.tenant_id,
       s.organization_id, e.catalog_id
  FROM noetl.frame f
  JOIN noetl.stage s ON s.stage_id = f.stage_id
  JOIN noetl.execution e ON e.execution_id = f.execution_id
 WHERE f.frame_id = $1
 LIMIT 1
   FOR UPDATE OF f;

-- name: commit
-- $1 frame id bigint, $2 status text, $3 cursor jsonb, $4 rows int, $5 output reference jsonb or NULL, $6 events int, $7 event id bigint
UPDATE noetl.frame
   SET status = $2, cursor = $3, row_count = $4, output_ref = $5, events_emitted = $6, terminal_event_id = $7, lease_until = NULL,
       completed_at = now(), updated_at = now()
 WHERE frame_id = $1
RETURNING frame_id, stage_id, execution_id, parent_frame_id, command_id, claimed_event_id, terminal_event_id, cursor, row_count, status,
          owner_worker, lease_until, output_ref, events_emitted, attempts;

-- name: append_event
-- A stream of its own per frame, as in the original: the execution's own stream is written by its lanes only.
-- $1 execution id, $2 catalog id, $3 event id bigint, $4 event type, $5 node name, $6 status text, $7 result, $8 meta jsonb,
-- $9 error text or NULL, $10 worker text, $11 stage id, $12 frame id bigint, $13 tenant, $14 organization text, $15 idempotency key text,
-- $16 command id bigint or NULL
INSERT INTO noetl.event (execution_id, catalog_id, event_id, event_type, node_name, status, result, meta, error, worker_id, stage_id,
                         frame_id, tenant_id, organization_id, idempotency_key, command_id, stream_id, stream_version, aggregate_id,
                         aggregate_type, schema_name, producer)
VALUES ($1, $2, $3, $4::text, $5, $6, $7, $8, $9, $10::text, $11, $12, $13, $14, $15, $16,
        'execution/' || $1::bigint || '/stage/' || $11::bigint || '/frame/' || $12::bigint, $3, 'frame/' || $12::bigint, 'frame',
        'noetl.' || $4::text, $10::text);
