"""Start, cancel and wake executions: the writes that do not come from a worker or a decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.api.http import not_found
from services.api.store.commit import Children, Effect, apply_effects
from services.api.store.rows import ExecutionRow, ExecutionStatus, NewEvent
from services.api.store.stream_batch import StreamBatch
from services.api.store.stream_writer import Operation


class StartExecution(Operation[int]):
    """Create an execution with its first events and what the first decision wants; answers the commands issued."""

    def __init__(
        self,
        execution_id: int,
        *,
        catalog_id: int,
        parent_execution_id: int | None,
        events: Sequence[NewEvent],
        effects: Sequence[Effect],
        state: Mapping[str, Any],
        depth: int = 0,
        children: Children | None = None,
    ) -> None:
        self.execution_id = execution_id
        self._catalog_id = catalog_id
        self._parent = parent_execution_id
        self._events = events
        self._effects = effects
        self._state = state
        self._depth = depth
        self._children = children or {}

    def apply(self, batch: StreamBatch) -> int:
        """Append everything; the id is fresh, so there is nothing to refuse."""
        execution = ExecutionRow(
            execution_id=self.execution_id,
            catalog_id=self._catalog_id,
            parent_execution_id=self._parent,
            status=ExecutionStatus.RUNNING,
            state=self._state,
            depth=self._depth,
            is_new=True,
        )
        batch.executions[self.execution_id] = execution
        for event in self._events:
            batch.append(execution, event)
        before = len(batch.new_commands)
        apply_effects(batch, execution, self._effects, self._children, decided_up_to=execution.stream_version)
        return len(batch.new_commands) - before


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
