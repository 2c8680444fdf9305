"""Executions and events as the public routes show them. Pure: rows in, JSON-able dicts out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from services.api.redaction import redact

STATUS_VALUE_BYTES_MAX = 10 * 1024 * 1024  # the original's NOETL_STATUS_VALUE_MAX_BYTES
PREVIEW_ITEMS = 5  # the original's NOETL_STATUS_PREVIEW_ITEMS
TERMINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
_BEFORE_RESULTS = frozenset({"RUNNING", "CANCELLED"})  # the original names no current step before the first result


def time_z(value: datetime | None) -> str | None:
    """Return an aware or naive UTC time as ISO 8601 with microseconds and `Z`."""
    if value is None:
        return None
    utc = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return utc.isoformat(timespec="microseconds").replace("+00:00", "Z")


def time_offset(value: datetime | None) -> str | None:
    """Return an aware or naive UTC time as ISO 8601 with `+00:00`."""
    if value is None:
        return None
    utc = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return utc.isoformat()


def duration_human(seconds: float) -> str:
    """Return rounded seconds as `1d 2h 3m 4s`, zero parts left out, "0s" for none."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        amount, left = divmod(left, size)
        if amount:
            parts.append(f"{amount}{unit}")
    return " ".join(parts) or "0s"


def _duration(row: Mapping[str, Any]) -> float | None:
    start = row["start_time"]
    if start is None:
        return None
    elapsed: timedelta = (row["end_time"] or row["now"]) - start
    return round(elapsed.total_seconds(), 3)


def list_item(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item of `GET /api/executions`."""
    duration = _duration(row)
    return {
        "execution_id": str(row["execution_id"]),
        "catalog_id": str(row["catalog_id"]),
        "path": row["path"],
        "version": row["version"],
        "status": row["status"],
        "start_time": time_z(row["start_time"]),
        "end_time": time_z(row["end_time"]),
        "duration_seconds": duration,
        "duration_human": None if duration is None else duration_human(duration),
        "progress": 100 if row["status"] in TERMINAL else 0,
        "result": None,
        "error": row["error"],
        "parent_execution_id": None if row["parent_execution_id"] is None else str(row["parent_execution_id"]),
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def detail_event(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event of `GET /api/executions/{id}`: ids but its own as strings, times with `Z`."""
    created = time_z(row["created_at"])
    return {
        "execution_id": row["execution_id_text"],
        "event_id": row["event_id"],
        "event_type": row["event_type"],
        "node_id": row["node_id"],
        "node_name": row["node_name"],
        "status": row["status"],
        "created_at": created,
        "timestamp": created,
        "context": redact(row["context"]),
        "result": redact(row["result"]),
        "error": row["error"],
        "catalog_id": _text(row["catalog_id"]),
        "parent_execution_id": _text(row["parent_execution_id"]),
        "parent_event_id": _text(row["parent_event_id"]),
        "duration": row["duration"],
    }


def log_event(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event of `GET /api/executions/{id}/events`: ids as numbers, times with `+00:00`, and keys in its own order."""
    created = time_offset(row["created_at"])
    document = {
        **detail_event(row),
        "created_at": created,
        "catalog_id": row["catalog_id"],
        "parent_execution_id": row["parent_execution_id"],
        "parent_event_id": row["parent_event_id"],
    }
    execution_id = document.pop("execution_id")
    del document["timestamp"]
    return {**document, "execution_id": execution_id, "timestamp": created}


def pagination(*, page: int, page_size: int, total: int) -> dict[str, Any]:
    """Return the paging object; there is always at least one page."""
    pages = max(1, -(-total // page_size))
    return {
        "page": page,
        "page_size": page_size,
        "total_events": total,
        "total_pages": pages,
        "has_next": page < pages,
        "has_prev": page > 1,
    }


def _compact(value: object) -> object:
    data = orjson.dumps(value, default=str)
    if len(data) <= STATUS_VALUE_BYTES_MAX:
        return value
    preview: object = value[:PREVIEW_ITEMS] if isinstance(value, list) else f"<{type(value).__name__}>"
    return {"_truncated": True, "_original_size_bytes": len(data), "_preview": preview}


def status_document(row: Mapping[str, Any], *, full: bool) -> dict[str, Any]:
    """Return `GET /api/executions/{id}/status`: the union of what every client reads.

    The CLI and Python workers read the booleans, Rust workers and the GUI the upper-case `status`. `completed` is true for a
    success and a cancellation; for a failure both booleans are true, because the CLI prints FAILED only then.
    """
    state: Mapping[str, Any] = row["state"] or {}
    status: str = row["status"]
    variables = redact(state.get("variables") or {})
    if not full and isinstance(variables, dict):
        variables = {key: _compact(value) for key, value in variables.items()}
    steps = list(state.get("completed_steps") or [])
    duration = _duration(row)
    original = {
        "execution_id": str(row["execution_id"]),
        "current_step": state.get("current_step") if steps or status not in _BEFORE_RESULTS else None,
        "completed_steps": steps,
        "failed": status == "FAILED",
        "completed": status in TERMINAL,
        "completion_inferred": row["inferred"],
        "variables": variables,
        "start_time": time_offset(row["start_time"]),
        "end_time": time_offset(row["end_time"]),
        "duration_seconds": duration,
        "duration_human": None if duration is None else duration_human(duration),
    }
    return original | {
        "status": status,
        "cancelled": status == "CANCELLED",
        "is_cancelled": status == "CANCELLED",
        "error": row["error"],
        "progress": {
            "total_steps": None,
            "completed_steps": len(steps),
            "running_steps": 0 if status in TERMINAL else 1,
            "failed_steps": 1 if status == "FAILED" else 0,
        },
        "path": row["path"],
        "version": row["version"],
    }


def envelope(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored event as the envelope of docs/contracts.md section 2."""
    document = dict(row)
    for key in ("event_time", "ingest_time", "created_at"):
        document[key] = time_offset(document[key])
    return document
