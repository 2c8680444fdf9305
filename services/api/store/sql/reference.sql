-- name: workload_value
-- One value of an execution's merged workload, as JSON text. $1 execution id bigint, $2 name text
SELECT (context -> 'result' -> 'workload' -> $2::text)::text
  FROM noetl.event
 WHERE execution_id = $1 AND event_type = 'playbook.initialized'
 ORDER BY event_id
 LIMIT 1;

-- name: loop_size
-- Number of items of a loop. $1 execution id bigint, $2 loop id text
SELECT (context ->> 'size')::int AS size
  FROM noetl.event
 WHERE execution_id = $1 AND event_type = 'loop.started' AND context ->> 'loop_event_id' = $2
 ORDER BY event_id DESC
 LIMIT 1;

-- name: loop_items
-- What the items of a loop answered, by index; of an item that was tried again the last answer.
-- $1 execution id bigint, $2 loop id text, $3 after index int, $4 limit int
SELECT i.iter_index, e.event_type, e.node_name, e.context, e.result, e.error
  FROM (
        SELECT DISTINCT ON (c.iter_index) c.iter_index, c.call_event_id
          FROM noetl.command c
         WHERE c.execution_id = $1 AND c.loop_event_id = $2 AND c.iter_index > $3
         ORDER BY c.iter_index, c.event_id DESC
         LIMIT $4
       ) i
  LEFT JOIN LATERAL (
        SELECT v.event_type, v.node_name, v.context, v.result, v.error
          FROM noetl.event v
         WHERE v.execution_id = $1 AND v.event_id = i.call_event_id
         LIMIT 1
       ) e ON true
 ORDER BY i.iter_index
 LIMIT $4;
