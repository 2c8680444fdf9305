-- name: insert
-- One row per index. $1 times timestamptz[], $2 actors, $3 roles, $4 methods, $5 routes text[], $6 targets jsonb[],
-- $7 execution ids bigint[], $8 statuses int[], $9 addresses text[], $10 calls bigint[]
INSERT INTO noetl.audit (occurred_at, actor, role, method, route, target, execution_id, status, address, calls)
SELECT * FROM unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::text[], $6::jsonb[], $7::bigint[], $8::int[],
                     $9::text[], $10::bigint[]);

-- name: list
-- Newest first. $1 actor, $2 route or its beginning text or NULL, $3 execution id bigint or NULL, $4 from, $5 to timestamptz or NULL,
-- $6 only rows before this audit id bigint or NULL, $7 limit int
SELECT audit_id, occurred_at, actor, role, method, route, target, execution_id, status, address, calls
  FROM noetl.audit
 WHERE ($1::text IS NULL OR actor = $1)
   AND ($2::text IS NULL OR starts_with(route, $2))
   AND ($3::bigint IS NULL OR execution_id = $3)
   AND ($4::timestamptz IS NULL OR occurred_at >= $4)
   AND ($5::timestamptz IS NULL OR occurred_at < $5)
   AND ($6::bigint IS NULL OR audit_id < $6)
 ORDER BY audit_id DESC
 LIMIT $7::int;

-- name: list_of_actor
-- As `list`, along the index of $1 actor text; $2 route or its beginning text or NULL, $3 execution id bigint or NULL, $4 from, $5 to timestamptz or NULL,
-- $6 only rows before this audit id bigint or NULL, $7 limit int
SELECT audit_id, occurred_at, actor, role, method, route, target, execution_id, status, address, calls
  FROM noetl.audit
 WHERE actor = $1::text
   AND ($2::text IS NULL OR starts_with(route, $2))
   AND ($3::bigint IS NULL OR execution_id = $3)
   AND ($4::timestamptz IS NULL OR occurred_at >= $4)
   AND ($5::timestamptz IS NULL OR occurred_at < $5)
   AND ($6::bigint IS NULL OR audit_id < $6)
 ORDER BY audit_id DESC
 LIMIT $7::int;

-- name: list_of_execution
-- As `list`, along the index of $3. $1 actor, $2 route or its beginning text or NULL, $3 execution id bigint, $4 from, $5 to timestamptz or NULL,
-- $6 only rows before this audit id bigint or NULL, $7 limit int
SELECT audit_id, occurred_at, actor, role, method, route, target, execution_id, status, address, calls
  FROM noetl.audit
 WHERE ($1::text IS NULL OR actor = $1)
   AND ($2::text IS NULL OR starts_with(route, $2))
   AND execution_id = $3::bigint
   AND ($4::timestamptz IS NULL OR occurred_at >= $4)
   AND ($5::timestamptz IS NULL OR occurred_at < $5)
   AND ($6::bigint IS NULL OR audit_id < $6)
 ORDER BY audit_id DESC
 LIMIT $7::int;

-- name: purge
-- $1 age in seconds float, $2 limit int
DELETE FROM noetl.audit
 WHERE audit_id IN (SELECT audit_id
                      FROM noetl.audit
                     WHERE occurred_at < now() - make_interval(secs => $1)
                     ORDER BY occurred_at
                     LIMIT $2::int);

-- name: record_access
-- $1 credential, $2 operation, $3 outcome, $4 actor, $5 worker id text or NULL, $6 execution id, $7 parent execution id bigint or NULL,
-- $8 key id, $9 notes text or NULL
INSERT INTO noetl.secret_access (credential, operation, outcome, actor, worker_id, execution_id, parent_execution_id, kek_version, notes)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: list_accesses
-- Newest first. $1 credential text or NULL, $2 execution id bigint or NULL, $3 from, $4 to timestamptz or NULL,
-- $5 only rows before this audit id bigint or NULL, $6 limit int
SELECT audit_id, occurred_at, credential, operation, outcome, actor, worker_id, execution_id, parent_execution_id, kek_version, notes
  FROM noetl.secret_access
 WHERE ($1::text IS NULL OR credential = $1)
   AND ($2::bigint IS NULL OR execution_id = $2)
   AND ($3::timestamptz IS NULL OR occurred_at >= $3)
   AND ($4::timestamptz IS NULL OR occurred_at < $4)
   AND ($5::bigint IS NULL OR audit_id < $5)
 ORDER BY audit_id DESC
 LIMIT $6::int;

-- name: list_accesses_of_credential
-- As `list_accesses`, along the index of $1 credential text, $2 execution id bigint or NULL, $3 from, $4 to timestamptz or NULL,
-- $5 only rows before this audit id bigint or NULL, $6 limit int
SELECT audit_id, occurred_at, credential, operation, outcome, actor, worker_id, execution_id, parent_execution_id, kek_version, notes
  FROM noetl.secret_access
 WHERE credential = $1::text
   AND ($2::bigint IS NULL OR execution_id = $2)
   AND ($3::timestamptz IS NULL OR occurred_at >= $3)
   AND ($4::timestamptz IS NULL OR occurred_at < $4)
   AND ($5::bigint IS NULL OR audit_id < $5)
 ORDER BY audit_id DESC
 LIMIT $6::int;

-- name: list_accesses_of_execution
-- As `list_accesses`, along the index of $2. $1 credential text or NULL, $2 execution id bigint, $3 from, $4 to timestamptz or NULL,
-- $5 only rows before this audit id bigint or NULL, $6 limit int
SELECT audit_id, occurred_at, credential, operation, outcome, actor, worker_id, execution_id, parent_execution_id, kek_version, notes
  FROM noetl.secret_access
 WHERE ($1::text IS NULL OR credential = $1)
   AND execution_id = $2::bigint
   AND ($3::timestamptz IS NULL OR occurred_at >= $3)
   AND ($4::timestamptz IS NULL OR occurred_at < $4)
   AND ($5::bigint IS NULL OR audit_id < $5)
 ORDER BY audit_id DESC
 LIMIT $6::int;

-- name: purge_accesses
-- $1 age in seconds float, $2 limit int
DELETE FROM noetl.secret_access
 WHERE audit_id IN (SELECT audit_id
                      FROM noetl.secret_access
                     WHERE occurred_at < now() - make_interval(secs => $1)
                     ORDER BY occurred_at
                     LIMIT $2::int);
