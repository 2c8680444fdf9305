-- Who may call and what they did: API tokens, the audit trail, the record of every access to a secret.

CREATE TABLE IF NOT EXISTS noetl.api_token (
    token_id text PRIMARY KEY,                     -- the part of the token that may be shown
    name text NOT NULL,
    role text NOT NULL CHECK (role IN ('viewer', 'operator', 'worker', 'admin')),
    secret_sha256 bytea NOT NULL CHECK (octet_length(secret_sha256) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    expires_at timestamptz,                        -- NULL: never
    revoked_at timestamptz,
    last_used_at timestamptz
);
CREATE INDEX IF NOT EXISTS playhead_api_token_name ON noetl.api_token (name) WHERE revoked_at IS NULL;

CREATE TABLE IF NOT EXISTS noetl.audit (
    audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    occurred_at timestamptz NOT NULL,              -- of the newest call, when the row counts several
    actor text NOT NULL,                           -- 'token:ci', 'oidc:ada', 'service', 'anonymous'
    role text,
    method text NOT NULL,
    route text NOT NULL,                           -- with parameters as names: /api/executions/{execution_id}/cancel
    target jsonb,                                  -- the parameters
    execution_id bigint,
    status integer NOT NULL,
    address text,
    calls bigint NOT NULL DEFAULT 1                -- calls of the worker protocol are counted, not listed
);
CREATE INDEX IF NOT EXISTS playhead_audit_time ON noetl.audit (occurred_at);
CREATE INDEX IF NOT EXISTS playhead_audit_actor ON noetl.audit (actor, audit_id);
CREATE INDEX IF NOT EXISTS playhead_audit_execution ON noetl.audit (execution_id, audit_id) WHERE execution_id IS NOT NULL;

CREATE TABLE IF NOT EXISTS noetl.secret_access (
    audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    occurred_at timestamptz NOT NULL DEFAULT now(),
    credential text NOT NULL,                      -- name of the credential, or cache key of the keychain entry
    operation text NOT NULL,                       -- read, sealed, write, delete, keychain_read, keychain_write, keychain_delete
    outcome text NOT NULL,                         -- ok, not_found, failed
    actor text NOT NULL,
    worker_id text,
    execution_id bigint,
    parent_execution_id bigint,
    kek_version text,                              -- id of the key-encryption key that opened or sealed it
    notes text
);
CREATE INDEX IF NOT EXISTS playhead_secret_access_time ON noetl.secret_access (occurred_at);
CREATE INDEX IF NOT EXISTS playhead_secret_access_credential ON noetl.secret_access (credential, audit_id);
CREATE INDEX IF NOT EXISTS playhead_secret_access_execution ON noetl.secret_access (execution_id, audit_id)
    WHERE execution_id IS NOT NULL;
