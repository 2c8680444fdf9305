-- name: tables
-- Every table of the platform's schema, partitions included. $1 limit int
SELECT c.relname AS name
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = 'noetl' AND c.relkind IN ('r', 'p')
 ORDER BY c.relname
 LIMIT $1;

-- name: counts
-- Executions by status. Rows of the original whose end never reached this table count by their newest terminal event, the
-- newest $1 of them. $1 limit int
WITH behind AS (
    SELECT e.execution_id
      FROM noetl.execution e
     WHERE e.stream_version = 0 AND e.status NOT IN ('COMPLETED', 'FAILED', 'CANCELLED')
     ORDER BY e.execution_id DESC
     LIMIT $1
), told AS (
    SELECT CASE WHEN t.event_type IS NULL THEN 'RUNNING' WHEN t.event_type = 'execution.cancelled' THEN 'CANCELLED'
                WHEN t.event_type LIKE '%.failed' THEN 'FAILED' ELSE 'COMPLETED' END AS status
      FROM behind b
      LEFT JOIN LATERAL (
            SELECT v.event_type
              FROM noetl.event v
             WHERE v.execution_id = b.execution_id
               AND v.event_type IN ('execution.cancelled', 'playbook.failed', 'workflow.failed', 'command.failed',
                                    'playbook.completed', 'workflow.completed')
             ORDER BY v.event_id DESC
             LIMIT 1
      ) t ON true
), known AS (
    SELECT e.status, count(*) AS n
      FROM noetl.execution e
     GROUP BY e.status
)
SELECT s.status, sum(s.n)::bigint AS n
  FROM (SELECT status, n FROM known
        UNION ALL SELECT status, count(*) FROM told GROUP BY status
        UNION ALL SELECT e.status, -count(*) FROM behind b JOIN noetl.execution e USING (execution_id) GROUP BY e.status) s
 GROUP BY s.status
 LIMIT 100;

-- name: playbooks
-- Different playbooks of the catalog.
SELECT count(DISTINCT path) AS n FROM noetl.catalog WHERE kind = 'playbook' LIMIT 1;
