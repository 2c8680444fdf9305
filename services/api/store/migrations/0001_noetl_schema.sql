-- Schema `noetl`, wire-compatible with the original (tables, columns, checks, partitions).
-- Every statement is idempotent, so that a database created by the original passes through unchanged.
-- Of its 100 indexes only those stand here that our queries use; on the original's database the others simply stay.
CREATE SCHEMA IF NOT EXISTS noetl;

CREATE SEQUENCE IF NOT EXISTS noetl.snowflake_seq AS bigint;
CREATE SEQUENCE IF NOT EXISTS noetl.catalog_version_seq AS smallint;
CREATE SEQUENCE IF NOT EXISTS noetl.outbox_outbox_id_seq AS bigint;
CREATE SEQUENCE IF NOT EXISTS noetl.schedule_schedule_id_seq AS bigint;

-- Ids for rows that SQL inserts itself: ms since 2024-01-01 << 23 | 1 << 18 | sequence modulo 1024.
CREATE OR REPLACE FUNCTION noetl.snowflake_id() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT ((EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint - 1704067200000) << 23
         | (1::bigint << 18)
         | (nextval('noetl.snowflake_seq') % 1024)
$$;

CREATE TABLE IF NOT EXISTS noetl.resource (
    name varchar NOT NULL,
    meta jsonb,
    CONSTRAINT resource_pkey PRIMARY KEY (name)
);

CREATE TABLE IF NOT EXISTS noetl.catalog (
    catalog_id bigint NOT NULL DEFAULT noetl.snowflake_id(),
    path text NOT NULL,
    version smallint NOT NULL DEFAULT nextval('noetl.catalog_version_seq'),
    kind varchar NOT NULL,
    content text,
    layout jsonb,
    payload jsonb,
    meta jsonb,
    created_at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
    credential_id integer,
    CONSTRAINT catalog_path_version_key UNIQUE (path, version),
    CONSTRAINT catalog_pkey PRIMARY KEY (catalog_id),
    CONSTRAINT catalog_kind_fkey FOREIGN KEY (kind) REFERENCES noetl.resource(name)
);

CREATE TABLE IF NOT EXISTS noetl.transient (
    execution_id bigint NOT NULL,
    var_name text NOT NULL,
    var_type text NOT NULL,
    var_value jsonb NOT NULL,
    source_step text,
    created_at timestamptz NOT NULL DEFAULT now(),
    accessed_at timestamptz NOT NULL DEFAULT now(),
    access_count integer NOT NULL DEFAULT 0,
    expires_at timestamptz,
    scope text DEFAULT 'execution',
    CONSTRAINT transient_pkey PRIMARY KEY (execution_id, var_name),
    CONSTRAINT transient_scope_check CHECK (scope IN ('step', 'execution', 'workflow', 'permanent')),
    CONSTRAINT transient_var_type_check CHECK (var_type IN ('user_defined', 'step_result', 'computed', 'iterator_state'))
);

CREATE TABLE IF NOT EXISTS noetl.execution (
    execution_id bigint NOT NULL,
    catalog_id bigint NOT NULL,
    status varchar NOT NULL,
    start_time timestamptz,
    end_time timestamptz,
    error text,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    parent_execution_id bigint,
    last_event_type varchar,
    last_node_name varchar,
    last_event_id bigint,
    state jsonb,
    CONSTRAINT execution_pkey PRIMARY KEY (execution_id),
    CONSTRAINT execution_catalog_id_fkey FOREIGN KEY (catalog_id) REFERENCES noetl.catalog(catalog_id)
);

CREATE TABLE IF NOT EXISTS noetl.event (
    execution_id bigint NOT NULL,
    catalog_id bigint NOT NULL,
    event_id bigint NOT NULL,
    parent_event_id bigint,
    parent_execution_id bigint,
    created_at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
    event_type varchar,
    node_id varchar,
    node_name varchar,
    node_type varchar,
    status varchar,
    duration double precision,
    context jsonb,
    result jsonb,
    meta jsonb,
    error text,
    current_index integer,
    current_item text,
    worker_id varchar,
    distributed_state varchar,
    context_key varchar,
    context_value text,
    trace_component jsonb,
    stack_trace text,
    tenant_id text NOT NULL DEFAULT 'default',
    organization_id text NOT NULL DEFAULT 'default',
    stream_id text,
    stream_version bigint,
    aggregate_id text,
    aggregate_type text,
    schema_name text,
    schema_version integer NOT NULL DEFAULT 1,
    event_time timestamptz NOT NULL DEFAULT now(),
    ingest_time timestamptz NOT NULL DEFAULT now(),
    producer text,
    causation_id text,
    correlation_id text,
    idempotency_key text,
    payload_ref jsonb,
    envelope_checksum text,
    prev_event_id bigint,
    command_id bigint,
    stage_id bigint,
    frame_id bigint,
    CONSTRAINT event_pkey PRIMARY KEY (execution_id, event_id),
    CONSTRAINT event_catalog_id_fkey FOREIGN KEY (catalog_id) REFERENCES noetl.catalog(catalog_id),
    CONSTRAINT chk_event_result_shape CHECK (((result IS NULL) OR ((jsonb_typeof(result) = 'object') AND (result ? 'status') AND (jsonb_typeof((result -> 'status')) = 'string') AND ((((result - 'status') - 'reference') - 'context') = '{}'::jsonb) AND ((NOT (result ? 'reference')) OR (jsonb_typeof((result -> 'reference')) = 'object')) AND ((NOT (result ? 'context')) OR (jsonb_typeof((result -> 'context')) = 'object')))))
)
PARTITION BY RANGE (execution_id);

CREATE TABLE IF NOT EXISTS noetl.outbox (
    outbox_id bigint NOT NULL DEFAULT nextval('noetl.outbox_outbox_id_seq'),
    execution_id bigint,
    event_id bigint NOT NULL,
    subject text,
    payload jsonb NOT NULL,
    payload_bytes bytea,
    payload_codec text NOT NULL DEFAULT 'arrow-feather',
    status text NOT NULL DEFAULT 'PENDING',
    attempts integer NOT NULL DEFAULT 0,
    available_at timestamptz NOT NULL DEFAULT now(),
    locked_at timestamptz,
    published_at timestamptz,
    last_error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT outbox_execution_id_event_id_key UNIQUE (execution_id, event_id),
    CONSTRAINT outbox_pkey PRIMARY KEY (outbox_id),
    CONSTRAINT outbox_status_check CHECK (status IN ('PENDING', 'IN_FLIGHT', 'PUBLISHED', 'FAILED'))
);

CREATE TABLE IF NOT EXISTS noetl.command (
    command_id bigint NOT NULL,
    event_id bigint NOT NULL,
    execution_id bigint NOT NULL,
    catalog_id bigint NOT NULL,
    parent_execution_id bigint,
    parent_command_id bigint,
    step_name text NOT NULL,
    tool_kind text,
    status text NOT NULL DEFAULT 'PENDING',
    worker_id text,
    claimed_at timestamptz,
    started_at timestamptz,
    completed_at timestamptz,
    attempt integer NOT NULL DEFAULT 1,
    context jsonb,
    context_key text,
    loop_event_id text,
    iter_index integer,
    meta jsonb,
    result jsonb,
    error text,
    latest_event_id bigint,
    prev_event_id bigint,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    stage_id bigint,
    frame_id bigint,
    CONSTRAINT command_pkey PRIMARY KEY (execution_id, command_id)
)
PARTITION BY HASH (execution_id);

CREATE TABLE IF NOT EXISTS noetl.credential (
    id bigint NOT NULL DEFAULT noetl.snowflake_id(),
    name text NOT NULL,
    type text NOT NULL,
    data_encrypted text NOT NULL,
    schema jsonb,
    meta jsonb,
    tags text[],
    description text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT credential_name_key UNIQUE (name),
    CONSTRAINT credential_pkey PRIMARY KEY (id)
);

CREATE TABLE IF NOT EXISTS noetl.runtime (
    runtime_id bigint NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    uri text,
    status text NOT NULL,
    labels jsonb,
    capabilities jsonb,
    capacity integer,
    runtime jsonb,
    heartbeat timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT runtime_pkey PRIMARY KEY (runtime_id),
    CONSTRAINT runtime_kind_check CHECK (kind IN ('worker_pool', 'server_api', 'broker'))
);

CREATE TABLE IF NOT EXISTS noetl.schedule (
    schedule_id bigint NOT NULL DEFAULT noetl.snowflake_id(),
    playbook_path text NOT NULL,
    playbook_version text,
    cron text,
    interval_seconds integer,
    enabled boolean NOT NULL DEFAULT true,
    timezone text DEFAULT 'UTC',
    next_run_at timestamptz,
    last_run_at timestamptz,
    last_status text,
    input_payload jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    meta jsonb,
    CONSTRAINT schedule_pkey PRIMARY KEY (schedule_id)
);

CREATE TABLE IF NOT EXISTS noetl.keychain (
    cache_key text NOT NULL,
    keychain_name text NOT NULL,
    catalog_id bigint NOT NULL,
    credential_type text NOT NULL,
    cache_type text NOT NULL,
    scope_type text NOT NULL,
    execution_id bigint,
    parent_execution_id bigint,
    data_encrypted text NOT NULL,
    schema jsonb,
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    accessed_at timestamptz NOT NULL DEFAULT now(),
    access_count integer DEFAULT 0,
    auto_renew boolean DEFAULT false,
    renew_config jsonb,
    CONSTRAINT keychain_pkey PRIMARY KEY (cache_key),
    CONSTRAINT keychain_catalog_id_fkey FOREIGN KEY (catalog_id) REFERENCES noetl.catalog(catalog_id),
    CONSTRAINT keychain_cache_type_check CHECK (cache_type IN ('secret', 'token')),
    CONSTRAINT keychain_scope_type_check CHECK (scope_type IN ('local', 'global', 'shared'))
);

CREATE TABLE IF NOT EXISTS noetl.result_ref (
    ref_id bigint NOT NULL DEFAULT noetl.snowflake_id(),
    ref text NOT NULL,
    execution_id bigint NOT NULL,
    parent_execution_id bigint,
    name text NOT NULL,
    scope text NOT NULL,
    source_step text,
    store_tier text NOT NULL,
    physical_uri text,
    content_type text DEFAULT 'application/json',
    bytes_size bigint DEFAULT 0,
    sha256 text,
    compression text DEFAULT 'none',
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    accessed_at timestamptz DEFAULT now(),
    access_count integer DEFAULT 0,
    preview jsonb,
    extracted jsonb,
    correlation jsonb,
    meta jsonb,
    is_accumulated boolean DEFAULT false,
    accumulation_index integer,
    accumulation_manifest_ref text,
    CONSTRAINT result_ref_ref_key UNIQUE (ref),
    CONSTRAINT result_ref_pkey PRIMARY KEY (ref_id),
    CONSTRAINT result_ref_compression_check CHECK (compression IN ('none', 'gzip', 'lz4')),
    CONSTRAINT result_ref_scope_check CHECK (scope IN ('step', 'execution', 'workflow', 'permanent')),
    CONSTRAINT result_ref_store_tier_check CHECK (store_tier IN ('memory', 'kv', 'disk', 'object', 's3', 'gcs', 'db', 'duckdb', 'eventlog'))
);

CREATE TABLE IF NOT EXISTS noetl.manifest (
    manifest_id bigint NOT NULL DEFAULT noetl.snowflake_id(),
    ref text NOT NULL,
    execution_id bigint NOT NULL,
    strategy text NOT NULL,
    merge_path text,
    total_parts integer DEFAULT 0,
    total_bytes bigint DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    completed_at timestamptz,
    source_step text,
    correlation jsonb,
    meta jsonb,
    CONSTRAINT manifest_ref_key UNIQUE (ref),
    CONSTRAINT manifest_pkey PRIMARY KEY (manifest_id),
    CONSTRAINT manifest_strategy_check CHECK (strategy IN ('append', 'replace', 'merge', 'concat'))
);

CREATE TABLE IF NOT EXISTS noetl.manifest_part (
    manifest_id bigint NOT NULL,
    part_index integer NOT NULL,
    part_ref text NOT NULL,
    bytes_size bigint DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    meta jsonb,
    CONSTRAINT manifest_part_pkey PRIMARY KEY (manifest_id, part_index),
    CONSTRAINT manifest_part_manifest_id_fkey FOREIGN KEY (manifest_id) REFERENCES noetl.manifest(manifest_id) ON DELETE CASCADE
);

CREATE TABLE IF NOT EXISTS noetl.stage (
    stage_id bigint NOT NULL,
    execution_id bigint NOT NULL,
    parent_event_id bigint,
    parent_stage_id bigint,
    loop_event_id text,
    opened_event_id bigint,
    closed_event_id bigint,
    kind text NOT NULL,
    step_name text NOT NULL,
    dsl_ref text NOT NULL,
    status text NOT NULL DEFAULT 'OPEN',
    frame_policy jsonb NOT NULL DEFAULT '{}',
    tenant_id text NOT NULL DEFAULT 'default',
    organization_id text NOT NULL DEFAULT 'default',
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT stage_pkey PRIMARY KEY (stage_id),
    CONSTRAINT stage_execution_id_fkey FOREIGN KEY (execution_id) REFERENCES noetl.execution(execution_id),
    CONSTRAINT stage_parent_stage_id_fkey FOREIGN KEY (parent_stage_id) REFERENCES noetl.stage(stage_id),
    CONSTRAINT stage_kind_check CHECK (kind IN ('loop', 'fanout', 'reduce'))
);

CREATE TABLE IF NOT EXISTS noetl.frame (
    frame_id bigint NOT NULL,
    stage_id bigint NOT NULL,
    execution_id bigint NOT NULL,
    parent_frame_id bigint,
    command_id bigint,
    claimed_event_id bigint,
    terminal_event_id bigint,
    cursor jsonb NOT NULL DEFAULT '{}',
    row_count integer NOT NULL DEFAULT 0,
    status text NOT NULL DEFAULT 'PENDING',
    owner_worker text,
    lease_until timestamptz,
    output_ref jsonb,
    events_emitted integer NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    tenant_id text NOT NULL DEFAULT 'default',
    organization_id text NOT NULL DEFAULT 'default',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    completed_at timestamptz,
    CONSTRAINT frame_pkey PRIMARY KEY (frame_id),
    CONSTRAINT frame_execution_id_fkey FOREIGN KEY (execution_id) REFERENCES noetl.execution(execution_id),
    CONSTRAINT frame_parent_frame_id_fkey FOREIGN KEY (parent_frame_id) REFERENCES noetl.frame(frame_id),
    CONSTRAINT frame_stage_id_fkey FOREIGN KEY (stage_id) REFERENCES noetl.stage(stage_id)
);

CREATE TABLE IF NOT EXISTS noetl.projection (
    projection_id text NOT NULL,
    projection_type text NOT NULL,
    tenant_id text NOT NULL DEFAULT 'default',
    organization_id text NOT NULL DEFAULT 'default',
    execution_id bigint,
    version bigint NOT NULL,
    source_event_id bigint,
    state jsonb NOT NULL,
    checksum text NOT NULL,
    meta jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT projection_pkey PRIMARY KEY (projection_id)
);

CREATE TABLE IF NOT EXISTS noetl.projection_snapshot (
    aggregate_id text NOT NULL,
    aggregate_type text NOT NULL,
    tenant_id text NOT NULL DEFAULT 'default',
    organization_id text NOT NULL DEFAULT 'default',
    version bigint NOT NULL,
    snapshot jsonb NOT NULL,
    checksum text NOT NULL,
    meta jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT projection_snapshot_pkey PRIMARY KEY (tenant_id, organization_id, aggregate_type, aggregate_id)
);

-- Partitions of the event log by id range. Two id layouts exist: app ids (ms << 22) and SQL ids (ms << 23).
CREATE TABLE IF NOT EXISTS noetl.event_pre_2026 PARTITION OF noetl.event FOR VALUES FROM (MINVALUE) TO (264905529753600000);
CREATE TABLE IF NOT EXISTS noetl.event_2026_q1 PARTITION OF noetl.event FOR VALUES FROM (264905529753600000) TO (297520437657600000);
CREATE TABLE IF NOT EXISTS noetl.event_2026_q2 PARTITION OF noetl.event FOR VALUES FROM (297520437657600000) TO (330497733427200000);
CREATE TABLE IF NOT EXISTS noetl.event_2026_q3 PARTITION OF noetl.event FOR VALUES FROM (330497733427200000) TO (363837417062400000);
CREATE TABLE IF NOT EXISTS noetl.event_2026_q4 PARTITION OF noetl.event FOR VALUES FROM (363837417062400000) TO (397177100697600000);
CREATE TABLE IF NOT EXISTS noetl.event_2027_h1 PARTITION OF noetl.event FOR VALUES FROM (397177100697600000) TO (462769304371200000);
CREATE TABLE IF NOT EXISTS noetl.event_2027_h2 PARTITION OF noetl.event FOR VALUES FROM (462769304371200000) TO (529448671641600000);
CREATE TABLE IF NOT EXISTS noetl.event_2026_q1_standard PARTITION OF noetl.event FOR VALUES FROM (529811059507200000) TO (569000000000000000);
CREATE TABLE IF NOT EXISTS noetl.event_2026_gke PARTITION OF noetl.event FOR VALUES FROM (569000000000000000) TO (600000000000000000);
CREATE TABLE IF NOT EXISTS noetl.event_2026_q2_standard PARTITION OF noetl.event FOR VALUES FROM (600000000000000000) TO (660995466854400000);
CREATE TABLE IF NOT EXISTS noetl.event_2026_q3_standard PARTITION OF noetl.event FOR VALUES FROM (660995466854400000) TO (727674834124800000);
CREATE TABLE IF NOT EXISTS noetl.event_2026_q4_standard PARTITION OF noetl.event FOR VALUES FROM (727674834124800000) TO (794354201395200000);
CREATE TABLE IF NOT EXISTS noetl.event_2027_h1_standard PARTITION OF noetl.event FOR VALUES FROM (794354201395200000) TO (925538608742400000);
CREATE TABLE IF NOT EXISTS noetl.event_2027_h2_standard PARTITION OF noetl.event FOR VALUES FROM (925538608742400000) TO (1058897343283200000);
CREATE TABLE IF NOT EXISTS noetl.event_2028_q1_standard PARTITION OF noetl.event FOR VALUES FROM (1058897343283200000) TO (1124137159091200000);
CREATE TABLE IF NOT EXISTS noetl.event_default PARTITION OF noetl.event DEFAULT;

CREATE TABLE IF NOT EXISTS noetl.command_p00 PARTITION OF noetl.command FOR VALUES WITH (MODULUS 16, REMAINDER 0);
CREATE TABLE IF NOT EXISTS noetl.command_p01 PARTITION OF noetl.command FOR VALUES WITH (MODULUS 16, REMAINDER 1);
CREATE TABLE IF NOT EXISTS noetl.command_p02 PARTITION OF noetl.command FOR VALUES WITH (MODULUS 16, REMAINDER 2);
CREATE TABLE IF NOT EXISTS noetl.command_p03 PARTITION OF noetl.command FOR VALUES WITH (MODULUS 16, REMAINDER 3);
CREATE TABLE IF NOT EXISTS noetl.command_p04 PARTITION OF noetl.command FOR VALUES WITH (MODULUS 16, REMAINDER 4);
CREATE TABLE IF NOT EXISTS noetl.command_p05 PARTITION OF noetl.command FOR VALUES WITH (MODULUS 16, REMAINDER 5);
CREATE TABLE IF NOT EXISTS noetl.command_p06 PARTITION OF noetl.command FOR VALUES WITH (MODULUS 16, REMAINDER 6);
CREATE TABLE IF NOT EXISTS noetl.command_p07 PARTITION OF noetl.command FOR VALUES WITH (MODULUS 16, REMAINDER 7);
CREATE TABLE IF NOT EXISTS noetl.command_p08 PARTITION OF noetl.command FOR VALUES WITH (MODULUS 16, REMAINDER 8);
CREATE TABLE IF NOT EXISTS noetl.command_p09 PARTITION OF noetl.command FOR VALUES WITH (MODULUS 16, REMAINDER 9);
CREATE TABLE IF NOT EXISTS noetl.command_p10 PARTITION OF noetl.command FOR VALUES WITH (MODULUS 16, REMAINDER 10);
CREATE TABLE IF NOT EXISTS noetl.command_p11 PARTITION OF noetl.command FOR VALUES WITH (MODULUS 16, REMAINDER 11);
CREATE TABLE IF NOT EXISTS noetl.command_p12 PARTITION OF noetl.command FOR VALUES WITH (MODULUS 16, REMAINDER 12);
CREATE TABLE IF NOT EXISTS noetl.command_p13 PARTITION OF noetl.command FOR VALUES WITH (MODULUS 16, REMAINDER 13);
CREATE TABLE IF NOT EXISTS noetl.command_p14 PARTITION OF noetl.command FOR VALUES WITH (MODULUS 16, REMAINDER 14);
CREATE TABLE IF NOT EXISTS noetl.command_p15 PARTITION OF noetl.command FOR VALUES WITH (MODULUS 16, REMAINDER 15);

CREATE OR REPLACE VIEW noetl.temp_ref AS SELECT * FROM noetl.result_ref;

-- The original's view has 41 or 44 columns by age, so it is created only where it is absent.
DO $$
BEGIN
    IF to_regclass('noetl.event_log') IS NULL THEN
        CREATE VIEW noetl.event_log AS SELECT * FROM noetl.event;
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION noetl.cleanup_expired_result_refs() RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    deleted integer;
BEGIN
    DELETE FROM noetl.result_ref WHERE expires_at < now() AND scope <> 'permanent';
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;

CREATE OR REPLACE FUNCTION noetl.cleanup_execution_result_refs(p_execution_id bigint) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    deleted integer;
BEGIN
    DELETE FROM noetl.result_ref WHERE execution_id = p_execution_id AND scope IN ('step', 'execution');
    GET DIAGNOSTICS deleted = ROW_COUNT;
    DELETE FROM noetl.manifest WHERE execution_id = p_execution_id;
    RETURN deleted;
END
$$;

INSERT INTO noetl.resource (name, meta) VALUES
    ('playbook', '{"executable": true, "catalog": true, "description": "A workflow"}'),
    ('credential', '{"executable": false, "catalog": true, "description": "A secret by name"}'),
    ('mcp', '{"executable": false, "catalog": true, "description": "A tool server"}'),
    ('agent', '{"executable": true, "catalog": true, "description": "A workflow that acts as an agent"}'),
    ('memory', '{"executable": false, "catalog": true, "description": "Memory of agents"}')
ON CONFLICT (name) DO NOTHING;

CREATE INDEX IF NOT EXISTS idx_runtime_status ON noetl.runtime (status);
CREATE UNIQUE INDEX IF NOT EXISTS idx_runtime_kind_name ON noetl.runtime (kind, name);
CREATE UNIQUE INDEX IF NOT EXISTS idx_frame_claim_key_unique
    ON noetl.frame (stage_id, ((cursor ->> 'worker_slot_id')), ((cursor ->> 'frame_index')))
    WHERE (cursor ? 'worker_slot_id') AND (cursor ? 'frame_index');
CREATE INDEX IF NOT EXISTS idx_keychain_name_catalog ON noetl.keychain (keychain_name, catalog_id);
CREATE INDEX IF NOT EXISTS idx_outbox_ready ON noetl.outbox (status, available_at, outbox_id)
    WHERE status IN ('PENDING', 'FAILED');
CREATE INDEX IF NOT EXISTS idx_execution_list_page
    ON noetl.execution (COALESCE(start_time, created_at) DESC NULLS LAST, execution_id DESC)
    INCLUDE (catalog_id, parent_execution_id, status, last_event_type, last_node_name, last_event_id, end_time, error);
