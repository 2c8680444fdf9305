"""Metrics of the API process. Labels are bounded: never an id, never a raw path."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds

REQUEST_SECONDS = Histogram(
    "noetl_http_request_seconds",
    "HTTP requests by route template",
    ["method", "route", "status"],
    buckets=LATENCY_BUCKETS,
)
COMMIT_SECONDS = Histogram("noetl_ingest_commit_seconds", "Write transactions", buckets=LATENCY_BUCKETS)
WRITE_BATCH_SIZE = Histogram(
    "noetl_ingest_batch_writes", "Writes that shared one transaction", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
EVENTS_APPENDED = Counter("noetl_events_appended", "Events appended to the log")
WRITE_REFUSED = Counter("noetl_ingest_refused", "Writes refused before they were tried", ["reason"])
CLAIMS = Counter("noetl_command_claims", "Answers to command claims", ["outcome"])
DECISIONS = Counter("noetl_decision_commits", "Decisions by outcome", ["outcome"])
EXECUTIONS_STARTED = Counter("noetl_executions_started", "Executions started")
DUPLICATE_STARTS = Counter("noetl_executions_duplicate", "Starts answered with an earlier execution of the same key")
EXECUTIONS_ENDED = Counter("noetl_executions_ended", "Executions ended", ["status"])
CHILDREN_ENDED = Counter("noetl_child_executions_ended", "Sub-playbooks whose parent was told of their end", ["status"])
TIMERS_FIRED = Counter("noetl_timers_fired", "Durable timers that came due")
RESULTS_OFFLOADED = Counter("noetl_results_offloaded", "Outputs sent inline that were stored by reference")
OUTBOX_CLAIMED = Counter("noetl_outbox_claimed_rows", "Outbox rows handed to publishers")
STREAM_READERS = Counter("noetl_event_stream_opened", "Event streams (SSE) opened")
SECRET_ACCESSES = Counter(
    "noetl_secret_accesses", "Accesses to credentials and keychain entries", ["operation", "outcome"]
)
AUDIT_LOST = Counter("noetl_audit_lost_rows", "Audit rows lost because the database was away for too long")
USER_SQL = Counter("noetl_user_sql_statements", "SQL statements given by people", ["outcome"])
OUTBOUND_SECONDS = Histogram(
    "noetl_api_outbound_seconds",
    "HTTP requests that the API itself makes",
    ["target", "outcome"],
    buckets=LATENCY_BUCKETS,
)
ASSISTANT_RUNS = Counter("noetl_assistant_runs", "AI playbooks run for a request", ["status"])
STREAMS_CLOSED = Counter("noetl_event_stream_closed", "Event streams that the server ended", ["reason"])
STREAMS_OPEN = Gauge("noetl_event_streams_open", "Event streams open now")
CONNECTION_LEASES = Counter("noetl_postgres_leases", "Database connections lent out")
UP = Gauge("noetl_up", "1 while the process serves")
# Names that dashboards of the original read, beside ours.
INFO = Gauge("noetl_info", "Build and server", ["version", "name"])
STARTED = Gauge("noetl_process_start_time_seconds", "Start of the process, seconds since the Unix epoch")
REQUESTS = Counter("noetl_request", "HTTP requests")
BATCHES_ACCEPTED = Counter("noetl_batch_accepted", "Event batches stored")
BATCH_QUEUE_DEPTH = Gauge("noetl_batch_queue_depth", "Writes waiting for a transaction now")
POOL_IN_USE = Gauge("noetl_postgres_connections_in_use", "Database connections lent out now")
POOL_WAITING = Gauge("noetl_postgres_requests_waiting", "Requests waiting for a database connection now")
