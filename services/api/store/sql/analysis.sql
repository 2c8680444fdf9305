-- name: first_events
-- Oldest first. `attempt` and `stream_version` only of our own events. $1 execution id bigint, $2 limit int (100..10000)
SELECT event_id, event_type, node_name, node_type, status, created_at, duration, error, command_id,
       CASE WHEN aggregate_type = 'execution' THEN stream_version END AS stream_version,
       CASE WHEN event_type = 'command.issued' AND meta ->> 'attempt' ~ '^[0-9]{1,6}$' THEN (meta ->> 'attempt')::int
       END AS attempt
  FROM noetl.event
 WHERE execution_id = $1
 ORDER BY event_id
 LIMIT $2;

-- name: newest
-- $1 execution id bigint
SELECT event_id, event_type, node_name, status, created_at, error
  FROM noetl.event
 WHERE execution_id = $1
 ORDER BY event_id DESC
 LIMIT 1;

-- name: terminal
-- The event that ended the execution. $1 execution id bigint
SELECT event_id, event_type, status, created_at, node_name, error
  FROM noetl.event
 WHERE execution_id = $1
   AND event_type IN ('execution.cancelled', 'playbook.failed', 'workflow.failed', 'playbook.completed',
                      'workflow.completed')
 ORDER BY event_id DESC
 LIMIT 1;

-- name: content
-- The playbook. $1 catalog id bigint
SELECT content FROM noetl.catalog WHERE catalog_id = $1 LIMIT 1;

-- name: rows_for_ai
-- Newest first; documents above 64 KiB are left out. $1 execution id bigint, $2 limit int (50..200)
SELECT event_id, event_type, node_name, status, created_at, duration,
       CASE WHEN octet_length(context::text) <= 65536 THEN context END AS context,
       CASE WHEN octet_length(result::text) <= 65536 THEN result END AS result, error,
       CASE WHEN octet_length(meta::text) <= 65536 THEN meta END AS meta
  FROM noetl.event
 WHERE execution_id = $1
 ORDER BY event_id DESC
 LIMIT $2;

-- name: results
-- Newest first: where an AI playbook's report is looked for. $1 execution id bigint, $2 limit int
SELECT event_type, node_name, status, error, result
  FROM noetl.event
 WHERE execution_id = $1
 ORDER BY event_id DESC
 LIMIT $2;
