-- name: insert
-- $1 result id, $2 execution id bigint, $3 name, $4 scope text, $5 source step text or NULL, $6 data text (JSON), $7 bytes bigint,
-- $8 sha256 text (hex), $9 ttl seconds float or NULL for no expiry, $10 correlation, $11 extracted jsonb or NULL
INSERT INTO noetl.result_store (result_id, execution_id, name, scope, source_step, data, bytes, sha256, expires_at, correlation, extracted)
VALUES ($1, $2, $3, $4, $5, $6::text::json, $7, $8, now() + make_interval(secs => $9::float8), $10, $11)
RETURNING expires_at;

-- name: data_by_id
-- By the primary key; the execution is compared in a way that no index can. $1 result id bigint, $2 execution id bigint
SELECT data::text AS data
  FROM noetl.result_store
 WHERE result_id = $1 AND execution_id - $2::bigint = 0 AND (expires_at IS NULL OR expires_at > now())
 LIMIT 1;

-- name: newest_of_step
-- The newest result that a step stored, or that was stored under this name. $1 execution id bigint, $2 name text
SELECT result_id, execution_id, name, scope, source_step, data::text AS data, bytes, sha256, expires_at, correlation, extracted
  FROM noetl.result_store
 WHERE execution_id = $1 AND (name = $2 OR source_step = $2) AND (expires_at IS NULL OR expires_at > now())
 ORDER BY created_at DESC, result_id DESC
 LIMIT 1;

-- name: list
-- Without the data. $1 execution id bigint, $2 limit, $3 offset int
SELECT result_id, name, scope, expires_at, bytes, sha256, correlation, extracted
  FROM noetl.result_store
 WHERE execution_id = $1 AND (expires_at IS NULL OR expires_at > now())
 ORDER BY result_id
 LIMIT $2::int OFFSET $3::int;

-- name: stats
-- Counted up to a bound: the counts are for people. $1 rows counted at most int
SELECT count(DISTINCT execution_id) FILTER (WHERE scope = 'execution') AS execution_scopes,
       count(DISTINCT (execution_id, source_step)) FILTER (WHERE scope = 'step') AS step_scopes,
       count(DISTINCT execution_id) FILTER (WHERE scope = 'workflow') AS workflow_trees, count(*) AS refs
  FROM (SELECT execution_id, scope, source_step FROM noetl.result_store LIMIT $1::int) AS counted;

-- name: delete_scope
-- $1 execution id bigint, $2 scope text, $3 source step text or NULL for every step
WITH deleted AS (
    DELETE FROM noetl.result_store
     WHERE execution_id = $1 AND scope = $2 AND ($3::text IS NULL OR source_step = $3)
 RETURNING 1)
SELECT count(*) AS deleted FROM deleted LIMIT 1;

-- name: purge_expired
-- $1 limit int
WITH deleted AS (
    DELETE FROM noetl.result_store
     WHERE result_id IN (SELECT result_id FROM noetl.result_store WHERE expires_at <= now() ORDER BY expires_at LIMIT $1::int)
 RETURNING 1)
SELECT count(*) AS deleted FROM deleted LIMIT 1;
