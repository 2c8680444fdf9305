"""`cursor_worker`: a slot of a cursor loop claims rows in the user's database until there are none, and runs tasks on each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.worker.frames import Frame, Frames
from services.worker.limits import (
    CLAIM_SQL_ATTEMPTS_MAX,
    CURSOR_CONCURRENCY_MAX,
    CURSOR_ROWS,
    CURSOR_ROWS_MAX,
    FRAME_SECONDS,
    FRAMES_SHOWN_MAX,
    RETRY_DELAY_SECONDS,
)
from services.worker.metrics import ROWS
from services.worker.scope import CommandScope
from services.worker.sequence import Sequence, Task, parse_tasks
from services.worker.tools.base import ToolError

KIND = "cursor_worker"
_WHOLE_FRAME = frozenset({"frame", "batch"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """What a slot has to do.

    `rows_max` bounds the rows of the slot, `claim_seconds` one run of the claim, whose own LIMIT says how many rows it gives.
    `whole_frame`: the tasks run once per claim, on the list of its rows.
    """

    name: str
    iterator: str
    claim: Mapping[str, Any]
    tasks: tuple[Task, ...]
    rows_max: int
    claim_seconds: float
    concurrency: int
    whole_frame: bool


@dataclass(slots=True)
class _Counts:
    """What became of the rows of a slot."""

    processed: int = 0
    failed: int = 0
    breaks: int = 0
    frames: int = 0
    shown: list[dict[str, Any]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return self.processed + self.failed

    def add(self, frame: Frame) -> None:
        self.processed += frame.rows["ok"] + frame.rows["break"]
        self.failed += frame.rows["failed"]
        self.breaks += frame.rows["break"]
        self.frames += 1
        if frame.row_count > 1 and len(self.shown) < FRAMES_SHOWN_MAX:
            self.shown.append(frame.metrics())


def slot_of(config: Mapping[str, Any]) -> Slot:
    """Read a slot from the configuration of its command.

    Raises:
        ToolError: a part is missing or of the wrong type.
    """
    cursor = config.get("cursor")
    if not isinstance(cursor, Mapping) or not isinstance(cursor.get("claim"), str) or not cursor["claim"].strip():
        raise ToolError(KIND, "BAD_CONFIG", "a cursor loop needs `loop.cursor.claim`: the statement that claims rows")
    if str(cursor.get("kind") or "postgres") != "postgres":
        raise ToolError(KIND, "BAD_CONFIG", f"cursor kind '{cursor['kind']}' is not supported; use postgres")
    given, own = config.get("frame_policy"), cursor.get("options")
    policy: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    options: Mapping[str, Any] = own if isinstance(own, Mapping) else {}
    return Slot(
        name=str(config.get("worker_slot_id") or f"slot-{config.get('worker_slot_index') or 0}"),
        iterator=str(config.get("iterator") or cursor.get("iterator") or "item"),
        claim={key: value for key, value in cursor.items() if key not in ("kind", "options", "claim", "iterator")}
        | {"query": cursor["claim"]},
        tasks=parse_tasks(config.get("tasks")),
        rows_max=_count(options, "max_iterations", CURSOR_ROWS, CURSOR_ROWS_MAX),
        claim_seconds=float(_count(policy, "max_seconds", FRAME_SECONDS, 86_400)),
        concurrency=_count(policy, "row_concurrency", 1, CURSOR_CONCURRENCY_MAX),
        whole_frame=str(policy.get("process") or "row").lower() in _WHOLE_FRAME,
    )


def _count(values: Mapping[str, Any], key: str, default: int, most: int) -> int:
    given = values.get(key)
    if given is None or given == "":
        return default
    try:
        number = float(given)
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number < float("inf"):
        raise ToolError(KIND, "BAD_CONFIG", f"`{key}` of a cursor loop must be a positive number")
    return min(max(int(number), 1), most)


class CursorSlot:
    """Runs one slot to its end: no more rows, a `break`, or the limit of rows."""

    def __init__(self, scope: CommandScope, slot: Slot, given: Mapping[str, Any], frames: Frames) -> None:
        self._scope = scope
        self._slot = slot
        self._given = given
        self._frames = frames
        self._counts = _Counts()

    async def run(self) -> dict[str, Any]:
        """Return the original's result of a slot: counts of rows and frames.

        Raises:
            ToolError: rows cannot be claimed; its data has the counts so far.
        """
        began = time.monotonic()
        try:
            rows = await self._claim()
            while rows:
                frame = Frame(index=self._counts.frames, row_count=len(rows))
                async with self._frames.kept(frame):
                    await self._process(frame, rows)
                self._counts.add(frame)
                rows = [] if self._counts.breaks or self._counts.rows >= self._slot.rows_max else await self._claim()
        except ToolError as error:
            data = {"processed": self._counts.processed, "failed": self._counts.failed, **(error.data or {})}
            raise ToolError(error.kind, error.code, error.message, retryable=error.retryable, data=data) from error
        counts = self._counts
        return {
            "status": "partial" if counts.failed else "ok",
            "processed": counts.processed,
            "failed": counts.failed,
            "breaks": counts.breaks,
            "frame_count": counts.frames,
            "frames": counts.shown,
            "worker_slot_id": self._slot.name,
            "duration_s": round(time.monotonic() - began, 3),
        }

    async def _claim(self) -> list[Any]:
        """Return the rows that one run of the claim gives, none when nothing is left. A lost connection is tried again."""
        config = {**self._slot.claim, "timeout": self._slot.claim_seconds}
        for attempt in range(1, CLAIM_SQL_ATTEMPTS_MAX + 1):
            try:
                answer = await self._scope.call("postgres", config, {}, self._scope.names)
            except ToolError as error:
                if not error.retryable or attempt == CLAIM_SQL_ATTEMPTS_MAX:
                    raise
                await self._scope.sleep(RETRY_DELAY_SECONDS * attempt)
                continue
            rows = answer.get("rows") if isinstance(answer, Mapping) else None
            return rows if isinstance(rows, list) else []
        return []

    async def _process(self, frame: Frame, rows: list[Any]) -> None:
        """Run the tasks on every row, `concurrency` at once; a `break` lets what runs end and starts no more."""
        items = [rows] if self._slot.whole_frame else rows
        waiting = iter(enumerate(items))
        first = self._counts.rows

        async def work() -> None:
            for position, item in waiting:
                if frame.rows["break"]:
                    return
                status = await self._one(frame, rows, item, position, first + position)
                for _ in range(len(rows) if self._slot.whole_frame else 1):
                    frame.count(status)
                    ROWS.labels(outcome=status).inc()

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._slot.concurrency, len(items))):
                group.create_task(work())

    async def _one(self, frame: Frame, rows: list[Any], item: Any, position: int, index: int) -> str:
        """Run the tasks on one row, or on all rows of a frame; return ok, failed or break."""
        base = self._scope.names
        own = {
            self._slot.iterator: item,
            "_index": index,
            "_worker_slot_id": self._slot.name,
            "_frame_index": frame.index,
            "_frame_row_index": position,
        }
        if self._slot.whole_frame:
            own |= {"rows": rows, "row_count": len(rows)}
        outer = base.get("iter")
        names = {**base, self._slot.iterator: item, "loop_index": index, "_index": index}
        names["iter"] = {**(outer if isinstance(outer, Mapping) else {}), **own}
        result = await Sequence(self._scope, self._slot.tasks, names, self._given).run()
        return "ok" if result["status"] == "ok" else str(result["status"])


async def run_slot(scope: CommandScope, config: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Run the slot that a command's configuration describes and return its result.

    Raises:
        ToolError: the configuration is malformed, or rows cannot be claimed.
    """
    slot = slot_of(config)
    scope.keeps_slot = slot.concurrency > 1  # one row's wait is not the whole command's
    locality = {"worker_pool": scope.settings.noetl_worker_pool_name, "runtime": "python"}
    frames = Frames(scope.api, config, scope.command.command_id, locality)
    return await CursorSlot(scope, slot, given, frames).run()
