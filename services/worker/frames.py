"""The server's bookkeeping of a cursor loop's frames: optional, so what goes wrong here is logged and nothing more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from services.worker.limits import FRAME_HEARTBEAT_SECONDS_MIN, FRAME_LEASE_SECONDS_MAX, FRAME_LEASE_SECONDS_MIN
from shared.platform.errors import ApiRefusedError, ApiUnavailableError

log = logging.getLogger(__name__)


class AsksApi(Protocol):
    """Where frames are kept, as `services.worker.api.WorkerApi`."""

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """Make one call."""


@dataclass(slots=True)
class Frame:
    """Rows that were claimed together, and what became of them."""

    index: int
    row_count: int
    rows: dict[str, int] = field(default_factory=lambda: {"ok": 0, "failed": 0, "break": 0})
    frame_id: int | None = None
    cursor: Mapping[str, Any] = field(default_factory=dict)

    def count(self, status: str) -> None:
        """Count a row that ended as ok, failed or break."""
        self.rows[status] += 1

    def metrics(self) -> dict[str, Any]:
        """Return what a person wants to know of it."""
        return {"frame_index": self.index, "row_count": self.row_count, "metrics": {"rows": dict(self.rows)}}


class Frames:
    """Frames of one slot of one stage; without a stage, nothing is kept."""

    def __init__(self, api: AsksApi, config: Mapping[str, Any], command_id: int, locality: Mapping[str, str]) -> None:
        self._api = api
        self._stage_id = config.get("stage_id")
        policy = config.get("frame_policy")
        self._policy: Mapping[str, Any] = policy if isinstance(policy, Mapping) else {}
        self._slot = str(config.get("worker_slot_id") or f"slot-{config.get('worker_slot_index') or 0}")
        self._command_id = command_id
        self._locality = locality
        self._cursor = {"kind": "postgres", "iterator": config.get("iterator"), "worker_slot_id": self._slot}
        self._lease = _seconds(self._policy, "lease_seconds", 120.0, FRAME_LEASE_SECONDS_MIN, FRAME_LEASE_SECONDS_MAX)
        self._interval = _seconds(
            self._policy, "heartbeat_seconds", 30.0, FRAME_HEARTBEAT_SECONDS_MIN, FRAME_LEASE_SECONDS_MAX
        )

    @asynccontextmanager
    async def kept(self, frame: Frame) -> AsyncIterator[None]:
        """Claim the frame, renew its lease while the block runs, and commit it afterwards with what its rows became."""
        if self._stage_id is None:
            yield
            return
        await self._claim(frame)
        async with asyncio.TaskGroup() as group:
            beating = group.create_task(self._beat(frame))
            try:
                yield
            finally:
                beating.cancel()
        await self._commit(frame)

    async def _claim(self, frame: Frame) -> None:
        frame.cursor = {**self._cursor, "row_count": frame.row_count, "frame_index": frame.index}
        body = {
            "worker_id": self._slot,
            "command_id": self._command_id,
            "requested_count": 1,
            "lease_seconds": int(self._lease),
            "frame_policy": self._policy,
            "locality": self._locality,
            "cursor": frame.cursor,
        }
        answer = await self._ask(f"/api/stages/{self._stage_id}/frames/claim", body)
        found = answer.get("frames") if isinstance(answer, Mapping) else None
        if isinstance(found, list) and found and isinstance(found[0], Mapping):
            frame.frame_id = found[0].get("frame_id")

    async def _beat(self, frame: Frame) -> None:
        body = {"worker_id": self._slot, "status": "RUNNING", "lease_seconds": int(self._lease)}
        while frame.frame_id is not None:
            await self._ask(f"/api/frames/{frame.frame_id}/heartbeat", body)
            await asyncio.sleep(self._interval)

    async def _commit(self, frame: Frame) -> None:
        if frame.frame_id is None:
            return
        failed = frame.rows["failed"] > 0
        body = {
            "worker_id": self._slot,
            "status": "FAILED" if failed else "COMPLETED",
            "row_count": frame.row_count,
            "output_ref": None,
            "events_emitted": frame.row_count,
            "cursor": {**frame.cursor, "metrics": {"rows": dict(frame.rows)}},
            "error": f"{frame.rows['failed']} of {frame.row_count} rows failed" if failed else None,
        }
        await self._ask(f"/api/frames/{frame.frame_id}/commit", body)

    async def _ask(self, path: str, body: Mapping[str, Any]) -> Any:
        try:
            return await self._api.ask("POST", path, body)
        except (ApiUnavailableError, ApiRefusedError) as error:
            log.info("frame not kept by the server", extra={"command_id": self._command_id, "error": str(error)})
            return None


def _seconds(policy: Mapping[str, Any], key: str, default: float, least: float, most: float) -> float:
    given = policy.get(key)
    known = isinstance(given, int | float) and not isinstance(given, bool)
    return min(max(float(given) if known else default, least), most)  # type: ignore[arg-type]
