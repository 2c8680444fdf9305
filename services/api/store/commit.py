"""Commit a decision of the orchestrator: compare-and-set on `decided_version`, then its effects, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from services.api.store.rows import CommandStatus, ExecutionRow, ExecutionStatus, NewCommand, NewEvent
from services.api.store.stream_batch import Needs, StreamBatch
from services.api.store.stream_writer import Operation
from shared.engine import AppendEvent, CancelCommand, IssueCommand, SetTimer

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


def apply_effect(batch: StreamBatch, execution: ExecutionRow, effect: Effect) -> None:
    """Add one effect of a decision to the batch."""
    match effect:
        case AppendEvent():
            batch.append(execution, new_event(effect))
            status = _TERMINAL_EVENTS.get(effect.event_type)
            if status is not None:
                execution.end(status, error=terminal_error(effect))
        case IssueCommand():
            batch.issue(
                execution,
                NewCommand(
                    command_id=effect.command_id,
                    step_name=effect.step_name,
                    tool_kind=effect.tool_kind,
                    context=effect.context,
                    meta=effect.meta,
                    attempt=effect.attempt,
                    parent_event_id=effect.parent_event_id,
                    loop_event_id=effect.loop_event_id,
                    iter_index=effect.iter_index,
                    pool=effect.pool,
                ),
            )
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


def _cancel_command(batch: StreamBatch, execution: ExecutionRow, effect: CancelCommand) -> None:
    row = batch.commands.get((execution.execution_id, effect.command_id))
    if row is not None and not row.is_terminal:
        row.close(CommandStatus.CANCELLED, batch.now, result=None, error=effect.reason)


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
    ) -> None:
        self.execution_id = execution_id
        self._expected = expected_decided_version
        self._decided = decided_version
        self._effects = effects
        self._state = state

    def needs(self) -> Needs:
        """Load the commands that the decision names, so that an issued one is not issued again."""
        return Needs(commands=tuple(e.command_id for e in self._effects if isinstance(e, IssueCommand | CancelCommand)))

    def apply(self, batch: StreamBatch) -> CommitResult:
        """Commit or say why not; a lost race is an answer, not an error."""
        execution = batch.executions.get(self.execution_id)
        if execution is None:
            return CommitResult(execution_id=self.execution_id, outcome="missing")
        if execution.is_terminal:
            return self._result(execution, "terminal")
        if execution.decided_version != self._expected:
            return self._result(execution, "conflict")
        if not self._expected <= self._decided <= execution.stream_version:
            return self._result(
                execution, "rejected", "decided_version is outside expected_decided_version..stream_version"
            )
        alone = execution.stream_version == self._decided
        for effect in self._effects:
            apply_effect(batch, execution, effect)
        # Events that came in between are not decided yet, so the mark must not pass them.
        execution.decided_version = execution.stream_version if alone else self._decided
        if self._state is not None:
            execution.state = self._state
        execution.dirty = True
        return self._result(execution, "committed")

    def _result(self, execution: ExecutionRow, outcome: Outcome, error: str | None = None) -> CommitResult:
        return CommitResult(
            execution_id=self.execution_id,
            outcome=outcome,
            stream_version=execution.stream_version,
            decided_version=execution.decided_version,
            error=error,
        )
