-- name: forget_expired
-- Keys whose window is over count as new.
-- $1 scopes bigint[], $2 keys text[], $3 windows int[] (s), of equal length
DELETE FROM noetl.subscription_dedup AS d
 USING unnest($1::bigint[], $2::text[], $3::int[]) AS u (scope, key, window_secs)
 WHERE d.subscription_id = u.scope AND d.dedup_key = u.key AND d.seen_at < now() - make_interval(secs => u.window_secs);

-- name: claim_keys
-- Take the keys that nobody has; waits for another transaction that is just taking one of them.
-- $1 scopes bigint[], $2 keys text[], $3 execution ids bigint[], of equal length and sorted by scope and key
INSERT INTO noetl.subscription_dedup (subscription_id, dedup_key, execution_id)
SELECT u.scope, u.key, u.execution_id
  FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS u (scope, key, execution_id)
    ON CONFLICT (subscription_id, dedup_key) DO NOTHING;

-- name: owners
-- The execution that has each key. $1 scopes bigint[], $2 keys text[], of equal length
SELECT d.subscription_id, d.dedup_key, d.execution_id
  FROM unnest($1::bigint[], $2::text[]) AS u (scope, key)
  JOIN noetl.subscription_dedup d ON d.subscription_id = u.scope AND d.dedup_key = u.key;

-- name: purge
-- Keys older than every window that can be asked for, a few at a time.
-- $1 age int (s), $2 limit int
DELETE FROM noetl.subscription_dedup
 WHERE (subscription_id, dedup_key) IN (
        SELECT subscription_id, dedup_key
          FROM noetl.subscription_dedup
         WHERE seen_at < now() - make_interval(secs => $1::int)
         ORDER BY seen_at
         LIMIT $2::int
           FOR UPDATE SKIP LOCKED);
