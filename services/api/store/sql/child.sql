-- name: lineages
-- Who has started executions: the paths of each and of its callers, nearest first, and the first of them.
-- $1 execution ids bigint[], $2 generations at most int
WITH RECURSIVE chain AS (
    SELECT e.execution_id AS origin, e.execution_id, e.parent_execution_id, e.catalog_id, 1 AS generation
      FROM noetl.execution e
     WHERE e.execution_id = ANY ($1::bigint[])
     UNION ALL
    SELECT c.origin, p.execution_id, p.parent_execution_id, p.catalog_id, c.generation + 1
      FROM chain c
      JOIN noetl.execution p ON p.execution_id = c.parent_execution_id
     WHERE c.generation < $2
)
SELECT c.origin, array_agg(k.path ORDER BY c.generation) AS paths,
       (array_agg(c.execution_id ORDER BY c.generation DESC))[1] AS root_id
  FROM chain c
  JOIN noetl.catalog k ON k.catalog_id = c.catalog_id
 GROUP BY c.origin
 LIMIT 1000;

-- name: recursions
-- How often playbooks have called themselves below an execution. $1 root execution id bigint, $2 count at most int
SELECT count(*) FROM (SELECT 1 FROM noetl.execution WHERE root_execution_id = $1 LIMIT $2) AS found;

-- name: ended_children
-- Children that have ended while the command that waits for them is open: a lookup per open command. $1 limit int
SELECT e.execution_id, e.parent_execution_id, e.parent_command_id, e.status, e.error, e.state, e.start_time, e.end_time,
       c.meta, p.path, p.version
  FROM noetl.command c
 CROSS JOIN LATERAL (
        SELECT x.execution_id, x.catalog_id, x.parent_execution_id, x.parent_command_id, x.status, x.error, x.state,
               x.start_time, x.end_time
          FROM noetl.execution x
         WHERE x.parent_execution_id = c.execution_id AND x.parent_command_id = c.command_id
           AND x.status IN ('COMPLETED', 'FAILED', 'CANCELLED')
         LIMIT 1
       ) e
  JOIN noetl.catalog p ON p.catalog_id = e.catalog_id
 WHERE c.worker_id = 'playhead-engine' AND c.status = 'RUNNING'
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
