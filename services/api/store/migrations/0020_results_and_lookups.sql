-- Results keep what their writer says about them; events and batch requests are found by their own ids.

ALTER TABLE noetl.result_store
    ADD COLUMN IF NOT EXISTS correlation jsonb, -- the writer's ids of the work it belongs to
    ADD COLUMN IF NOT EXISTS extracted jsonb;   -- fields that a reader wants without the whole
CREATE INDEX IF NOT EXISTS playhead_result_expiry ON noetl.result_store (expires_at) WHERE expires_at IS NOT NULL;

-- GET /api/events/{event_id}: ids grow with time and rows are only appended, so block ranges find one at next to no cost of writing.
-- An expression, so that the planner does not walk the whole primary key, of which the id is only the second column, instead.
CREATE INDEX IF NOT EXISTS playhead_event_id ON noetl.event USING brin ((event_id + 0))
    WITH (pages_per_range = 16, autosummarize = on);

-- GET /api/events/batch/{request_id}/status: one entry per batch request of ours, and the original's own batch events.
-- The condition is worded so that the planner never takes this index for a lookup by the key.
CREATE INDEX IF NOT EXISTS playhead_event_request ON noetl.event ((meta ->> 'batch_request_id'))
    WHERE COALESCE(idempotency_key, '') <> '';
CREATE INDEX IF NOT EXISTS playhead_event_batch ON noetl.event ((meta ->> 'batch_request_id'))
    WHERE event_type IN ('batch.accepted', 'batch.processing', 'batch.completed', 'batch.failed');

-- Subscriptions are states of the log: found by their path, and listed.
CREATE INDEX IF NOT EXISTS playhead_event_subscription ON noetl.event (node_name, execution_id)
    WHERE event_type = 'subscription.registered';
