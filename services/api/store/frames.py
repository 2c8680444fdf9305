"""`noetl.stage` and `noetl.frame`: leased units of work of a cursor loop, each in its own transaction.

Leases are the database's times. A frame belongs to its `owner_worker` until the lease is over and somebody else claims it; a
claim writes a new `claimed_event_id`, the fencing token: whoever comes with an older one, or under another name, is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.api.http import HttpError, not_found
from services.api.store.database import fetch_one
from services.api.store.queries import queries

if TYPE_CHECKING:
    from services.api.store.database import Connection, Database, Row

ATTEMPTS_MAX = 25  # claims of one frame; after that it stays where it is and its loop reports it
OPEN_STAGES = frozenset({"OPEN", "RUNNING"})
ACTIVE = frozenset({"CLAIMED", "RUNNING"})

_SQL = queries("frame")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameClaim:
    """What a worker asks for."""

    stage_id: int
    worker_id: str
    command_id: int | None
    count: int
    lease_seconds: float
    cursor: Mapping[str, Any]
    meta: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str] | None:
        """Slot and turn, when the cursor names both: then there is one frame for it and no other."""
        slot, index = self.cursor.get("worker_slot_id"), self.cursor.get("frame_index")
        return None if slot is None or index is None else (str(slot), str(index))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """Who says so: the worker and, when it sends it, the token of its claim."""

    frame_id: int
    worker_id: str
    claimed_event_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameResult:
    """How a frame ended."""

    status: str
    cursor: Mapping[str, Any]
    row_count: int
    output_ref: Mapping[str, Any] | None
    events_emitted: int
    error: str | None


async def claim(database: Database, wanted: FrameClaim, *, next_id: Callable[[], int]) -> list[dict[str, Any]]:
    """Lease up to `wanted.count` frames and return them with the id of their newest event.

    Raises:
        HttpError: 404 without the stage, 409 when it is closed or another worker holds the slot's turn.
    """
    async with database.transaction() as connection:
        stage = await fetch_one(connection, _SQL["lock_stage"], wanted.stage_id)
        if stage is None:
            raise not_found(f"stage not found: {wanted.stage_id}")
        if stage["status"] not in OPEN_STAGES or stage["execution_status"] != "RUNNING":
            status = stage["execution_status"] if stage["status"] in OPEN_STAGES else stage["status"]
            raise HttpError(409, {"code": "stage_not_open", "status": status})
        work = _Claiming(connection, stage, wanted, next_id)
        if wanted.key is not None:
            return [await work.of_slot(wanted.key)]
        return [await work.any_frame() for _ in range(wanted.count)]


class _Claiming:
    """One claim under the lock of its stage."""

    def __init__(self, connection: Connection, stage: Row, wanted: FrameClaim, next_id: Callable[[], int]) -> None:
        self._connection = connection
        self._stage = stage
        self._wanted = wanted
        self._next_id = next_id
        self._taken: list[int] = []

    async def of_slot(self, key: tuple[str, str]) -> dict[str, Any]:
        """Return the frame of a slot's turn: again, taken over, or new."""
        wanted = self._wanted
        row = await fetch_one(self._connection, _SQL["frame_of_key"], wanted.stage_id, *key)
        if row is None:
            free = await fetch_one(
                self._connection, _SQL["free_frame"], wanted.stage_id, False, ATTEMPTS_MAX, self._taken
            )
            return await self._take(free) if free is not None else await self._new()
        mine = row["owner_worker"] == wanted.worker_id and row["command_id"] in (wanted.command_id, None)
        if row["status"] in ACTIVE and row["leased"] and mine:
            renewed = await fetch_one(
                self._connection, _SQL["renew"], row["frame_id"], row["status"], wanted.lease_seconds
            )
            assert renewed is not None
            return {**dict(renewed), "event_id": renewed["claimed_event_id"]}
        held = row["status"] in ACTIVE and row["leased"]
        if held or row["status"] not in (*ACTIVE, "PENDING") or row["attempts"] >= ATTEMPTS_MAX:
            detail = {"code": "frame_claim_conflict", "stage_id": wanted.stage_id, "claim_key": ":".join(key)}
            raise HttpError(409, detail)
        return await self._take(row)

    async def any_frame(self) -> dict[str, Any]:
        """Return the oldest frame that nobody holds, or a new one."""
        row = await fetch_one(
            self._connection, _SQL["free_frame"], self._wanted.stage_id, True, ATTEMPTS_MAX, self._taken
        )
        return await self._take(row) if row is not None else await self._new()

    async def _take(self, row: Row) -> dict[str, Any]:
        if row["status"] in ACTIVE:
            await self._event(row, "frame.abandoned", "ABANDONED", {"worker_id": row["owner_worker"]})
        return await self._claim(row)

    async def _new(self) -> dict[str, Any]:
        wanted, stage = self._wanted, self._stage
        parent = await self._connection.fetchval(_SQL["last_of_worker"], wanted.stage_id, wanted.worker_id)
        frame_id = self._next_id()
        await self._connection.execute(
            _SQL["insert"],
            frame_id,
            wanted.stage_id,
            stage["execution_id"],
            parent,
            wanted.command_id,
            wanted.cursor,
            stage["tenant_id"],
            stage["organization_id"],
        )
        return await self._claim({"frame_id": frame_id, "attempts": 0, "parent_frame_id": parent})

    async def _claim(self, row: Mapping[str, Any]) -> dict[str, Any]:
        wanted = self._wanted
        self._taken.append(row["frame_id"])
        meta = {**wanted.meta, "attempt": row["attempts"] + 1, "worker_id": wanted.worker_id}
        event_id = await self._event(row, "frame.dispatched", "CLAIMED", meta)
        found = await fetch_one(
            self._connection,
            _SQL["claim"],
            row["frame_id"],
            wanted.worker_id,
            wanted.command_id,
            wanted.lease_seconds,
            event_id,
        )
        assert found is not None
        return {**dict(found), "event_id": event_id}

    async def _event(self, row: Mapping[str, Any], kind: str, status: str, meta: Mapping[str, Any]) -> int:
        event_id = self._next_id()
        command = row.get("command_id") or self._wanted.command_id
        known = {**dict(row), **dict(self._stage), "command_id": command}
        await _append(self._connection, known, event_id, kind, status, meta=meta, worker_id=self._wanted.worker_id)
        return event_id


async def heartbeat(
    database: Database, fence: Fence, *, status: str, lease_seconds: float, next_id: Callable[[], int]
) -> dict[str, Any]:
    """Extend the lease of a frame and return it.

    Raises:
        HttpError: 404 without the frame, 409 when it is not the caller's or over.
    """
    async with database.transaction() as connection:
        row = await _fenced(connection, fence)
        started = row["status"] == "RUNNING"
        renewed = await fetch_one(connection, _SQL["renew"], fence.frame_id, status, lease_seconds)
        assert renewed is not None
        event_id = next_id()
        meta = {"worker_id": fence.worker_id, "lease_until": renewed["lease_until"].isoformat()}
        kind = "frame.heartbeat" if started else "frame.started"
        await _append(connection, row, event_id, kind, status, meta=meta, worker_id=fence.worker_id)
        return {**dict(renewed), "event_id": event_id}


async def finish(
    database: Database, fence: Fence, result: FrameResult, *, next_id: Callable[[], int]
) -> dict[str, Any]:
    """End a frame and return it.

    Raises:
        HttpError: 404 without the frame, 409 when it is not the caller's or over.
    """
    async with database.transaction() as connection:
        row = await _fenced(connection, fence)
        event_id = next_id()
        done = await fetch_one(
            connection,
            _SQL["commit"],
            fence.frame_id,
            result.status,
            result.cursor,
            result.row_count,
            result.output_ref,
            result.events_emitted,
            event_id,
        )
        assert done is not None
        meta = {
            "worker_id": fence.worker_id,
            "row_count": result.row_count,
            "events_emitted": result.events_emitted,
            "cursor": result.cursor,
        }
        failed = result.status == "FAILED"
        document: dict[str, Any] = {"status": result.status}
        if failed:
            document["context"] = {"error": result.error or "the frame failed"}
        if result.output_ref:
            document["reference"] = result.output_ref
        kind = "frame.failed" if failed else "frame.committed"
        await _append(
            connection,
            row,
            event_id,
            kind,
            result.status,
            meta=meta,
            worker_id=fence.worker_id,
            result=document,
            error=result.error if failed else None,
        )
        return {**dict(done), "event_id": event_id}


async def _fenced(connection: Connection, fence: Fence) -> Row:
    row = await fetch_one(connection, _SQL["lock_frame"], fence.frame_id)
    if row is None:
        raise not_found(f"active frame not found: {fence.frame_id}")
    about = {"frame_id": fence.frame_id, "status": row["status"]}
    if row["status"] in ("COMPLETED", "FAILED"):
        raise HttpError(409, {"code": "frame_already_terminal", **about, "terminal_event_id": row["terminal_event_id"]})
    if row["status"] not in ACTIVE:
        raise HttpError(409, {"code": "frame_not_active", **about})
    stale = fence.claimed_event_id is not None and fence.claimed_event_id != row["claimed_event_id"]
    if row["owner_worker"] != fence.worker_id or stale:
        raise HttpError(409, {"code": "frame_owner_mismatch", **about, "owner_worker": row["owner_worker"]})
    return row


async def _append(
    connection: Connection,
    row: Mapping[str, Any],
    event_id: int,
    kind: str,
    status: str,
    *,
    meta: Mapping[str, Any],
    worker_id: str,
    result: Mapping[str, Any] | None = None,
    error: str | None = None,
) -> None:
    document = {
        **meta,
        "stage_id": str(row["stage_id"]),
        "frame_id": str(row["frame_id"]),
        "actionable": False,
        "informative": True,
    }
    if row.get("command_id") is not None:
        document["command_id"] = str(row["command_id"])
    if row.get("parent_frame_id") is not None:
        document["parent_frame_id"] = str(row["parent_frame_id"])
    key = f"{row['tenant_id']}/{row['organization_id']}/{row['execution_id']}/frame/{row['frame_id']}/{kind}/{event_id}"
    await connection.execute(
        _SQL["append_event"],
        row["execution_id"],
        row["catalog_id"],
        event_id,
        kind,
        row["step_name"],
        status,
        result or {"status": status},
        document,
        error,
        worker_id,
        row["stage_id"],
        row["frame_id"],
        row["tenant_id"],
        row["organization_id"],
        key,
        row.get("command_id"),
    )
