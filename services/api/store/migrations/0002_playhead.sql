-- What Playhead adds: per-execution versions, leases, durable timers, dead letters, read models.

-- The three watermarks of an execution's stream; see ARCHITECTURE.md.
ALTER TABLE noetl.execution
    ADD COLUMN IF NOT EXISTS stream_version bigint NOT NULL DEFAULT 0,     -- version of the newest event
    ADD COLUMN IF NOT EXISTS actionable_version bigint NOT NULL DEFAULT 0, -- newest event that may need a decision
    ADD COLUMN IF NOT EXISTS decided_version bigint NOT NULL DEFAULT 0;    -- decided up to here, by compare-and-set

-- HOT updates need free space in the page: the row changes with every batch of events.
ALTER TABLE noetl.execution SET (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

ALTER TABLE noetl.command
    ADD COLUMN IF NOT EXISTS lease_until timestamptz,   -- the claim is respected until then; renewed by heartbeats
    ADD COLUMN IF NOT EXISTS notified_at timestamptz,   -- when its notification last went to the outbox
    ADD COLUMN IF NOT EXISTS notify_count integer NOT NULL DEFAULT 0, -- how often; makes each message id new
    ADD COLUMN IF NOT EXISTS call_event_id bigint,      -- the one call.done / call.error that counts
    ADD COLUMN IF NOT EXISTS pool text;                 -- pool segment of the notification, NULL: any

ALTER TABLE noetl.outbox
    ADD COLUMN IF NOT EXISTS msg_id text,               -- Nats-Msg-Id; NULL: the event id
    ADD COLUMN IF NOT EXISTS lease_until timestamptz;   -- IN_FLIGHT until then, by the database's clock
ALTER TABLE noetl.outbox SET (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

-- aggregate_type = 'execution' sets our events apart from the original's stage and frame events, which number their own streams.
CREATE UNIQUE INDEX IF NOT EXISTS playhead_event_stream
    ON noetl.event (execution_id, stream_version) WHERE aggregate_type = 'execution';
CREATE INDEX IF NOT EXISTS playhead_event_idempotency
    ON noetl.event (execution_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS playhead_command_event ON noetl.command (event_id);
CREATE INDEX IF NOT EXISTS playhead_command_open ON noetl.command (status, notified_at)
    WHERE status IN ('PENDING', 'CLAIMED', 'RUNNING');
CREATE INDEX IF NOT EXISTS playhead_execution_undecided ON noetl.execution (updated_at)
    WHERE decided_version < actionable_version AND status = 'RUNNING';
CREATE INDEX IF NOT EXISTS playhead_execution_parent ON noetl.execution (parent_execution_id)
    WHERE parent_execution_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS playhead_outbox_in_flight ON noetl.outbox (lease_until) WHERE status = 'IN_FLIGHT';
CREATE INDEX IF NOT EXISTS playhead_outbox_published ON noetl.outbox (published_at) WHERE status = 'PUBLISHED';

CREATE TABLE IF NOT EXISTS noetl.dead_letter (
    dead_letter_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text NOT NULL,            -- 'outbox', 'orchestrator', 'projector', 'worker', 'command'
    execution_id bigint,
    subject text,
    msg_id text,
    payload jsonb,
    reason text NOT NULL,
    deliveries integer NOT NULL CHECK (deliveries >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    redriven_at timestamptz
);

CREATE TABLE IF NOT EXISTS noetl.timer (
    execution_id bigint NOT NULL,
    timer_id bigint NOT NULL,
    due_at timestamptz NOT NULL,
    purpose text NOT NULL,           -- 'retry', 'step_timeout', 'execution_timeout', ...
    step_name text,
    command_id bigint,
    fired_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (execution_id, timer_id)
);
CREATE INDEX IF NOT EXISTS playhead_timer_due ON noetl.timer (due_at) WHERE fired_at IS NULL;

-- Read models of the projector. `version` is the newest stream version that is in the row.
CREATE TABLE IF NOT EXISTS noetl.execution_summary (
    execution_id bigint PRIMARY KEY,
    version bigint NOT NULL,
    last_event_type text,
    last_node_name text,
    last_event_time timestamptz,
    commands_issued integer NOT NULL DEFAULT 0,
    commands_done integer NOT NULL DEFAULT 0,
    commands_failed integer NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS noetl.step_timing (
    execution_id bigint NOT NULL,
    command_id bigint NOT NULL,
    step_name text NOT NULL,
    issued_at timestamptz,
    started_at timestamptz,
    ended_at timestamptz,
    status text,
    attempt integer,
    PRIMARY KEY (execution_id, command_id)
);

CREATE TABLE IF NOT EXISTS noetl.result_store (
    result_id bigint PRIMARY KEY,
    execution_id bigint NOT NULL,
    name text NOT NULL,
    scope text NOT NULL,
    source_step text,
    data jsonb NOT NULL,
    bytes bigint NOT NULL,
    sha256 text NOT NULL,
    media_type text NOT NULL DEFAULT 'application/json',
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz
);
CREATE INDEX IF NOT EXISTS result_store_eid_name ON noetl.result_store (execution_id, name);

-- Event partitions ahead of time: the ranges above end in 2028; `ensure_event_partitions` adds what is missing.
-- Ids of the last day of 2027 in the app layout fall between the two families of ranges.
CREATE TABLE IF NOT EXISTS noetl.event_2028_app_gap PARTITION OF noetl.event
    FOR VALUES FROM (529448671641600000) TO (529811059507200000);

-- Create partitions of one quarter (in SQL-layout ids) after the highest bound until `horizon` is covered; returns how many.
CREATE OR REPLACE FUNCTION noetl.ensure_event_partitions(horizon timestamptz) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    wanted bigint := ((EXTRACT(EPOCH FROM horizon) * 1000)::bigint - 1704067200000) << 23;
    quarter bigint := (92 * 86400000::bigint) << 23;
    upper_bound bigint;
    created integer := 0;
BEGIN
    LOOP
        SELECT max((regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''?(\d+)''?\)'))[1]::bigint)
          INTO upper_bound
          FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'noetl.event'::regclass;
        EXIT WHEN upper_bound IS NULL OR upper_bound >= wanted OR created >= 40; -- 40 quarters: ten years
        EXECUTE format('CREATE TABLE IF NOT EXISTS noetl.event_from_%s PARTITION OF noetl.event FOR VALUES FROM (%s) TO (%s)',
                       upper_bound, upper_bound, upper_bound + quarter);
        created := created + 1;
    END LOOP;
    RETURN created;
END
$$;
SELECT noetl.ensure_event_partitions(now() + interval '2 years');
