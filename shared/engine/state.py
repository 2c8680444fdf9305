"""The folded state of one execution. Immutable: `evolve` returns a new one that shares what did not change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

ExecutionStatus = Literal["RUNNING", "COMPLETED", "FAILED", "CANCELLED"]
RunStatus = Literal["running", "completed", "failed", "skipped"]

ACTIONABLE_TYPES = frozenset(
    {
        "call.done",
        "call.error",
        "command.completed",
        "command.failed",
        "command.cancelled",
        "timer.fired",
        "child.terminated",
    }
)
TERMINAL_TYPES: dict[str, ExecutionStatus] = {
    "playbook.completed": "COMPLETED",
    "playbook.failed": "FAILED",
    "execution.cancelled": "CANCELLED",
}


def is_terminal_type(event_type: str) -> bool:
    """Return whether an event of this type ends its execution."""
    return event_type in TERMINAL_TYPES


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event as the engine sees it."""

    version: int
    event_id: int
    type: str
    step: str
    status: str = ""
    context: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    command_id: int | None = None
    worker_id: str | None = None
    occurred_at: datetime | None = None

    @classmethod
    def from_envelope(cls, envelope: Mapping[str, Any]) -> Event:
        """Read an event envelope (docs/contracts.md section 2).

        Raises:
            ValueError: a field is missing or of the wrong type.
        """
        try:
            occurred = envelope.get("event_time") or envelope.get("created_at")
            return cls(
                version=int(envelope["stream_version"]),
                event_id=int(envelope["event_id"]),
                type=str(envelope["event_type"]),
                step=str(envelope.get("node_name") or ""),
                status=str(envelope.get("status") or ""),
                context=_mapping(envelope.get("context")),
                result=_mapping(envelope.get("result")),
                meta=_mapping(envelope.get("meta")) or {},
                error=None if envelope.get("error") is None else str(envelope["error"]),
                command_id=None if envelope.get("command_id") is None else int(envelope["command_id"]),
                worker_id=envelope.get("worker_id"),
                occurred_at=datetime.fromisoformat(occurred) if isinstance(occurred, str) else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"event envelope: {error}") from error


def _mapping(value: object) -> Mapping[str, Any] | None:
    return value if isinstance(value, Mapping) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRun:
    """One entry of a step. `epoch` counts entries from 1; `routed` says that its arcs have been walked."""

    step: str
    epoch: int
    status: RunStatus
    command_id: int | None = None
    entered_version: int = 0
    ended_version: int = 0
    ended_event_id: int | None = None
    outcome_type: str = ""  # call.done, call.error, step.skipped, step.exit
    response: Any = None
    error: str | None = None
    routed: bool = False
    handled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """An execution as of `version`.

    Args (fields):
        runs: the newest run of each step, by step name.
        waiting: steps that arcs have selected and that have not been entered, with the sources.
        commands: command id to step name, of every command issued.
        results: output of the newest completed run of each step.
        variables: what `set` has set.
        failures: unhandled errors, oldest first: (step, text).
    """

    execution_id: int
    catalog_id: int
    path: str
    version: int = 0
    status: ExecutionStatus = "RUNNING"
    root_event_id: int | None = None
    workflow_event_id: int | None = None
    workload: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    runs: Mapping[str, StepRun] = field(default_factory=dict)
    waiting: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    commands: Mapping[int, str] = field(default_factory=dict)
    completed_steps: tuple[str, ...] = ()
    current_step: str | None = None
    failures: tuple[tuple[str, str], ...] = ()
    error: str | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether the execution has ended."""
        return self.status != "RUNNING"


def initial_state(execution_id: int, catalog_id: int, path: str = "") -> State:
    """Return the state before the first event, which brings the path."""
    return State(execution_id=execution_id, catalog_id=catalog_id, path=path)
