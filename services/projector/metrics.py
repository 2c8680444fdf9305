"""Prometheus metrics of the projector."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

PROJECTED = Counter("playhead_projector_events_total", "Event messages projected")
DEAD_LETTERED = Counter("playhead_projector_dead_lettered_total", "Messages given up")
LAG_SECONDS = Gauge("playhead_projector_lag_seconds", "Age of the newest event projected, when it was projected (s)")
PENDING = Gauge("playhead_projector_pending_messages", "Messages that wait behind the newest one projected")
BATCH_SECONDS = Histogram(
    "playhead_projector_batch_seconds",
    "Fetch to ack of one batch (s)",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
