-- Test suites of the GUI's test lab. The original keeps them as files of one server; replicas share a table.
CREATE TABLE IF NOT EXISTS noetl.playbook_test_suite (
    suite_id text PRIMARY KEY,
    playbook_path text NOT NULL,
    tests jsonb NOT NULL,
    metadata jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
