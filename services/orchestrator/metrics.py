"""Prometheus metrics of the orchestrator."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

EVENTS = Counter("playhead_orchestrator_events_total", "Event messages handled")
DECISIONS = Counter("playhead_orchestrator_decisions_total", "Decisions by outcome of their commit", ["outcome"])
FAILURES = Counter(
    "playhead_orchestrator_undecidable_total", "Executions ended because they cannot be decided", ["kind"]
)
LOADS = Counter("playhead_orchestrator_loads_total", "Executions loaded from the API", ["reason"])
REFERENCES = Counter(
    "playhead_orchestrator_references_total", "Large results loaded because a template reached into one"
)
MISSES = Counter("playhead_orchestrator_undefined_total", "Uses of what is not defined in templates")
SNAPSHOTS = Counter("playhead_orchestrator_snapshots_total", "Snapshots of folded states by outcome", ["outcome"])
UNDECIDED = Counter("playhead_orchestrator_reconciled_total", "Executions that the reconciler found undecided")
DEAD_LETTERED = Counter("playhead_orchestrator_dead_lettered_total", "Messages that are no event")
CACHED = Gauge("playhead_orchestrator_cached_executions", "Folded executions in memory")
PENDING = Gauge("playhead_orchestrator_pending_messages", "Messages that wait behind the newest one handled")
BATCH_SECONDS = Histogram(
    "playhead_orchestrator_batch_seconds",
    "Fetch to ack of one batch (s)",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
