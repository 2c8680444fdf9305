"""Start, cancel and wake executions: the writes that do not come from a worker or a decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.api.http import not_found
from services.api.store.commit import Children, Effect, apply_effects
from services.api.store.dedup import DedupKey
from services.api.store.rows import ExecutionRow, ExecutionStatus, NewEvent
from services.api.store.stream_batch import Needs, StreamBatch
from services.api.store.stream_writer import Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class StartResult:
    """The execution that runs, and the commands issued now; none when an earlier start has the key."""

    execution_id: int
    commands: int
    duplicate: bool = False


class StartExecution(Operation[StartResult]):
    """Create an execution with its first events and what the first decision wants, unless its key is taken."""

    def __init__(
        self,
        execution_id: int,
        *,
        catalog_id: int,
        parent_execution_id: int | None,
        events: Sequence[NewEvent],
        effects: Sequence[Effect],
        state: Mapping[str, Any],
        root_id: int | None = None,
        children: Children | None = None,
        execution_pool: str | None = None,
        dedup: DedupKey | None = None,
    ) -> None:
        self.execution_id = execution_id
        self._catalog_id = catalog_id
        self._parent = parent_execution_id
        self._events = events
        self._effects = effects
        self._state = state
        self._root_id = root_id
        self._children = children or {}
        self._pool = execution_pool
        self._dedup = dedup

    def needs(self) -> Needs:
        """Take the key, if there is one."""
        return Needs(dedup=self._dedup)

    def apply(self, batch: StreamBatch) -> StartResult:
        """Append everything, or name the execution that has the key; the id is fresh, so there is nothing to refuse."""
        if self._dedup is not None:
            owner = batch.dedup_owners[self._dedup.scope, self._dedup.key]
            if owner != self.execution_id:
                return StartResult(execution_id=owner, commands=0, duplicate=True)
        execution = ExecutionRow(
            execution_id=self.execution_id,
            catalog_id=self._catalog_id,
            parent_execution_id=self._parent,
            status=ExecutionStatus.RUNNING,
            state=self._state,
            root_execution_id=self._root_id,
            execution_pool=self._pool,
            is_new=True,
        )
        batch.executions[self.execution_id] = execution
        for event in self._events:
            batch.append(execution, event)
        before = len(batch.new_commands)
        apply_effects(batch, execution, self._effects, self._children, decided_up_to=execution.stream_version)
        return StartResult(execution_id=self.execution_id, commands=len(batch.new_commands) - before)


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelResult:
    """Whether the execution was cancelled now, and its status after."""

    cancelled: bool
    status: str


class CancelExecution(Operation[CancelResult]):
    """Append `execution.cancelled` unless the execution has ended; its open commands are cancelled with it."""

    def __init__(self, execution_id: int, *, meta: Mapping[str, Any]) -> None:
        self.execution_id = execution_id
        self._meta = meta

    def apply(self, batch: StreamBatch) -> CancelResult:
        """Cancel, or report the end that was there before."""
        execution = batch.executions.get(self.execution_id)
        if execution is None:
            raise not_found(f"Execution {self.execution_id} not found")
        if execution.is_terminal:
            return CancelResult(cancelled=False, status=execution.status)
        batch.append(
            execution,
            NewEvent(
                event_type="execution.cancelled",
                node_name="cancel",
                status="CANCELLED",
                meta={**self._meta, "actionable": True},
            ),
        )
        execution.end(ExecutionStatus.CANCELLED, error=None)
        return CancelResult(cancelled=True, status=execution.status)


class FinalizeExecution(Operation[CancelResult]):
    """End an execution from outside, with the terminal events that a decision would write; unless it has ended."""

    def __init__(self, execution_id: int, *, path: str, status: ExecutionStatus, error: str | None) -> None:
        self.execution_id = execution_id
        self._path = path
        self._status = status
        self._error = error

    def apply(self, batch: StreamBatch) -> CancelResult:
        """Append `workflow.*` and `playbook.*`, or report the end that was there before."""
        execution = batch.executions.get(self.execution_id)
        if execution is None:
            raise not_found(f"Execution {self.execution_id} not found")
        if execution.is_terminal:
            return CancelResult(cancelled=False, status=execution.status)
        word = self._status.lower()
        result = {"status": self._status, "context": {"step": None, "error": self._error} if self._error else {}}
        for kind, node in (("workflow", "workflow"), ("playbook", self._path)):
            batch.append(
                execution,
                NewEvent(
                    event_type=f"{kind}.{word}",
                    node_name=node,
                    node_type=kind,
                    status=word,
                    context={"status": word, "final_step": None, "result": result, "error": self._error},
                    result=result,
                    meta={"finalized_by": "api", "actionable": True},
                    error=self._error,
                ),
            )
        execution.end(self._status, error=self._error)
        return CancelResult(cancelled=True, status=execution.status)


@dataclass(frozen=True, slots=True, kw_only=True)
class DueTimer:
    """A durable timer whose time has come."""

    execution_id: int
    timer_id: int
    purpose: str
    step_name: str | None
    command_id: int | None


class FireTimer(Operation[bool]):
    """Append `timer.fired`; True unless the execution has ended. Marking the row is the caller's, in SQL."""

    def __init__(self, timer: DueTimer) -> None:
        self.execution_id = timer.execution_id
        self._timer = timer

    def apply(self, batch: StreamBatch) -> bool:
        """Append the event; the fold ignores a timer that fired before."""
        execution = batch.executions.get(self.execution_id)
        if execution is None or execution.is_terminal:
            return False
        timer = self._timer
        batch.append(
            execution,
            NewEvent(
                event_type="timer.fired",
                node_name=timer.step_name or "workflow",
                status="COMPLETED",
                meta={"timer_id": timer.timer_id, "purpose": timer.purpose, "actionable": True},
                command_id=timer.command_id,
            ),
            actionable=True,
        )
        return True
