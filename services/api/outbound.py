"""HTTP requests that the API itself makes: each has a span and its time by target and outcome."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from services.api.metrics import OUTBOUND_SECONDS
from shared.platform.tracing import span


@contextmanager
def outbound(target: str) -> Iterator[None]:
    """Measure a request to `target`, which is one of a few names; an exception counts as failed."""
    started = time.perf_counter()
    outcome = "failed"
    try:
        with span(f"outbound {target}"):
            yield
        outcome = "ok"
    finally:
        OUTBOUND_SECONDS.labels(target, outcome).observe(time.perf_counter() - started)
