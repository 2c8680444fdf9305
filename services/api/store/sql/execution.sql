-- name: executable
-- The entry to run: a version of a path, or the newest. $1 path text, $2 version smallint or NULL, $3 kinds text[]
SELECT catalog_id, path, version, kind, content
  FROM noetl.catalog
 WHERE path = $1 AND ($2::smallint IS NULL OR version = $2) AND kind = ANY ($3::text[])
 ORDER BY version DESC
 LIMIT 1;

-- name: executable_by_id
-- $1 catalog id bigint, $2 kinds text[]
SELECT catalog_id, path, version, kind, content
  FROM noetl.catalog
 WHERE catalog_id = $1 AND kind = ANY ($2::text[])
 LIMIT 1;

-- name: playbook
-- $1 catalog id bigint
SELECT catalog_id, path, version, kind, content FROM noetl.catalog WHERE catalog_id = $1 LIMIT 1;

-- name: list_page
-- Newest first. Executions that the original runs have the end that their terminal event says.
-- $1 limit int (1..200), $2 offset int (0..5000), $3 status text or NULL
SELECT e.execution_id, e.catalog_id, c.path, c.version, COALESCE(t.status, e.status) AS status,
       COALESCE(e.start_time, e.created_at) AS start_time, COALESCE(t.created_at, e.end_time) AS end_time,
       e.error, e.parent_execution_id, now() AS now
  FROM noetl.execution e
  JOIN noetl.catalog c ON c.catalog_id = e.catalog_id
  LEFT JOIN LATERAL (
        SELECT CASE WHEN v.event_type = 'execution.cancelled' THEN 'CANCELLED'
                    WHEN v.event_type LIKE '%.failed' THEN 'FAILED' ELSE 'COMPLETED' END AS status,
               v.created_at AT TIME ZONE 'UTC' AS created_at
          FROM noetl.event v
         WHERE NOT e.run_by_playhead AND v.execution_id = e.execution_id
           AND v.event_type IN ('execution.cancelled', 'playbook.failed', 'workflow.failed', 'command.failed',
                                'playbook.completed', 'workflow.completed')
         ORDER BY v.event_id DESC
         LIMIT 1
  ) t ON true
 WHERE $3::text IS NULL OR COALESCE(t.status, e.status) = $3
 ORDER BY COALESCE(e.start_time, e.created_at) DESC NULLS LAST, e.execution_id DESC
 LIMIT $1 OFFSET $2;

-- name: header
-- One execution as its row has it. $1 execution id bigint
SELECT e.execution_id, e.catalog_id, c.path, c.version, e.status, COALESCE(e.start_time, e.created_at) AS start_time,
       e.end_time, e.error, e.parent_execution_id, e.execution_pool, e.state, e.run_by_playhead, e.stream_version, e.last_event_id, now() AS now
  FROM noetl.execution e
  JOIN noetl.catalog c ON c.catalog_id = e.catalog_id
 WHERE e.execution_id = $1
 LIMIT 1;

-- name: original_life
-- What the log tells of an execution that the original ran: its row is often behind. $1 execution id bigint
SELECT f.started_at, t.event_type AS terminal_type, t.created_at AS terminal_at, t.error AS terminal_error,
       n.event_type AS newest_type, n.status AS newest_status, n.node_name AS newest_node, n.created_at AS newest_at,
       n.error AS newest_error, now() AS now,
       EXISTS (SELECT FROM noetl.command c WHERE c.execution_id = $1 AND c.status IN ('PENDING', 'CLAIMED', 'RUNNING')) AS open_commands
  FROM (SELECT min(created_at) AT TIME ZONE 'UTC' AS started_at
          FROM (SELECT created_at FROM noetl.event WHERE execution_id = $1 ORDER BY event_id LIMIT 1) first) f
  LEFT JOIN LATERAL (
        SELECT event_type, created_at AT TIME ZONE 'UTC' AS created_at, error
          FROM noetl.event
         WHERE execution_id = $1 AND event_type IN ('execution.cancelled', 'playbook.failed', 'workflow.failed',
                                                    'command.failed', 'playbook.completed', 'workflow.completed')
         ORDER BY event_id DESC
         LIMIT 1
  ) t ON true
  LEFT JOIN LATERAL (
        SELECT event_type, status, node_name, created_at AT TIME ZONE 'UTC' AS created_at, error
          FROM noetl.event WHERE execution_id = $1 ORDER BY event_id DESC LIMIT 1
  ) n ON true
 LIMIT 1;

-- name: stream_header
-- What a reader of the event stream needs to know. $1 execution id bigint
SELECT status, stream_version FROM noetl.execution WHERE execution_id = $1 LIMIT 1;

-- name: terminal_result
-- The result of the terminal event. $1 execution id bigint
SELECT event_type, context, result, error
  FROM noetl.event
 WHERE execution_id = $1 AND event_type IN ('playbook.completed', 'playbook.failed', 'execution.cancelled')
 ORDER BY event_id DESC
 LIMIT 1;

-- name: initial_context
-- What the execution was started with. $1 execution id bigint
SELECT context
  FROM noetl.event
 WHERE execution_id = $1 AND event_type IN ('playbook.initialized', 'playbook_started')
 ORDER BY event_id
 LIMIT 1;

-- name: stuck
-- Executions that began long ago and have no end, oldest first. Rows of the original may have an end in the log only.
-- $1 age int (min), $2 limit int
SELECT e.execution_id, e.run_by_playhead
  FROM noetl.execution e
 WHERE e.status = 'RUNNING'
   AND COALESCE(e.start_time, e.created_at) < now() - make_interval(mins => $1::int)
   AND (e.run_by_playhead OR NOT EXISTS (
        SELECT 1
          FROM noetl.event v
         WHERE v.execution_id = e.execution_id
           AND v.event_type IN ('execution.cancelled', 'playbook.failed', 'workflow.failed',
                                'playbook.completed', 'workflow.completed')))
 ORDER BY e.execution_id
 LIMIT $2;

-- name: newest_event
-- $1 execution id bigint
SELECT event_type, status, error FROM noetl.event WHERE execution_id = $1 ORDER BY event_id DESC LIMIT 1;

-- name: count_events
-- $1 execution id bigint, $2 event type text or NULL, $3 since event id bigint or NULL
SELECT count(*)
  FROM noetl.event
 WHERE execution_id = $1 AND ($2::text IS NULL OR event_type = $2) AND ($3::bigint IS NULL OR event_id > $3);

-- name: event_page
-- Newest first. $1 execution id bigint, $2 event type text or NULL, $3 since event id bigint or NULL, $4 limit int, $5 offset int
SELECT event_id, event_type, node_id, node_name, status, created_at, context, result, error, catalog_id,
       parent_execution_id, parent_event_id, duration
  FROM noetl.event
 WHERE execution_id = $1 AND ($2::text IS NULL OR event_type = $2) AND ($3::bigint IS NULL OR event_id > $3)
 ORDER BY event_id DESC
 LIMIT $4 OFFSET $5;

-- name: children
-- Direct children, bounded. $1 execution ids bigint[]
SELECT execution_id, status, run_by_playhead FROM noetl.execution WHERE parent_execution_id = ANY ($1::bigint[]) ORDER BY execution_id LIMIT 10000;

-- name: watermarks
-- Where each execution stands. $1 execution ids bigint[]
SELECT execution_id, catalog_id, parent_execution_id, status, stream_version, decided_version, actionable_version
  FROM noetl.execution
 WHERE execution_id = ANY ($1::bigint[])
 LIMIT 1000;

-- name: stream
-- Events of one execution after a version, in stream order. $1 execution id bigint, $2 after version bigint, $3 limit int
SELECT event_id, execution_id, catalog_id, event_type, node_id, node_name, node_type, status,
       CASE WHEN event_type = 'command.issued' THEN NULL ELSE context END AS context, result, meta, error, command_id,
       stage_id, frame_id, worker_id, parent_event_id, parent_execution_id, stream_id, stream_version, event_time,
       ingest_time, created_at AT TIME ZONE 'UTC' AS created_at
  FROM noetl.event
 WHERE execution_id = $1 AND aggregate_type = 'execution' AND stream_version > $2
 ORDER BY stream_version
 LIMIT $3;

-- name: version_of_event
-- $1 execution id bigint, $2 event id bigint
SELECT stream_version
  FROM noetl.event
 WHERE execution_id = $1 AND event_id <= $2 AND aggregate_type = 'execution'
 ORDER BY event_id DESC
 LIMIT 1;

-- name: cancelled_commands
-- Commands that were given up while a worker had them, the newest first; a worker that still runs one asks within the hour.
-- $1 execution id bigint
SELECT command_id
  FROM noetl.command
 WHERE execution_id = $1 AND status = 'CANCELLED' AND worker_id IS NOT NULL AND completed_at > now() - interval '1 hour'
 ORDER BY completed_at DESC
 LIMIT 1000;

-- name: command_by_event
-- What a claim answers; immutable after insert, so read outside the lock. The original's Python worker looks for the server
-- in the context. $1 command.issued event id bigint, $2 URL of the API text, NULL: the context as it is stored
SELECT execution_id, command_id, event_id, step_name, tool_kind,
       CASE WHEN $2::text IS NOT NULL AND context ? 'render_context'
            THEN jsonb_set(context, '{render_context,server_url}', to_jsonb($2::text)) ELSE context END::text AS context, meta
  FROM noetl.command
 WHERE event_id = $1
 LIMIT 1;

-- name: newest_command_of_step
-- $1 execution id bigint, $2 step name text
SELECT command_id, status
  FROM noetl.command
 WHERE execution_id = $1 AND step_name = $2
 ORDER BY command_id DESC
 LIMIT 1;
