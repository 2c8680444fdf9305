-- name: upsert
-- Variables of one execution; an overwritten one keeps its creation time and access count. Those of one request are created a
-- microsecond apart, so that a list has them in the request's order; they are locked in the order of their names.
-- $1 execution id bigint, $2 names text[], $3 values text[] (JSON), $4 var_type text, $5 source step text or NULL
INSERT INTO noetl.transient (execution_id, var_name, var_type, var_value, source_step, created_at)
SELECT $1, v.name, $4, v.value::jsonb, $5, now() + v.position * interval '1 microsecond'
  FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS v (name, value, position)
 ORDER BY v.name
ON CONFLICT (execution_id, var_name) DO UPDATE
   SET var_type = EXCLUDED.var_type, var_value = EXCLUDED.var_value, source_step = EXCLUDED.source_step, accessed_at = now();

-- name: list
-- $1 execution id bigint, $2 limit int
SELECT var_name, var_type, var_value, source_step, created_at, accessed_at, access_count
  FROM noetl.transient
 WHERE execution_id = $1 AND (expires_at IS NULL OR expires_at > now())
 ORDER BY created_at, var_name
 LIMIT $2::int;

-- name: read
-- Count the access. $1 execution id bigint, $2 name text
UPDATE noetl.transient
   SET access_count = LEAST(access_count, 2147483646) + 1, accessed_at = now()
 WHERE execution_id = $1 AND var_name = $2 AND (expires_at IS NULL OR expires_at > now())
RETURNING var_name, var_type, var_value, source_step, created_at, accessed_at, access_count;

-- name: delete
-- $1 execution id bigint, $2 name text
DELETE FROM noetl.transient WHERE execution_id = $1 AND var_name = $2 RETURNING var_name;

-- name: delete_all
-- $1 execution id bigint
WITH deleted AS (DELETE FROM noetl.transient WHERE execution_id = $1 RETURNING 1)
SELECT count(*) AS deleted FROM deleted LIMIT 1;
