-- name: depths
-- How deep executions are nested. $1 execution ids bigint[]
SELECT execution_id, depth FROM noetl.execution WHERE execution_id = ANY ($1::bigint[]) LIMIT 1000;

-- name: ended_children
-- Children that have ended while the command that waits for them is open. $1 limit int
SELECT e.execution_id, e.parent_execution_id, e.parent_command_id, e.status, e.error, e.state, e.start_time, e.end_time,
       c.meta, p.path, p.version
  FROM noetl.command c
  JOIN noetl.execution e ON e.parent_execution_id = c.execution_id AND e.parent_command_id = c.command_id
  JOIN noetl.catalog p ON p.catalog_id = e.catalog_id
 WHERE c.worker_id = 'playhead-engine' AND c.status = 'RUNNING' AND e.status IN ('COMPLETED', 'FAILED', 'CANCELLED')
 ORDER BY e.execution_id
 LIMIT $1;

-- name: ended_children_of
-- The same for children that have just ended. $1 child execution ids bigint[], $2 limit int
SELECT e.execution_id, e.parent_execution_id, e.parent_command_id, e.status, e.error, e.state, e.start_time, e.end_time,
       c.meta, p.path, p.version
  FROM noetl.execution e
  JOIN noetl.command c ON c.execution_id = e.parent_execution_id AND c.command_id = e.parent_command_id
  JOIN noetl.catalog p ON p.catalog_id = e.catalog_id
 WHERE e.execution_id = ANY ($1::bigint[]) AND e.status IN ('COMPLETED', 'FAILED', 'CANCELLED')
   AND c.status NOT IN ('COMPLETED', 'FAILED', 'CANCELLED')
 ORDER BY e.execution_id
 LIMIT $2;

-- name: orphans
-- Running children whose command is over: nobody waits for them any more. $1 limit int
SELECT e.execution_id
  FROM noetl.execution e
  JOIN noetl.command c ON c.execution_id = e.parent_execution_id AND c.command_id = e.parent_command_id
 WHERE e.parent_command_id IS NOT NULL AND e.status = 'RUNNING' AND c.status IN ('COMPLETED', 'FAILED', 'CANCELLED')
 ORDER BY e.parent_execution_id
 LIMIT $1;

-- name: orphans_of
-- The same, of these parents. $1 parent execution ids bigint[], $2 limit int
SELECT e.execution_id
  FROM noetl.execution e
  JOIN noetl.command c ON c.execution_id = e.parent_execution_id AND c.command_id = e.parent_command_id
 WHERE e.parent_execution_id = ANY ($1::bigint[]) AND e.parent_command_id IS NOT NULL AND e.status = 'RUNNING'
   AND c.status IN ('COMPLETED', 'FAILED', 'CANCELLED')
 ORDER BY e.execution_id
 LIMIT $2;
