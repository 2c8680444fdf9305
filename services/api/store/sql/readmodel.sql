-- name: executions
-- Newest first, without any payload. An execution of the original is counted event by event.
-- $1 status text or NULL, $2 path text or NULL, $3 catalog id bigint or NULL, $4 limit int, $5 offset int
SELECT e.execution_id, e.catalog_id, c.path, e.status, e.parent_execution_id, e.start_time, e.end_time,
       CASE WHEN e.stream_version > 0 THEN e.stream_version
            ELSE (SELECT count(*) FROM noetl.event v WHERE v.execution_id = e.execution_id) END AS event_count
  FROM noetl.execution e
  JOIN noetl.catalog c ON c.catalog_id = e.catalog_id
 WHERE ($1::text IS NULL OR e.status = $1) AND ($2::text IS NULL OR c.path = $2) AND ($3::bigint IS NULL OR e.catalog_id = $3)
 ORDER BY COALESCE(e.start_time, e.created_at) DESC NULLS LAST, e.execution_id DESC
 LIMIT $4 OFFSET $5;

-- name: current_node
-- The node of the newest event that names one. $1 execution id bigint
SELECT node_name FROM noetl.event WHERE execution_id = $1 AND node_name IS NOT NULL ORDER BY event_id DESC LIMIT 1;

-- name: event_count
-- $1 execution id bigint
SELECT count(*) AS n FROM noetl.event WHERE execution_id = $1;

-- name: events
-- Oldest first, without any payload. $1 execution id bigint, $2 after event id bigint, $3 limit int
SELECT event_id, event_type, node_name, status, created_at
  FROM noetl.event
 WHERE execution_id = $1 AND event_id > $2
 ORDER BY event_id
 LIMIT $3;
