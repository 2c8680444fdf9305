-- name: events
-- Events of an execution in the order of their ids, of every writer. $1 execution id bigint, $2 tenant, $3 organization text,
-- $4 newest event id bigint or NULL, $5 newest time timestamptz or NULL, $6 limit int
SELECT event_id, event_type, node_name, status, result, meta, worker_id, command_id, stage_id, frame_id, aggregate_type, aggregate_id,
       payload_ref
  FROM noetl.event
 WHERE execution_id = $1 AND tenant_id = $2 AND organization_id = $3
   AND ($4::bigint IS NULL OR event_id <= $4) AND ($5::timestamptz IS NULL OR event_time <= $5)
 ORDER BY event_id
 LIMIT $6::int;

-- name: context_events
-- What templates can see of an execution: its workload and every result, in order. $1 execution id bigint, $2 limit int
SELECT event_type, node_name, context, result
  FROM noetl.event
 WHERE execution_id = $1 AND (result IS NOT NULL OR event_type = 'playbook.initialized')
 ORDER BY event_id
 LIMIT $2::int;

-- name: event
-- One event by its own id, by the block ranges of `event_id + 0`. $1 event id bigint
SELECT event_id, execution_id, catalog_id, event_type, node_id, node_name, status, created_at, context, result, error,
       parent_execution_id, parent_event_id, duration
  FROM noetl.event
 WHERE event_id + 0 = $1
 LIMIT 1;
