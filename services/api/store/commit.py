"""Commit a decision of the orchestrator: compare-and-set on `decided_version`, then its effects, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from services.api.store.children import ChildStart, start_child
from services.api.store.rows import ENGINE_WORKER, CommandStatus, ExecutionRow, ExecutionStatus, NewCommand, NewEvent
from services.api.store.stream_batch import Needs, StreamBatch
from services.api.store.stream_writer import Operation
from shared.engine import ROUTING_KEY, AppendEvent, CancelCommand, IssueCommand, SetTimer

Effect = AppendEvent | IssueCommand | SetTimer | CancelCommand
Outcome = Literal["committed", "conflict", "terminal", "missing", "rejected"]

_TERMINAL_EVENTS = {
    "playbook.completed": ExecutionStatus.COMPLETED,
    "playbook.failed": ExecutionStatus.FAILED,
    "execution.cancelled": ExecutionStatus.CANCELLED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitResult:
    """The fate of one decision and where the stream stands now."""

    execution_id: int
    outcome: Outcome
    stream_version: int = 0
    decided_version: int = 0
    error: str | None = None


def terminal_error(effect: AppendEvent) -> str | None:
    """Return the text for the `error` column that a failing terminal event carries."""
    if effect.error:
        return effect.error
    context = effect.context or {}
    error = context.get("error")
    if isinstance(error, Mapping):
        return str(error.get("message") or error)
    return str(error) if error else None


def new_event(effect: AppendEvent) -> NewEvent:
    """Return the event that an effect of the engine wants; the batch gives it its id and version."""
    return NewEvent(
        event_type=effect.event_type,
        node_name=effect.node_name,
        node_type=effect.node_type,
        status=effect.status,
        context=effect.context,
        result=effect.result,
        meta=effect.meta,
        error=effect.error,
        parent_event_id=effect.parent_event_id,
        command_id=effect.command_id,
    )


Children = Mapping[int, ChildStart]
"""What to start for the commands of a decision that ask for a sub-playbook, by command id."""


def apply_effects(
    batch: StreamBatch, execution: ExecutionRow, effects: Sequence[Effect], children: Children, *, decided_up_to: int
) -> None:
    """Add the effects of a decision about the events up to `decided_up_to`, and move the mark of what has been decided.

    The mark passes the decision's own events unless something came in between, or one of them (the end of a command that
    the engine carries out) asks for the next decision.
    """
    alone = execution.stream_version == decided_up_to
    for effect in effects:
        apply_effect(batch, execution, effect, children)
    settled = alone and execution.actionable_version <= decided_up_to
    execution.decided_version = execution.stream_version if settled else decided_up_to
    execution.dirty = True


def apply_effect(batch: StreamBatch, execution: ExecutionRow, effect: Effect, children: Children) -> None:
    """Add one effect of a decision to the batch."""
    match effect:
        case AppendEvent():
            batch.append(execution, new_event(effect))
            status = _TERMINAL_EVENTS.get(effect.event_type)
            if status is not None:
                execution.end(status, error=terminal_error(effect))
        case IssueCommand():
            _issue(batch, execution, effect, children.get(effect.command_id))
        case SetTimer():
            batch.set_timer(
                execution,
                timer_id=effect.timer_id,
                due_at=datetime.fromisoformat(effect.due_at),
                purpose=effect.purpose,
                step=effect.step_name,
                command=effect.command_id,
            )
        case CancelCommand():
            _cancel_command(batch, execution, effect)


def _issue(batch: StreamBatch, execution: ExecutionRow, effect: IssueCommand, child: ChildStart | None) -> None:
    meta = effect.meta
    if effect.child is not None:
        own = {**meta.get(ROUTING_KEY, {}), "child": {"ignore_failure": effect.child.get("ignore_failure") is True}}
        meta = {**meta, ROUTING_KEY: own}
    event_id = batch.issue(
        execution,
        NewCommand(
            command_id=effect.command_id,
            step_name=effect.step_name,
            tool_kind=effect.tool_kind,
            context=effect.context,
            meta=meta,
            attempt=effect.attempt,
            parent_event_id=effect.parent_event_id,
            loop_event_id=effect.loop_event_id,
            iter_index=effect.iter_index,
            pool=effect.pool,
            by_engine=child is not None,
        ),
    )
    if event_id and child is not None:
        start_child(batch, execution, child, command_id=effect.command_id, step=effect.step_name, event_id=event_id)


def _cancel_command(batch: StreamBatch, execution: ExecutionRow, effect: CancelCommand) -> None:
    row = batch.commands.get((execution.execution_id, effect.command_id))
    if row is not None and not row.is_terminal:
        row.close(CommandStatus.CANCELLED, batch.now, result=None, error=effect.reason)
        if row.worker_id == ENGINE_WORKER:
            batch.orphaned.add(execution.execution_id)


class CommitDecision(Operation[CommitResult]):
    """Apply `effects` if nobody has decided past `expected_decided_version`."""

    def __init__(
        self,
        execution_id: int,
        *,
        expected_decided_version: int,
        decided_version: int,
        effects: tuple[Effect, ...],
        state: Mapping[str, Any] | None,
        children: Children | None = None,
    ) -> None:
        self.execution_id = execution_id
        self._expected = expected_decided_version
        self._decided = decided_version
        self._effects = effects
        self._state = state
        self._children = children or {}

    def needs(self) -> Needs:
        """Load the commands that the decision names, so that an issued one is not issued again."""
        return Needs(commands=tuple(e.command_id for e in self._effects if isinstance(e, IssueCommand | CancelCommand)))

    def apply(self, batch: StreamBatch) -> CommitResult:
        """Commit or say why not; a lost race is an answer, not an error."""
        execution = batch.executions.get(self.execution_id)
        if execution is None:
            return CommitResult(execution_id=self.execution_id, outcome="missing")
        if not execution.run_by_playhead:
            return self._result(execution, "rejected", "the original runs this execution")
        if execution.is_terminal:
            return self._result(execution, "terminal")
        if execution.decided_version != self._expected:
            return self._result(execution, "conflict")
        if not self._expected <= self._decided <= execution.stream_version:
            return self._result(
                execution, "rejected", "decided_version is outside expected_decided_version..stream_version"
            )
        apply_effects(batch, execution, self._effects, self._children, decided_up_to=self._decided)
        if self._state is not None:
            execution.state = self._state
        return self._result(execution, "committed")

    def _result(self, execution: ExecutionRow, outcome: Outcome, error: str | None = None) -> CommitResult:
        return CommitResult(
            execution_id=self.execution_id,
            outcome=outcome,
            stream_version=execution.stream_version,
            decided_version=execution.decided_version,
            error=error,
        )
