-- name: lock_loop
-- Slots of one loop that are claimed at once open one stage. $1 execution id bigint, $2 loop event id text
SELECT pg_advisory_xact_lock(hashtext('playhead.stage'), hashtext($1::bigint || '/' || $2::text));

-- name: of_loop
-- $1 execution id bigint, $2 loop event id text
SELECT stage_id FROM noetl.stage WHERE execution_id = $1 AND loop_event_id = $2 ORDER BY stage_id LIMIT 1;

-- name: open
-- $1 stage id, $2 execution id bigint, $3 loop event id, $4 step name text, $5 frame policy jsonb, $6 event id bigint
INSERT INTO noetl.stage (stage_id, execution_id, loop_event_id, opened_event_id, kind, step_name, dsl_ref, frame_policy)
VALUES ($1, $2, $3, $6, 'loop', $4, $4, $5);

-- name: to_close
-- Open stages of our executions that have ended, with what their frames did. $1 limit int
SELECT s.stage_id, s.execution_id, s.step_name, s.loop_event_id, e.catalog_id, e.status,
       (SELECT count(*) FROM noetl.frame f WHERE f.stage_id = s.stage_id) AS frame_count,
       (SELECT COALESCE(sum(f.row_count), 0) FROM noetl.frame f WHERE f.stage_id = s.stage_id)::bigint AS row_count,
       (SELECT COALESCE(sum(f.events_emitted), 0) FROM noetl.frame f WHERE f.stage_id = s.stage_id)::bigint AS events_emitted,
       (SELECT count(*) FROM noetl.frame f WHERE f.stage_id = s.stage_id AND f.status = 'FAILED') AS failed_count
  FROM noetl.stage s
  JOIN noetl.execution e ON e.execution_id = s.execution_id
 WHERE s.status IN ('OPEN', 'RUNNING') AND e.status <> 'RUNNING' AND e.stream_version > 0
 ORDER BY s.stage_id
 LIMIT $1::int
   FOR UPDATE OF s SKIP LOCKED;

-- name: close
-- $1 stage id bigint, $2 status text, $3 event id bigint
UPDATE noetl.stage SET status = $2, closed_event_id = $3, ended_at = now(), updated_at = now() WHERE stage_id = $1;

-- name: append_event
-- A stream of its own per stage, as in the original. $1 execution id, $2 catalog id, $3 event id bigint, $4 event type,
-- $5 node name, $6 status text, $7 context, $8 meta jsonb, $9 stage id bigint
INSERT INTO noetl.event (execution_id, catalog_id, event_id, event_type, node_id, node_name, status, context, result, meta, stage_id,
                         idempotency_key, stream_id, stream_version, aggregate_id, aggregate_type, schema_name, producer)
VALUES ($1, $2, $3, $4::text, $5, $5, $6::text, $7, jsonb_build_object('status', $6::text), $8, $9,
        'default/default/' || $1::bigint || '/stage/' || $9::bigint || '/' || $4::text,
        'execution/' || $1::bigint || '/stage/' || $9::bigint, $3, 'stage/' || $9::bigint, 'stage', 'noetl.' || $4::text, 'playhead');
