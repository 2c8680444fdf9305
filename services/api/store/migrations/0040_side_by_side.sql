-- Side by side with the original on one database (docs/cutover.md): who runs an execution, and a fence around ours.

-- The original's inserts do not name the column, so its executions are told apart for good, whatever is appended to them later.
ALTER TABLE noetl.execution ADD COLUMN IF NOT EXISTS run_by_playhead boolean NOT NULL DEFAULT false;
UPDATE noetl.execution SET run_by_playhead = true WHERE stream_version > 0 AND NOT run_by_playhead;

-- Nobody else writes into the log of an execution that Playhead runs: a second engine would decide it, too. Our own appends
-- carry aggregate_type 'execution' and never reach the function.
CREATE OR REPLACE FUNCTION noetl.playhead_fence() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('application_name') NOT LIKE 'playhead%'
       AND EXISTS (SELECT FROM noetl.execution WHERE execution_id = NEW.execution_id AND run_by_playhead) THEN
        RAISE EXCEPTION 'execution % is run by Playhead: send this request to it', NEW.execution_id USING ERRCODE = '55000';
    END IF;
    RETURN NEW;
END
$$;
DROP TRIGGER IF EXISTS playhead_fence ON noetl.event;
CREATE TRIGGER playhead_fence BEFORE INSERT ON noetl.event
    FOR EACH ROW WHEN (NEW.aggregate_type IS DISTINCT FROM 'execution') EXECUTE FUNCTION noetl.playhead_fence();
