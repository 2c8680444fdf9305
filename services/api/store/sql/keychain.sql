-- name: upsert
-- The expiry is $9 or, without it, $8 seconds from now by the database's clock. No row when the catalog entry is unknown.
-- $1 cache_key text, $2 keychain_name text, $3 catalog_id bigint, $4 credential_type, $5 cache_type, $6 scope_type text,
-- $7 data_encrypted text, $8 ttl seconds float, $9 expires_at timestamptz or NULL, $10 execution_id, $11 parent_execution_id bigint
-- or NULL, $12 auto_renew bool, $13 renew_config jsonb or NULL (a sealed text)
INSERT INTO noetl.keychain (cache_key, keychain_name, catalog_id, credential_type, cache_type, scope_type, data_encrypted, expires_at,
                            execution_id, parent_execution_id, auto_renew, renew_config)
SELECT $1, $2, c.catalog_id, $4, $5, $6, $7, COALESCE($9::timestamptz, now() + make_interval(secs => $8)), $10::bigint,
       $11::bigint, $12, $13
  FROM noetl.catalog c
 WHERE c.catalog_id = $3
ON CONFLICT (cache_key) DO UPDATE
   SET credential_type = EXCLUDED.credential_type, cache_type = EXCLUDED.cache_type, scope_type = EXCLUDED.scope_type,
       data_encrypted = EXCLUDED.data_encrypted, expires_at = EXCLUDED.expires_at, execution_id = EXCLUDED.execution_id,
       parent_execution_id = EXCLUDED.parent_execution_id, auto_renew = EXCLUDED.auto_renew, renew_config = EXCLUDED.renew_config,
       created_at = now(), accessed_at = now(), access_count = 0
RETURNING expires_at, EXTRACT(EPOCH FROM expires_at - now())::float8 AS ttl_seconds;

-- name: cache_credential
-- Keep a copy of a credential that was just read, unless one that is still good or somebody's own token stands there.
-- $1 cache_key, $2 keychain_name text, $3 catalog_id bigint or NULL, $4 credential_type text, $5 scope_type text,
-- $6 data_encrypted text, $7 ttl seconds float, $8 execution_id bigint or NULL, $9 credential's updated_at timestamptz
INSERT INTO noetl.keychain (cache_key, keychain_name, catalog_id, credential_type, cache_type, scope_type, data_encrypted, expires_at,
                            execution_id)
SELECT $1, $2, c.catalog_id, $4, 'secret', $5, $6, now() + make_interval(secs => $7), $8::bigint
  FROM noetl.catalog c
 WHERE c.catalog_id = $3
   AND NOT EXISTS (
        SELECT 1
          FROM noetl.keychain k
         WHERE k.cache_key = $1
           AND (k.cache_type = 'token' OR (k.expires_at > now() + make_interval(secs => $7 / 2) AND k.created_at >= $9)))
ON CONFLICT (cache_key) DO UPDATE
   SET credential_type = EXCLUDED.credential_type, data_encrypted = EXCLUDED.data_encrypted, expires_at = EXCLUDED.expires_at,
       created_at = now();

-- name: catalog_of_execution
-- $1 execution id bigint
SELECT catalog_id FROM noetl.execution WHERE execution_id = $1 LIMIT 1;

-- name: read
-- Count the access and return the entry, expired or not. $1 cache_key text
UPDATE noetl.keychain
   SET access_count = LEAST(COALESCE(access_count, 0), 2147483646) + 1, accessed_at = now()
 WHERE cache_key = $1
RETURNING keychain_name, catalog_id, credential_type, cache_type, scope_type, data_encrypted, expires_at, accessed_at, access_count,
          COALESCE(auto_renew, false) AS auto_renew, renew_config, EXTRACT(EPOCH FROM expires_at - now())::float8 AS ttl_seconds;

-- name: delete
-- $1 cache_key text
DELETE FROM noetl.keychain WHERE cache_key = $1;

-- name: list
-- Without data. $1 catalog id bigint, $2 limit int
SELECT keychain_name, scope_type, execution_id, credential_type, cache_type, expires_at, expires_at <= now() AS expired, access_count,
       accessed_at, created_at
  FROM noetl.keychain
 WHERE catalog_id = $1
 ORDER BY keychain_name, cache_key
 LIMIT $2::int;

-- name: purge_expired
-- Entries nobody can read any more: expired and without renewal. $1 limit int
DELETE FROM noetl.keychain
 WHERE cache_key IN (SELECT cache_key
                       FROM noetl.keychain
                      WHERE expires_at <= now() AND NOT COALESCE(auto_renew, false)
                      LIMIT $1::int);
