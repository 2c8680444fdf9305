-- name: register
-- Every field is overwritten; this is also a worker's heartbeat. $1 id bigint (used when new), $2 kind, $3 name, $4 uri text or NULL,
-- $5 status text, $6 labels jsonb or NULL, $7 capacity int or NULL, $8 runtime jsonb
INSERT INTO noetl.runtime (runtime_id, kind, name, uri, status, labels, capacity, runtime, heartbeat)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now())
ON CONFLICT (kind, name) DO UPDATE
   SET uri = EXCLUDED.uri, status = EXCLUDED.status, labels = EXCLUDED.labels, capacity = EXCLUDED.capacity,
       runtime = EXCLUDED.runtime, heartbeat = now(), updated_at = now()
RETURNING runtime_id;

-- name: heartbeat
-- $1 kind, $2 name text
UPDATE noetl.runtime
   SET heartbeat = now(), status = 'ready', updated_at = now()
 WHERE kind = $1 AND name = $2
RETURNING runtime_id, runtime ->> 'type' AS runtime;

-- name: deregister
-- The row stays, so that claims of a worker that left are recognised. $1 kind, $2 name text
UPDATE noetl.runtime
   SET status = 'offline', updated_at = now()
 WHERE kind = $1 AND name = $2
RETURNING runtime_id, runtime ->> 'type' AS runtime;

-- name: list
-- A pool without a heartbeat counts as offline at once, before the reconciler writes that down.
-- $1 kind text, $2 runtime type text or NULL, $3 status text or NULL, $4 offline after seconds float, $5 limit, $6 offset int
SELECT name, runtime, status, capacity, labels, heartbeat, created_at, updated_at
  FROM (SELECT r.name, r.runtime, r.capacity, r.labels, r.heartbeat, r.created_at, r.updated_at,
               CASE WHEN r.heartbeat < now() - make_interval(secs => $4) THEN 'offline' ELSE r.status END AS status
          FROM noetl.runtime r
         WHERE r.kind = $1 AND ($2::text IS NULL OR r.runtime ->> 'type' = $2)) AS pool
 WHERE $3::text IS NULL OR status = $3
 ORDER BY name
 LIMIT $5::int OFFSET $6::int;

-- name: ping
SELECT 1 AS one LIMIT 1;

-- name: public_key
-- The key to which secrets for a worker are sealed, NULL when it registered none. $1 kind, $2 name text
SELECT runtime ->> 'worker_public_key' AS public_key FROM noetl.runtime WHERE kind = $1 AND name = $2 LIMIT 1;
