-- name: upsert
-- By name: id and created_at stay. $1 id bigint (used when new), $2 name, $3 type, $4 data_encrypted text, $5 meta jsonb or NULL,
-- $6 tags text[] or NULL, $7 description text or NULL
INSERT INTO noetl.credential (id, name, type, data_encrypted, meta, tags, description)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (name) DO UPDATE
   SET type = EXCLUDED.type, data_encrypted = EXCLUDED.data_encrypted, meta = EXCLUDED.meta, tags = EXCLUDED.tags,
       description = EXCLUDED.description, updated_at = now()
RETURNING id, name, type, meta, tags, description, created_at, updated_at;

-- name: list
-- By name, without data. $1 type text or NULL, $2 part of name or description text or NULL, $3 limit, $4 offset int
SELECT id, name, type, meta, tags, description, created_at, updated_at
  FROM noetl.credential
 WHERE ($1::text IS NULL OR type = $1)
   AND ($2::text IS NULL OR position(lower($2) IN lower(name)) > 0 OR position(lower($2) IN lower(COALESCE(description, ''))) > 0)
 ORDER BY name
 LIMIT $3::int OFFSET $4::int;

-- name: find
-- The id wins over a name of the same digits. $1 id bigint or NULL, $2 name text
SELECT id, name, type, meta, tags, description, created_at, updated_at, data_encrypted
  FROM noetl.credential
 WHERE id = $1::bigint OR name = $2
 ORDER BY (id = $1::bigint) DESC NULLS LAST
 LIMIT 1;

-- name: delete
-- $1 id bigint
DELETE FROM noetl.credential WHERE id = $1 RETURNING id, name;
