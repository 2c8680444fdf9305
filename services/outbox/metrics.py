"""Prometheus metrics of the outbox publisher."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

PUBLISHED = Counter("playhead_outbox_published_total", "Rows published and marked")
REFUSED = Counter("playhead_outbox_refused_total", "Publishes without an ack", ["kind"])
DEAD_LETTERED = Counter("playhead_outbox_dead_lettered_total", "Rows given up")
PENDING = Gauge("playhead_outbox_pending_rows", "Rows that wait, as of the last look")
BATCH_SECONDS = Histogram(
    "playhead_outbox_batch_seconds",
    "Claim to mark of one batch (s)",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
