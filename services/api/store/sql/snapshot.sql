-- name: put
-- Keep the newest folded state of an execution that runs. $1 aggregate id text, $2 version bigint, $3 snapshot text (JSON),
-- $4 checksum text (xxh3 of the JSON text), $5 execution id bigint
INSERT INTO noetl.projection_snapshot AS s (aggregate_id, aggregate_type, version, snapshot, checksum)
SELECT $1, 'playhead_state', $2, $3::text::jsonb, $4
  FROM noetl.execution e
 WHERE e.execution_id = $5 AND e.status = 'RUNNING' AND e.stream_version >= $2
    ON CONFLICT (tenant_id, organization_id, aggregate_type, aggregate_id) DO UPDATE
   SET version = EXCLUDED.version, snapshot = EXCLUDED.snapshot, checksum = EXCLUDED.checksum, updated_at = now()
 WHERE s.version < EXCLUDED.version;

-- name: newest
-- $1 aggregate id text
SELECT version, snapshot::text AS snapshot
  FROM noetl.projection_snapshot
 WHERE tenant_id = 'default' AND organization_id = 'default' AND aggregate_type = 'playhead_state' AND aggregate_id = $1
 LIMIT 1;
