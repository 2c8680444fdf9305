"""Sub-playbooks: prepare those that a decision starts, and tell their parents when they have ended.

`prepare` looks up what is to be started before the write transaction; `ChildWatch` acts after commits, and what it misses
(a crash, a full queue) the reconciler finds by query.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

from services.api.http import HttpError
from services.api.metrics import CHILDREN_ENDED, EXECUTIONS_STARTED
from services.api.playbooks import requested_version
from services.api.store.children import ChildStart, EndChild
from services.api.store.commit import Children, Effect, new_event
from services.api.store.lifecycle import CancelExecution
from services.api.store.queries import queries
from services.api.store.rows import ExecutionStatus, NewEvent
from services.api.store.stream_writer import Committed
from shared.engine import ROUTING_KEY, IssueCommand, initial_events
from shared.engine.limits import CHILD_DEPTH_MAX
from shared.platform.tracing import span
from shared.wire.types import parse_id

if TYPE_CHECKING:
    from services.api.context import ApiContext
    from services.api.playbooks import Entry
    from services.api.store.database import Row

log = logging.getLogger(__name__)

_SQL = queries("child")
PENDING_MAX = 10_000  # executions whose end waits to be told; beyond, the reconciler finds them
BATCH_MAX = 200  # children told, or cancelled, in one pass


# --- starting ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """An execution and who has started it: the paths, nearest first, and the id of the first."""

    paths: tuple[str, ...]
    root_id: int


class RecursionRefusedError(Exception):
    """A sub-playbook is not started, because playbooks call themselves without end."""


async def lineages_of(context: ApiContext, execution_ids: Sequence[int]) -> dict[int, Lineage]:
    """Return the lineage of each execution."""
    if not execution_ids:
        return {}
    rows = await context.database.fetch(_SQL["lineages"], list(execution_ids), CHILD_DEPTH_MAX + 1)
    return {row["origin"]: Lineage(paths=tuple(row["paths"]), root_id=row["root_id"]) for row in rows}


class Starter:
    """Prepares the sub-playbooks of one request, and counts those that call themselves: of one request too."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._recursions: dict[int, int] = {}  # by the first caller

    async def recursion_root(self, parents: Lineage | None, path: str) -> int | None:
        """Return the execution below which `path` is about to call itself, None when it is not among its callers.

        Raises:
            RecursionRefusedError: too deep, or too often.
        """
        if parents is None:
            return None
        if len(parents.paths) > CHILD_DEPTH_MAX:
            text = f"playbooks call each other more than {CHILD_DEPTH_MAX} deep: does one call itself?"
            raise RecursionRefusedError(text)
        if path not in parents.paths:
            return None
        root, limit = parents.root_id, self._context.settings.noetl_recursive_calls_max
        count = self._recursions.get(root)
        if count is None:
            count = await self._context.database.fetchval(_SQL["recursions"], root, limit)
        if count >= limit:
            text = f"playbooks have called themselves {limit} times below execution {root}"
            raise RecursionRefusedError(f"{text}: '{path}' is not started again")
        self._recursions[root] = count + 1
        return root

    async def prepare(self, effects: Iterable[Effect], *, parents: Lineage | None) -> Children:
        """Return what to start for the commands among `effects` that ask for a sub-playbook; `parents` issues them."""
        found: dict[int, ChildStart] = {}
        for effect in effects:
            if isinstance(effect, IssueCommand) and effect.child is not None:
                found[effect.command_id] = await self._prepared(effect.child, parents)
        if found:
            EXECUTIONS_STARTED.inc(sum(child.problem is None for child in found.values()))
        return found

    async def _prepared(self, wanted: Mapping[str, Any], parents: Lineage | None) -> ChildStart:
        waits = wanted.get("wait") is True
        path = wanted.get("path")
        try:
            entry = await self._context.playbooks.find(
                path=path if isinstance(path, str) else None,
                catalog_id=parse_id(wanted.get("catalog_id")),
                version=requested_version(wanted.get("version")),
            )
            root_id = await self.recursion_root(parents, entry.path)
        except HttpError as error:
            return ChildStart(waits=waits, problem=str(error.detail))
        except asyncpg.DataError:  # a ValueError of the driver's: a NUL in the path, say
            return ChildStart(waits=waits, problem="the database refuses the path of the sub-playbook")
        except (RecursionRefusedError, ValueError) as error:
            return ChildStart(waits=waits, problem=str(error))
        events = first_events(self._context, entry, payload=wanted.get("payload") or {})
        events[-1].meta = {ROUTING_KEY: {"undecided": True}}
        return ChildStart(
            waits=waits,
            execution_id=self._context.ids.next(),
            catalog_id=entry.catalog_id,
            path=entry.path,
            root_id=root_id,
            events=events,
            state={"current_step": None, "completed_steps": [], "variables": {}, "failed": False, "completed": False},
        )


def first_events(context: ApiContext, entry: Entry, *, payload: Mapping[str, Any]) -> list[NewEvent]:
    """Return the initial events of an execution with their ids, the first being the parent of the rest."""
    events: list[NewEvent] = []
    wanted = initial_events(entry.playbook, payload=payload, path=entry.path, version=entry.version)
    for effect in wanted:
        event = new_event(effect)
        event.parent_event_id = events[0].event_id if events else None
        event.event_id = context.ids.next()
        events.append(event)
    return events


# --- ends -------------------------------------------------------------------------------------------------------------


class ChildWatch:
    """Tells parents of ended children, and ends children that nobody waits for."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._ended: set[int] = set()
        self._orphaned: set[int] = set()
        self._wake = asyncio.Event()

    def committed(self, change: Committed) -> None:
        """Note what a commit has ended; never blocks."""
        for row in change.ended:
            if row.parent_command_id is not None and len(self._ended) < PENDING_MAX:
                self._ended.add(row.execution_id)
        # One that has completed waits for nobody; one that ended otherwise may leave children behind.
        unfinished = (row.execution_id for row in change.ended if row.status != ExecutionStatus.COMPLETED)
        orphaned = change.orphaned.union(unfinished)
        if len(self._orphaned) < PENDING_MAX:
            self._orphaned |= orphaned
        if self._ended or self._orphaned:
            self._wake.set()

    def wake(self) -> None:
        """Make `run` look at its stop event."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Act on what was noted until `stop`; what fails is left to the reconciler."""
        while not stop.is_set():
            await self._wake.wait()
            self._wake.clear()
            ended, self._ended = self._ended, set()
            orphaned, self._orphaned = self._orphaned, set()
            try:
                await self._tell(sorted(ended))
                await self._release(sorted(orphaned))
            except HttpError as error:
                log.warning("ends of children left to the reconciler", extra={"status": error.status})
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                log.warning("ends of children left to the reconciler", extra={"error": type(error).__name__})

    async def _tell(self, children: list[int]) -> None:
        for start in range(0, len(children), BATCH_MAX):
            chunk = children[start : start + BATCH_MAX]
            rows = await self._context.database.fetch(_SQL["ended_children_of"], chunk, BATCH_MAX)
            await tell_parents(self._context, rows)

    async def _release(self, parents: list[int]) -> None:
        for start in range(0, len(parents), BATCH_MAX):
            chunk = parents[start : start + BATCH_MAX]
            rows = await self._context.database.fetch(_SQL["orphans_of"], chunk, BATCH_MAX)
            await _cancel_orphans(self._context, rows)


async def tell_parents(context: ApiContext, rows: Iterable[Row]) -> int:
    """End the commands that wait for these ended children; return how many were open."""
    told = 0
    for row in rows:
        child_id = row["execution_id"]
        failed, response, error = await _outcome(context, row)
        operation = EndChild(
            row["parent_execution_id"],
            command_id=row["parent_command_id"],
            child_id=child_id,
            failed=failed,
            response=response,
            error=error,
        )
        fields = {"execution_id": row["parent_execution_id"], "child_execution_id": child_id, "status": row["status"]}
        with span("end of child", execution_id=row["parent_execution_id"]):
            if await context.writer.submit(operation):
                told += 1
                CHILDREN_ENDED.labels(status=row["status"]).inc()
                log.info("parent told of its child's end", extra=fields)
    return told


async def _outcome(context: ApiContext, row: Row) -> tuple[bool, dict[str, Any], str | None]:
    """Return whether the child fails its command, what the command answers, and the error."""
    terminal = await context.database.fetchrow(queries("execution")["terminal_result"], row["execution_id"])
    result = (terminal["result"] or {}).get("context") if terminal is not None else None
    status, state = row["status"], row["state"] or {}
    error = row["error"]
    if status != "COMPLETED":
        reason = error or ("it was cancelled" if status == "CANCELLED" else "it failed")
        error = f"sub-playbook {row['path']} (execution {row['execution_id']}): {reason}"
    response = {
        **(result if isinstance(result, Mapping) else {}),
        "execution_id": str(row["execution_id"]),
        "path": row["path"],
        "version": row["version"],
        "status": status,
        "completed": True,
        "failed": status == "FAILED",
        "cancelled": status == "CANCELLED",
        "current_step": state.get("current_step"),
        "completed_steps": state.get("completed_steps") or [],
        "variables": state.get("variables") or {},
        "result": result,
        "data": result,
        "error": error,
    }
    child = (row["meta"] or {}).get(ROUTING_KEY, {}).get("child") or {}
    ignored = status == "FAILED" and child.get("ignore_failure") is True
    return status != "COMPLETED" and not ignored, response, None if ignored else error


async def _cancel_orphans(context: ApiContext, rows: Iterable[Row]) -> int:
    cancelled = 0
    meta = {"reason": "the step that waited for it is over", "cancelled_by": "engine", "cascade": True}
    for row in rows:
        outcome = await context.writer.submit(CancelExecution(row["execution_id"], meta=meta))
        cancelled += outcome.cancelled
    return cancelled


async def reconcile_children(context: ApiContext, *, limit: int) -> int:
    """Do what `ChildWatch` has missed, `limit` children of each kind at most; return how many there were."""
    ended = await context.database.fetch(_SQL["ended_children"], limit)
    orphans = await context.database.fetch(_SQL["orphans"], limit)
    return await tell_parents(context, ended) + await _cancel_orphans(context, orphans)
