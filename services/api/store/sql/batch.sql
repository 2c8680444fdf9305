-- name: request_events
-- The first event of a batch request under its id, and how far its execution is decided. $1 request id text
SELECT e.execution_id, e.event_id, e.stream_version, e.event_time, e.meta, x.decided_version, x.actionable_version, x.status
  FROM noetl.event e
  JOIN noetl.execution x ON x.execution_id = e.execution_id
 WHERE e.meta ->> 'batch_request_id' = $1 AND COALESCE(e.idempotency_key, '') <> ''
 ORDER BY e.event_id
 LIMIT 1;

-- name: original_events
-- What the original's server wrote about a batch request, newest first. $1 request id text
SELECT execution_id, event_type, status, created_at AS event_time, meta, result, error
  FROM noetl.event
 WHERE meta ->> 'batch_request_id' = $1
   AND event_type IN ('batch.accepted', 'batch.processing', 'batch.completed', 'batch.failed')
 ORDER BY event_id DESC
 LIMIT 4;

-- name: commands_of_batch
-- Commands that followed from the events of a request. $1 execution id bigint, $2 first version, $3 last version bigint
SELECT count(*)
  FROM noetl.event c
 WHERE c.execution_id = $1 AND c.event_type = 'command.issued' AND c.aggregate_type = 'execution' AND c.stream_version > $3
   AND c.parent_event_id IN (
        SELECT event_id
          FROM noetl.event
         WHERE execution_id = $1 AND aggregate_type = 'execution' AND stream_version BETWEEN $2 AND $3
         LIMIT 1000);
