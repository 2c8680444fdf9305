-- What a start may carry beside its workload: the pool that runs it, and a key under which it happens once.

ALTER TABLE noetl.execution ADD COLUMN IF NOT EXISTS execution_pool text; -- overrides the pool of its commands; NULL: theirs

-- The table of the original's Rust server, which side by side with us reads and writes it too.
CREATE TABLE IF NOT EXISTS noetl.subscription_dedup (
    subscription_id bigint NOT NULL,               -- the parent execution, or 0
    dedup_key text NOT NULL,
    execution_id bigint NOT NULL,                  -- what the first start under the key became
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (subscription_id, dedup_key)
);
CREATE INDEX IF NOT EXISTS playhead_dedup_seen ON noetl.subscription_dedup (seen_at);
