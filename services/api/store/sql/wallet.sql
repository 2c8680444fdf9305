-- name: labels
-- What protects the stored values: the first characters tell the form and the key. Expired entries that are not renewed are left out.
-- One row per kind with a value of it to try. $1 rows looked at per table int
WITH stored AS (
    (SELECT 'credential' AS place, name AS row_key, data_encrypted AS value FROM noetl.credential LIMIT $1::int)
    UNION ALL
    (SELECT 'keychain', cache_key, data_encrypted FROM noetl.keychain WHERE expires_at > now() OR auto_renew LIMIT $1::int)
    UNION ALL
    (SELECT 'keychain.renew_config', cache_key, renew_config #>> '{}' FROM noetl.keychain
      WHERE jsonb_typeof(renew_config) = 'string' AND (expires_at > now() OR auto_renew) LIMIT $1::int)
), labelled AS (
    SELECT place, row_key, value,
           CASE WHEN value ~ '^v[12][.]' THEN split_part(value, '.', 1) || '.' || split_part(value, '.', 2)
                WHEN left(value, 1) IN ('{', '[', '"') THEN CASE WHEN value LIKE '%"dek"%' THEN 'envelope' ELSE 'plain' END
                ELSE 'other' END AS label
      FROM stored), kinds AS (
    SELECT place, label, count(*) AS number, min(row_key) AS row_key FROM labelled GROUP BY place, label)
SELECT k.place, k.label, k.number, k.row_key, l.value
  FROM kinds k
  JOIN labelled l ON l.place = k.place AND l.row_key = k.row_key
 ORDER BY k.place, k.label
 LIMIT 1000;

-- name: credentials_to_rewrap
-- Rows not under the current key, locked for this transaction; rows that another one works on are left out.
-- $1 beginning of current values text, $2 beginnings that are meant text[] or NULL: all, $3 only ids above bigint, $4 limit int
SELECT id, name, data_encrypted
  FROM noetl.credential
 WHERE NOT starts_with(data_encrypted, $1)
   AND ($2::text[] IS NULL OR left(data_encrypted, 3) = ANY ($2))
   AND id > $3
 ORDER BY id
 LIMIT $4::int
   FOR UPDATE SKIP LOCKED;

-- name: update_credentials
-- $1 ids bigint[], $2 values text[]
UPDATE noetl.credential c
   SET data_encrypted = u.value
  FROM unnest($1::bigint[], $2::text[]) AS u (id, value)
 WHERE c.id = u.id;

-- name: keychain_to_rewrap
-- The same for keychain entries; either value may be meant. $3 only keys above text
SELECT cache_key, data_encrypted, CASE WHEN jsonb_typeof(renew_config) = 'string' THEN renew_config #>> '{}' END AS renew_config
  FROM noetl.keychain
 WHERE ((NOT starts_with(data_encrypted, $1) AND ($2::text[] IS NULL OR left(data_encrypted, 3) = ANY ($2)))
        OR (jsonb_typeof(renew_config) = 'string' AND NOT starts_with(renew_config #>> '{}', $1)))
   AND (expires_at > now() OR auto_renew)
   AND cache_key > $3
 ORDER BY cache_key
 LIMIT $4::int
   FOR UPDATE SKIP LOCKED;

-- name: update_keychain
-- $1 cache keys text[], $2 values text[], $3 renewal settings text[], NULL where they stay as they are
UPDATE noetl.keychain k
   SET data_encrypted = u.value, renew_config = COALESCE(to_jsonb(u.renewal), k.renew_config)
  FROM unnest($1::text[], $2::text[], $3::text[]) AS u (cache_key, value, renewal)
 WHERE k.cache_key = u.cache_key;
