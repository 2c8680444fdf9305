-- name: get
-- $1 suite id text
SELECT suite_id, playbook_path, tests, metadata, updated_at FROM noetl.playbook_test_suite WHERE suite_id = $1 LIMIT 1;

-- name: put
-- $1 suite id text, $2 playbook path text, $3 tests jsonb, $4 metadata jsonb
INSERT INTO noetl.playbook_test_suite (suite_id, playbook_path, tests, metadata)
VALUES ($1, $2, $3, $4)
ON CONFLICT (suite_id) DO UPDATE
   SET playbook_path = EXCLUDED.playbook_path, tests = EXCLUDED.tests, metadata = EXCLUDED.metadata, updated_at = now()
RETURNING suite_id, playbook_path, tests, metadata, updated_at;

-- name: delete
-- $1 suite id text
DELETE FROM noetl.playbook_test_suite WHERE suite_id = $1 RETURNING suite_id;
