-- name: lock_name
-- Two creations under one name wait for each other. $1 name text
SELECT pg_advisory_xact_lock(hashtext('playhead token ' || $1));

-- name: create
-- No row when the name has $7 tokens already, or the table $8. $1 token id, $2 name, $3 role text, $4 sha256 bytea,
-- $5 created by text, $6 seconds to live float or NULL, $7 tokens per name int, $8 tokens int
INSERT INTO noetl.api_token (token_id, name, role, secret_sha256, created_by, expires_at)
SELECT $1, $2, $3, $4, $5, now() + make_interval(secs => $6::float8)
 WHERE (SELECT count(*)
          FROM noetl.api_token t
         WHERE t.name = $2 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())) < $7::int
   AND (SELECT count(*) FROM noetl.api_token) < $8::int
RETURNING token_id, name, role, created_at, created_by, expires_at, last_used_at;

-- name: list
-- Newest first. $1 name text or NULL, $2 also those that are revoked or expired bool, $3 limit int
SELECT token_id, name, role, created_at, created_by, expires_at, last_used_at, revoked_at
  FROM noetl.api_token
 WHERE ($1::text IS NULL OR name = $1)
   AND ($2::bool OR (revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())))
 ORDER BY created_at DESC, token_id
 LIMIT $3::int;

-- name: active
-- What opens doors now. $1 limit int
SELECT token_id, name, role, secret_sha256, EXTRACT(EPOCH FROM expires_at)::float8 AS expires_unix
  FROM noetl.api_token
 WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
 LIMIT $1::int;

-- name: revoke
-- $1 token id text
UPDATE noetl.api_token
   SET revoked_at = COALESCE(revoked_at, now())
 WHERE token_id = $1
RETURNING token_id, name, role, created_at, created_by, expires_at, last_used_at, revoked_at;

-- name: used
-- $1 token ids text[], $2 unix seconds float[]
UPDATE noetl.api_token t
   SET last_used_at = GREATEST(t.last_used_at, to_timestamp(u.seconds))
  FROM unnest($1::text[], $2::float8[]) AS u (token_id, seconds)
 WHERE t.token_id = u.token_id;

-- name: purge
-- Tokens that have been dead for longer than the audit trail reaches back. $1 seconds float, $2 limit int
DELETE FROM noetl.api_token
 WHERE token_id IN (SELECT token_id
                      FROM noetl.api_token
                     WHERE LEAST(revoked_at, expires_at) < now() - make_interval(secs => $1)
                     LIMIT $2::int);
