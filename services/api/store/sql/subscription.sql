-- name: lock_path
-- Two registrations of one path come one after the other. $1 path text
SELECT pg_advisory_xact_lock(hashtext('playhead.subscription'), hashtext($1));

-- name: lock_one
-- Two actions on one subscription come one after the other. $1 subscription id bigint
SELECT pg_advisory_xact_lock($1);

-- name: newest_of_path
-- The newest subscription of a path. $1 path text
SELECT execution_id FROM noetl.event
 WHERE event_type = 'subscription.registered' AND node_name = $1
 ORDER BY execution_id DESC
 LIMIT 1;

-- name: newest_event
-- $1 subscription id bigint
SELECT execution_id, catalog_id, node_name, event_type, event_time
  FROM noetl.event
 WHERE execution_id = $1 AND event_type LIKE 'subscription.%'
 ORDER BY event_id DESC
 LIMIT 1;

-- name: list
-- Newest first. $1 limit int
SELECT l.execution_id, l.catalog_id, l.node_name, l.event_type, l.event_time
  FROM (SELECT execution_id
          FROM noetl.event
         WHERE event_type = 'subscription.registered'
         ORDER BY execution_id DESC
         LIMIT $1::int) AS s
  JOIN LATERAL (
        SELECT e.execution_id, e.catalog_id, e.node_name, e.event_type, e.event_time
          FROM noetl.event e
         WHERE e.execution_id = s.execution_id AND e.event_type LIKE 'subscription.%'
         ORDER BY e.event_id DESC
         LIMIT 1) AS l ON true
 ORDER BY l.execution_id DESC
 LIMIT $1::int;

-- name: append
-- $1 subscription id, $2 catalog id, $3 event id bigint, $4 event type, $5 path, $6 status text
INSERT INTO noetl.event (execution_id, catalog_id, event_id, event_type, node_id, node_name, node_type, status, meta, stream_id,
                         stream_version, aggregate_id, aggregate_type)
VALUES ($1, $2, $3, $4, $5, $5, 'subscription', $6, '{"actionable": false, "informative": true}',
        'subscription/' || $1::bigint, $3, 'subscription/' || $1::bigint, 'subscription')
RETURNING execution_id, catalog_id, node_name, event_type, event_time;

-- name: documents
-- The newest version of every subscription document. $1 limit int
SELECT DISTINCT ON (path) catalog_id, path, version, payload
  FROM noetl.catalog
 WHERE kind = 'subscription'
 ORDER BY path, version DESC
 LIMIT $1::int;
