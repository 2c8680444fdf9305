-- name: lock_path
-- Serialise the registrations of one path until the transaction ends. $1 path text
SELECT pg_advisory_xact_lock(hashtext($1));

-- name: add_kind
-- A kind nobody used before is a row of its own: the catalog refers to it. $1 kind text
INSERT INTO noetl.resource (name, meta)
VALUES ($1, '{"executable": false, "catalog": true}')
ON CONFLICT (name) DO NOTHING;

-- name: last_version
-- Under `lock_path`. NULL when the path is new. $1 path text
SELECT max(version) AS version FROM noetl.catalog WHERE path = $1 LIMIT 1;

-- name: insert_entry
-- $1 catalog id bigint, $2 path text, $3 version int (1..32767), $4 kind text, $5 content text, $6 payload jsonb, $7 meta jsonb
INSERT INTO noetl.catalog (catalog_id, path, version, kind, content, payload, meta, created_at)
VALUES ($1, $2, $3::int::smallint, $4, $5, $6, $7, now() AT TIME ZONE 'UTC');

-- name: list_entries
-- Newest first.
-- $1 kind text or NULL, $2 path text or NULL, $3 agents only bool, $4 capabilities text[] (all of them), $5 limit, $6 offset int
SELECT catalog_id, path, version, kind, content, layout, payload, meta, created_at
  FROM noetl.catalog
 WHERE ($1::text IS NULL OR kind = $1)
   AND ($2::text IS NULL OR path = $2)
   AND (NOT $3::bool OR kind = 'agent' OR meta -> 'agent' = 'true'::jsonb)
   AND (cardinality($4::text[]) = 0 OR COALESCE(meta -> 'capabilities', '[]'::jsonb) ?& $4::text[])
 ORDER BY created_at DESC, catalog_id DESC
 LIMIT $5::int OFFSET $6::int;

-- name: entry_by_id
-- $1 catalog id bigint
SELECT catalog_id, path, version, kind, content, layout, payload, meta, created_at
  FROM noetl.catalog
 WHERE catalog_id = $1
 LIMIT 1;

-- name: delete_by_id
-- $1 catalog id bigint
DELETE FROM noetl.catalog WHERE catalog_id = $1 RETURNING catalog_id, path, version;

-- name: delete_by_path
-- Every version. $1 path text
DELETE FROM noetl.catalog WHERE path = $1 RETURNING catalog_id, path, version;

-- name: entry_by_path
-- $1 path text, $2 version int or NULL for the newest
SELECT catalog_id, path, version, kind, content, layout, payload, meta, created_at
  FROM noetl.catalog
 WHERE path = $1 AND ($2::int IS NULL OR version = $2::int)
 ORDER BY version DESC
 LIMIT 1;
