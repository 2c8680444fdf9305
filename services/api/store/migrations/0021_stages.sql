-- Stages of cursor loops: one per loop, found at each claim of a slot and closed after the end.
CREATE INDEX IF NOT EXISTS playhead_stage_loop ON noetl.stage (execution_id, loop_event_id);
CREATE INDEX IF NOT EXISTS playhead_stage_open ON noetl.stage (stage_id) WHERE status IN ('OPEN', 'RUNNING');
