"""`noetl.stage`: one per cursor loop, opened when the first of its slots is claimed, closed after its execution has ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from services.api.store.queries import queries

if TYPE_CHECKING:
    from services.api.store.database import Connection, Database

_SQL = queries("stage")
_EXECUTION = queries("execution")


async def opened(
    database: Database,
    execution_id: int,
    loop_event_id: str,
    *,
    step: str,
    frame_policy: Mapping[str, Any],
    next_id: Callable[[], int],
) -> int:
    """Return the stage of a loop; the first who asks opens it."""
    known = await database.fetchval(_SQL["of_loop"], execution_id, loop_event_id)
    if known is not None:
        return int(known)
    header = await database.fetchrow(_EXECUTION["watermarks"], [execution_id])
    assert header is not None
    async with database.transaction() as connection:
        await connection.execute(_SQL["lock_loop"], execution_id, loop_event_id)
        known = await connection.fetchval(_SQL["of_loop"], execution_id, loop_event_id)
        if known is not None:
            return int(known)
        stage_id, event_id = next_id(), next_id()
        await connection.execute(_SQL["open"], stage_id, execution_id, loop_event_id, step, frame_policy, event_id)
        meta = {"loop_event_id": loop_event_id, "kind": "loop", "frame_policy": frame_policy}
        place = {"execution_id": execution_id, "catalog_id": header["catalog_id"], "stage_id": stage_id}
        await _append(connection, {**place, "step_name": step}, event_id, "stage.opened", "OPEN", meta)
        return stage_id


async def close_ended(database: Database, *, limit: int, next_id: Callable[[], int]) -> int:
    """Close up to `limit` stages whose execution has ended, with the counts of their frames; return how many."""
    async with database.transaction() as connection:
        rows = await connection.fetch(_SQL["to_close"], limit)
        for row in rows:
            event_id, status = next_id(), str(row["status"])
            await connection.execute(_SQL["close"], row["stage_id"], status, event_id)
            counts = {key: row[key] for key in ("frame_count", "row_count", "events_emitted", "failed_count")}
            meta = {**counts, "loop_event_id": row["loop_event_id"], "kind": "loop"}
            await _append(connection, dict(row), event_id, "stage.closed", status, meta)
        return len(rows)


async def _append(
    connection: Connection, place: Mapping[str, Any], event_id: int, kind: str, status: str, meta: Mapping[str, Any]
) -> None:
    stage_id = str(place["stage_id"])
    document = {**meta, "stage_id": stage_id, "actionable": False, "informative": True}
    await connection.execute(
        _SQL["append_event"],
        place["execution_id"],
        place["catalog_id"],
        event_id,
        kind,
        place["step_name"],
        status,
        {"stage_id": stage_id, "loop_event_id": meta["loop_event_id"]},
        document,
        place["stage_id"],
    )
