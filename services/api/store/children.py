"""Sub-playbooks in the write transaction: start one with the command that asks for it, end that command when it has ended.

A child is started by the commit that issues its command, so neither exists without the other. It starts undecided: the
orchestrator makes its first decision, which keeps this transaction small however deep playbooks call each other. The command
is carried out by the engine itself (`ENGINE_WORKER`): no worker is told, none waits. When the child has ended, `EndChild` ends
the command; a crash between the two is healed by the reconciler, and doing it twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.api.store.rows import ENGINE_WORKER, CommandRow, CommandStatus, ExecutionRow, ExecutionStatus, NewEvent
from services.api.store.stream_batch import Needs, StreamBatch
from services.api.store.stream_writer import Operation
from shared.engine import ROUTING_KEY


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildStart:
    """An execution to start for a command; `problem` says why it cannot be started.

    Args (fields):
        waits: the command ends with the child; else it ends at once.
        root_id: the first of its callers, when the playbook is among them.
    """

    waits: bool
    execution_id: int = 0
    catalog_id: int = 0
    path: str = ""
    root_id: int | None = None
    events: Sequence[NewEvent] = ()
    state: Mapping[str, Any] | None = None
    problem: str | None = None


def start_child(
    batch: StreamBatch, parent: ExecutionRow, child: ChildStart, *, command_id: int, step: str, event_id: int
) -> None:
    """Start `child` for the command just issued with `event_id`; a child that cannot be started fails the command."""
    row = _issued_row(batch, parent, command_id=command_id, step=step, event_id=event_id)
    if child.problem is not None:
        response = {"status": "error", "error": child.problem}
        end_command(batch, parent, row, failed=True, response=response, error=child.problem, child_id=None)
        return
    execution = ExecutionRow(
        execution_id=child.execution_id,
        catalog_id=child.catalog_id,
        parent_execution_id=parent.execution_id,
        status=ExecutionStatus.RUNNING,
        state=child.state,
        parent_command_id=command_id if child.waits else None,
        root_execution_id=child.root_id,
        execution_pool=parent.execution_pool,
        is_new=True,
    )
    batch.executions[child.execution_id] = execution
    for event in child.events:
        batch.append(execution, event)
    execution.actionable_version = execution.stream_version
    execution.decided_version = execution.stream_version - 1
    if child.waits:
        return
    started: dict[str, Any] = {"status": "started", "execution_id": str(child.execution_id), "path": child.path}
    answer = {**started, "status": "success", "data": started}
    end_command(batch, parent, row, failed=False, response=answer, error=None, child_id=child.execution_id)


def _issued_row(batch: StreamBatch, parent: ExecutionRow, *, command_id: int, step: str, event_id: int) -> CommandRow:
    """Return the row of a command that this batch inserts."""
    row = CommandRow(
        execution_id=parent.execution_id,
        command_id=command_id,
        event_id=event_id,
        step_name=step,
        tool_kind="playbook",
        status=CommandStatus.RUNNING,
        worker_id=ENGINE_WORKER,
        claimed_at=batch.now,
        started_at=batch.now,
        completed_at=None,
        attempt=1,
        lease_until=None,
        call_event_id=None,
        latest_event_id=event_id,
        error=None,
        worker_status=None,
        worker_heartbeat=None,
    )
    batch.commands[(parent.execution_id, command_id)] = row
    return row


def end_command(
    batch: StreamBatch,
    execution: ExecutionRow,
    row: CommandRow,
    *,
    failed: bool,
    response: Mapping[str, Any],
    error: str | None,
    child_id: int | None,
) -> None:
    """End a command that the engine carried out, with the events that a worker would send.

    The mark of the engine in `meta` makes the event's name decide whether it failed, whatever the child's status says.
    """
    status = "FAILED" if failed else "COMPLETED"
    context: dict[str, Any] = {"command_id": row.command_id}
    if child_id is not None:
        context["execution_id"] = str(child_id)
    if error is not None:
        context["error"] = error
    result = {"status": status, "context": context}
    meta: dict[str, Any] = {"command_id": row.command_id, "worker_id": ENGINE_WORKER, ROUTING_KEY: {"child": True}}
    for event_type in ("call.error" if failed else "call.done", "command.failed" if failed else "command.completed"):
        is_call = event_type.startswith("call.")
        row.latest_event_id = batch.append(
            execution,
            NewEvent(
                event_type=event_type,
                node_name=row.step_name,
                status=status,
                context={"response": response} if is_call else None,
                result=result,
                meta={**meta, "actionable": is_call},
                error=error,
                worker_id=ENGINE_WORKER,
                command_id=row.command_id,
            ),
            actionable=is_call,
        )
        if is_call:
            row.call_event_id = row.latest_event_id
    row.close(CommandStatus.FAILED if failed else CommandStatus.COMPLETED, batch.now, result=result, error=error)


class EndChild(Operation[bool]):
    """End the command that waited for a child; False when it has ended already."""

    def __init__(
        self,
        execution_id: int,
        *,
        command_id: int,
        child_id: int,
        failed: bool,
        response: Mapping[str, Any],
        error: str | None,
    ) -> None:
        self.execution_id = execution_id
        self._command_id = command_id
        self._child_id = child_id
        self._failed = failed
        self._response = response
        self._error = error

    def needs(self) -> Needs:
        """Load the command."""
        return Needs(commands=(self._command_id,))

    def apply(self, batch: StreamBatch) -> bool:
        """End it, unless it or its execution is over."""
        execution = batch.executions.get(self.execution_id)
        row = batch.commands.get((self.execution_id, self._command_id))
        if execution is None or row is None or execution.is_terminal or row.is_terminal:
            return False
        end_command(
            batch,
            execution,
            row,
            failed=self._failed,
            response=self._response,
            error=self._error,
            child_id=self._child_id,
        )
        return True
