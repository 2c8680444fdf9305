-- Statements of transfers on users' tables. Names in braces are quoted identifiers or the author's own query.

-- name: select
SELECT {columns}
  FROM (
{query}
) AS source

-- name: table
TABLE {table}

-- name: truncate
TRUNCATE {table}

-- name: keys
-- The primary key's columns, in order. $1: the table as text.
SELECT a.attname AS name
  FROM pg_index i
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
 WHERE i.indrelid = $1::regclass AND i.indisprimary
 ORDER BY array_position(i.indkey::int2[], a.attnum)

-- name: stage
CREATE TEMP TABLE {staging} (LIKE {table}, {order} bigserial) ON COMMIT DROP

-- name: stage_nulls
ALTER TABLE {staging} {actions}

-- name: stage_null
ALTER COLUMN {column} DROP NOT NULL

-- name: upsert
-- Of rows with one key the last wins.
INSERT INTO {table} ({columns})
SELECT DISTINCT ON ({keys}) {columns}
  FROM {staging}
 ORDER BY {keys}, {order} DESC
ON CONFLICT ({keys}) DO {action}
