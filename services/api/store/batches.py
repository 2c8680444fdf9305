"""Batch requests of events, found by their request id: ours by what they stored, the original's by its own batch events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from services.api.store.queries import queries

if TYPE_CHECKING:
    from services.api.store.database import Database, Row

UNKEYED_PREFIX = "playhead/batch/"  # of the keys that batches without one get, so that they too are found again

_SQL = queries("batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchState:
    """Where a batch request stands: accepted, processing, completed or failed."""

    execution_id: int
    state: str
    status: str
    error_code: str | None
    message: str | None
    commands_generated: int
    idempotency_key: str | None
    updated_at: datetime

    @property
    def is_final(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ("completed", "failed")


async def find(database: Database, request_id: str) -> BatchState | None:
    """Return the state of a request, None when no batch was stored under this id."""
    row = await database.fetchrow(_SQL["request_events"], request_id)
    if row is not None:
        return await _ours(database, row)
    rows = await database.fetch(_SQL["original_events"], request_id)
    return _originals(rows) if rows else None


async def _ours(database: Database, row: Row) -> BatchState:
    """Stored means accepted; decided past its last event, or nothing to decide, means completed."""
    meta: Mapping[str, Any] = row["meta"] or {}
    count = meta.get("batch_events")
    last = row["stream_version"] + (count if isinstance(count, int) else 1) - 1
    decided = row["decided_version"] >= min(last, row["actionable_version"]) or row["status"] != "RUNNING"
    issued = await database.fetchval(_SQL["commands_of_batch"], row["execution_id"], row["stream_version"], last)
    key = meta.get("idempotency_key")
    return BatchState(
        execution_id=row["execution_id"],
        state="completed" if decided else "processing",
        status="COMPLETED" if decided else "RUNNING",
        error_code=None,
        message=None,
        commands_generated=int(issued),
        idempotency_key=key if isinstance(key, str) and not key.startswith(UNKEYED_PREFIX) else None,
        updated_at=row["event_time"],
    )


def _originals(rows: list[Row]) -> BatchState:
    newest = rows[0]
    result = newest["result"] or {}
    context = result.get("context") if isinstance(result, Mapping) else None
    known: Mapping[str, Any] = context if isinstance(context, Mapping) else {}
    meta: Mapping[str, Any] = newest["meta"] or {}
    return BatchState(
        execution_id=newest["execution_id"],
        state=newest["event_type"].removeprefix("batch."),
        status=newest["status"],
        error_code=known.get("error_code"),
        message=known.get("message"),
        commands_generated=int(known.get("commands_generated") or 0),
        idempotency_key=meta.get("idempotency_key"),
        updated_at=newest["event_time"],
    )
