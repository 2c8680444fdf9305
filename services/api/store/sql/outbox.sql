-- name: claim
-- Lease the oldest ready rows; parallel claimers never get the same one. The state change may be lost in a crash of
-- Postgres (the caller turns synchronous commit off): then the row is simply claimed again.
-- $1 limit int (1..1000), $2 lease seconds float
WITH ready AS (
    SELECT outbox_id
      FROM noetl.outbox
     WHERE status IN ('PENDING', 'FAILED') AND available_at <= now()
     ORDER BY outbox_id
     LIMIT $1
       FOR UPDATE SKIP LOCKED
), leased AS (
    UPDATE noetl.outbox o
       SET status = 'IN_FLIGHT', attempts = o.attempts + 1, locked_at = now(),
           lease_until = now() + make_interval(secs => $2), updated_at = now()
      FROM ready
     WHERE o.outbox_id = ready.outbox_id
    RETURNING o.outbox_id, o.event_id, o.execution_id, o.subject, o.payload::text AS payload, o.payload_codec, o.attempts,
              COALESCE(o.msg_id, o.event_id::text) AS msg_id
)
SELECT outbox_id, event_id, execution_id, subject, payload, payload_codec, attempts, msg_id FROM leased ORDER BY outbox_id;

-- name: relaxed_commit
-- For claims and marks only: losing them in a crash repeats a publish, which the message id absorbs.
SET LOCAL synchronous_commit = off;

-- name: mark_published
-- $1 outbox ids bigint[]
UPDATE noetl.outbox
   SET status = 'PUBLISHED', published_at = now(), last_error = NULL, lease_until = NULL, updated_at = now()
 WHERE outbox_id = ANY ($1::bigint[]) AND status <> 'PUBLISHED';

-- name: mark_failed
-- A published row never becomes failed. $1 outbox id bigint, $2 delay seconds float, $3 error text
UPDATE noetl.outbox
   SET status = 'FAILED', available_at = now() + make_interval(secs => $2), last_error = left($3, 2000), lease_until = NULL,
       updated_at = now()
 WHERE outbox_id = $1 AND status <> 'PUBLISHED';

-- name: dead_letter
-- Move a row that cannot be published out of the queue. $1 outbox id bigint, $2 reason text
WITH gone AS (
    DELETE FROM noetl.outbox WHERE outbox_id = $1 AND status <> 'PUBLISHED'
    RETURNING execution_id, subject, msg_id, payload, attempts
)
INSERT INTO noetl.dead_letter (source, execution_id, subject, msg_id, payload, reason, deliveries)
SELECT 'outbox', execution_id, subject, msg_id, payload, left($2, 2000), attempts FROM gone;

-- name: insert_dead_letter
-- $1 source text, $2 execution id bigint, $3 subject text, $4 msg id text, $5 payload jsonb, $6 reason text, $7 deliveries int
INSERT INTO noetl.dead_letter (source, execution_id, subject, msg_id, payload, reason, deliveries)
VALUES ($1, $2, $3, $4, $5, left($6, 2000), $7)
RETURNING dead_letter_id;

-- name: list_dead_letters
-- $1 limit int
SELECT dead_letter_id, source, execution_id, subject, msg_id, payload, reason, deliveries, created_at, redriven_at
  FROM noetl.dead_letter
 ORDER BY dead_letter_id DESC
 LIMIT $1;

-- name: pending_count
-- What a publisher could claim now.
SELECT count(*) FROM noetl.outbox WHERE status IN ('PENDING', 'FAILED') AND available_at <= now();

-- name: release_expired
-- Rows of a publisher that died become claimable. $1 limit int
WITH expired AS (
    SELECT outbox_id FROM noetl.outbox WHERE status = 'IN_FLIGHT' AND lease_until < now()
     ORDER BY lease_until LIMIT $1 FOR UPDATE SKIP LOCKED
)
UPDATE noetl.outbox o SET status = 'PENDING', lease_until = NULL, updated_at = now()
  FROM expired WHERE o.outbox_id = expired.outbox_id;

-- name: purge_published
-- $1 retention seconds float, $2 limit int
WITH old AS (
    SELECT outbox_id FROM noetl.outbox
     WHERE status = 'PUBLISHED' AND published_at < now() - make_interval(secs => $1)
     ORDER BY published_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
DELETE FROM noetl.outbox o USING old WHERE o.outbox_id = old.outbox_id;
