"""Store what a projector (ours or another) posts: foreign events, and the read models of executions and steps.

Everything is idempotent: the JetStream ack floor is the projector's only checkpoint, so any batch may come again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from services.api.http import unprocessable
from services.api.store.database import encode_json
from services.api.store.queries import queries
from services.api.store.rows import Columns
from shared.wire.types import parse_id

if TYPE_CHECKING:
    from services.api.store.database import Connection, Database

_SQL = queries("projection")
_RESULT_KEYS = frozenset({"status", "reference", "context"})
PROJECTION_ROWS_MAX = 20_000  # rows of one read model in one request


async def project(
    database: Database, events: Sequence[Mapping[str, Any]], projections: Mapping[str, Any] | None
) -> dict[str, int]:
    """Store the events that are not in the log and the read-model rows.

    Raises:
        HttpError: 422 naming the event and field that cannot be stored; nothing of the request is.
    """
    foreign = Columns(width=18)
    for index, event in enumerate(events):
        row = _foreign_row(event, index)
        if row is not None:
            foreign.add(*row)
    timings = _timings(projections or {})
    summaries = _summaries(projections or {}, timings.values[0])
    inserted = 0
    async with database.transaction() as connection:
        if len(foreign):
            await _check_catalog(connection, foreign.values[1])
            tag = await connection.execute(_SQL["insert_foreign_events"], *foreign.values)
            inserted = int(tag.rpartition(" ")[2])
        if len(summaries):
            await connection.execute(_SQL["upsert_summaries"], *summaries.values)
        if len(timings):
            await connection.execute(_SQL["upsert_step_timings"], *timings.values)
    return {"projected": inserted, "duplicates": len(events) - inserted}


async def _check_catalog(connection: Connection, catalog_ids: list[int]) -> None:
    rows = await connection.fetch(_SQL["known_catalog_ids"], list(set(catalog_ids)))
    known = {row["catalog_id"] for row in rows}
    for index, catalog_id in enumerate(catalog_ids):
        if catalog_id not in known:
            raise unprocessable(["body", "events", index, "catalog_id"], "catalog_id is not in the catalog", catalog_id)


def _foreign_row(event: Mapping[str, Any], index: int) -> tuple[Any, ...] | None:
    """Return the columns of an event from another writer, None for one that ingest stored itself."""
    where: list[str | int] = ["body", "events", index]
    event_id, execution_id = parse_id(event.get("event_id")), parse_id(event.get("execution_id"))
    if event_id is None:
        raise unprocessable([*where, "event_id"], "event_id must be a positive integer", event.get("event_id"))
    if execution_id is None:
        raise unprocessable(
            [*where, "execution_id"], "execution_id must be a positive integer", event.get("execution_id")
        )
    if event.get("stream_id") == f"execution/{execution_id}" and event.get("stream_version"):
        return None
    result = event.get("result")
    if result is not None and not (
        isinstance(result, Mapping) and isinstance(result.get("status"), str) and set(result) <= _RESULT_KEYS
    ):
        raise unprocessable([*where, "result"], "result must be {status, context?, reference?} with a string status")
    for key in ("context", "reference"):
        if result is not None and key in result and not isinstance(result[key], Mapping):
            raise unprocessable([*where, "result", key], f"result.{key} must be an object")
    return (
        execution_id,
        parse_id(event.get("catalog_id")) or 0,
        event_id,
        parse_id(event.get("parent_event_id")),
        parse_id(event.get("parent_execution_id")),
        *(_text(event.get(key)) for key in ("event_type", "node_id", "node_name", "node_type", "status")),
        float(event["duration"]) if isinstance(event.get("duration"), int | float) else None,
        *(_json(event.get(key)) for key in ("context", "result", "meta")),
        _text(event.get("error")),
        _text(event.get("worker_id")),
        parse_id(event.get("command_id")),
        _time(event.get("timestamp") or event.get("created_at")),
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _json(value: object) -> str | None:
    return None if value is None else encode_json(value)


def _time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _rows(projections: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    rows = projections.get(key) or []
    if not isinstance(rows, list) or len(rows) > PROJECTION_ROWS_MAX:
        raise unprocessable(["body", "projections", key], f"must be a list of at most {PROJECTION_ROWS_MAX} rows")
    return [row for row in rows if isinstance(row, Mapping) and parse_id(row.get("execution_id")) is not None]


def _timings(projections: Mapping[str, Any]) -> Columns:
    """Return one row per command: a multi-row upsert may not name a key twice."""
    merged: dict[tuple[int, int], dict[str, Any]] = {}
    for row in _rows(projections, "step_timings"):
        execution_id, command_id = parse_id(row.get("execution_id")), parse_id(row.get("command_id"))
        if execution_id is None or command_id is None:
            continue
        into = merged.setdefault((execution_id, command_id), {})
        into.update({key: value for key, value in row.items() if value is not None})
    columns = Columns(width=8)
    for (execution_id, command_id), row in merged.items():
        attempt = row.get("attempt")
        columns.add(
            execution_id,
            command_id,
            str(row.get("step_name") or ""),
            *(_time(row.get(key)) for key in ("issued_at", "started_at", "ended_at")),
            _text(row.get("status")),
            attempt if isinstance(attempt, int) else None,
        )
    return columns


def _summaries(projections: Mapping[str, Any], timed: Iterable[int]) -> Columns:
    """Return one row per execution; one that only has timings (`timed`) gets a row to count in."""
    newest: dict[int, Mapping[str, Any]] = {}
    for row in _rows(projections, "summaries"):
        execution_id = parse_id(row.get("execution_id"))
        if execution_id is None:
            continue
        known = newest.get(execution_id)
        if known is None or int(row.get("version") or 0) >= int(known.get("version") or 0):
            newest[execution_id] = row
    for execution_id in timed:
        newest.setdefault(execution_id, {})
    columns = Columns(width=5)
    for execution_id in sorted(newest):
        row = newest[execution_id]
        columns.add(
            execution_id,
            int(row.get("version") or 0),
            _text(row.get("last_event_type")),
            _text(row.get("last_node_name")),
            _time(row.get("last_event_time")),
        )
    return columns
