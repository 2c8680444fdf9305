-- name: undecided
-- Running executions with undecided events that nobody touched for a while. Touching them here spreads them over replicas.
-- $1 quiet seconds float, $2 limit int
WITH stale AS (
    SELECT execution_id FROM noetl.execution
     WHERE decided_version < actionable_version AND status = 'RUNNING' AND updated_at < now() - make_interval(secs => $1)
     ORDER BY updated_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE noetl.execution e SET updated_at = now() FROM stale WHERE e.execution_id = stale.execution_id
RETURNING e.execution_id;

-- name: renotify
-- Announce again, under a new message id, what nobody claimed and what a dead worker holds. The claim route decides.
-- $1 pending seconds float, $2 worker stale seconds float, $3 server url text, $4 base subject text, $5 routing bool, $6 limit int
WITH due AS (
    SELECT c.execution_id, c.command_id, c.status
      FROM noetl.command c
      JOIN noetl.execution e ON e.execution_id = c.execution_id AND e.status = 'RUNNING'
      LEFT JOIN LATERAL (
            SELECT w.status, w.heartbeat FROM noetl.runtime w WHERE w.kind = 'worker_pool' AND w.name = c.worker_id LIMIT 1
           ) r ON true
     WHERE c.status IN ('PENDING', 'CLAIMED', 'RUNNING') AND c.notified_at < now() - make_interval(secs => LEAST($1::float8, $2::float8))
       AND ((c.status = 'PENDING' AND c.notified_at < now() - make_interval(secs => $1))
        OR (c.status IN ('CLAIMED', 'RUNNING')
            AND (r.status IN ('offline', 'stopped')
                 OR (c.lease_until < now()
                     AND (r.heartbeat IS NULL OR r.heartbeat < now() - make_interval(secs => $2)
                          OR c.claimed_at < now() - interval '1800 s')))))
     ORDER BY c.notified_at
     LIMIT $6
       FOR UPDATE OF c SKIP LOCKED
), marked AS (
    UPDATE noetl.command c
       SET notified_at = now(), notify_count = c.notify_count + 1
      FROM due
     WHERE c.execution_id = due.execution_id AND c.command_id = due.command_id
    RETURNING c.execution_id, c.command_id, c.event_id, c.step_name, c.attempt, c.notify_count, c.pool, due.status
), queued AS (
    INSERT INTO noetl.outbox (execution_id, event_id, subject, payload, payload_codec, msg_id)
    SELECT execution_id, noetl.snowflake_id(),
           CASE WHEN $5 THEN $4 || '.' || COALESCE(regexp_replace(NULLIF(pool, ''), '[^A-Za-z0-9_-]', '-', 'g'), 'shared') || '.' || execution_id ELSE $4 END,
           jsonb_build_object('execution_id', execution_id, 'event_id', event_id, 'command_id', command_id,
                              'step', step_name, 'server_url', $3::text),
           'json', command_id || ':' || attempt || ':' || notify_count
      FROM marked
)
SELECT count(*) FILTER (WHERE status = 'PENDING') AS pending, count(*) FILTER (WHERE status <> 'PENDING') AS reclaimed
  FROM marked;

-- name: due_timers
-- $1 limit int
WITH due AS (
    SELECT execution_id, timer_id FROM noetl.timer WHERE fired_at IS NULL AND due_at <= now()
     ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
SELECT t.execution_id, t.timer_id, t.purpose, t.step_name, t.command_id
  FROM noetl.timer t JOIN due ON due.execution_id = t.execution_id AND due.timer_id = t.timer_id;

-- name: next_timer
-- When the next timer is due, NULL when there is none.
SELECT due_at FROM noetl.timer WHERE fired_at IS NULL ORDER BY due_at LIMIT 1;

-- name: mark_timers_fired
-- After their events are committed; a crash between the two repeats the event, which the fold ignores.
-- $1 execution ids bigint[], $2 timer ids bigint[]
UPDATE noetl.timer t SET fired_at = now()
  FROM unnest($1::bigint[], $2::bigint[]) AS k (execution_id, timer_id)
 WHERE t.execution_id = k.execution_id AND t.timer_id = k.timer_id;

-- name: mark_workers_offline
-- $1 seconds without a heartbeat float
UPDATE noetl.runtime SET status = 'offline', updated_at = now()
 WHERE kind = 'worker_pool' AND status <> 'offline' AND heartbeat < now() - make_interval(secs => $1);
