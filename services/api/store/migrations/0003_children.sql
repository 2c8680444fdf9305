-- Sub-playbooks: the engine starts them with the command that asks for them, and ends that command when they end.

ALTER TABLE noetl.execution
    ADD COLUMN IF NOT EXISTS parent_command_id bigint,              -- the command of the parent that waits for this execution
    ADD COLUMN IF NOT EXISTS root_execution_id bigint;              -- of a playbook that is among its own callers: their first

-- From a waiting command to its child and back; one row per execution that somebody waits for.
CREATE INDEX IF NOT EXISTS playhead_execution_parent_command
    ON noetl.execution (parent_execution_id, parent_command_id) WHERE parent_command_id IS NOT NULL;

-- Commands that no worker runs: the claimant is the engine (`ENGINE_WORKER` in store/rows.py).
CREATE INDEX IF NOT EXISTS playhead_command_child
    ON noetl.command (execution_id, command_id) WHERE worker_id = 'playhead-engine' AND status = 'RUNNING';

-- How often playbooks have called themselves below one execution.
CREATE INDEX IF NOT EXISTS playhead_execution_recursive ON noetl.execution (root_execution_id)
    WHERE root_execution_id IS NOT NULL;

-- For the reconciler's search of children nobody waits for.
CREATE INDEX IF NOT EXISTS playhead_execution_child_open
    ON noetl.execution (parent_execution_id) WHERE parent_command_id IS NOT NULL AND status = 'RUNNING';

-- The items of one loop, by index, for results that are read back from the log.
CREATE INDEX IF NOT EXISTS playhead_command_loop
    ON noetl.command (execution_id, loop_event_id, iter_index) WHERE loop_event_id IS NOT NULL;
