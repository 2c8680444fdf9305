"""The folded state of one execution. Immutable: `evolve` returns a new one that shares what did not change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from rpds import HashTrieMap

ExecutionStatus = Literal["RUNNING", "COMPLETED", "FAILED", "CANCELLED"]
RunStatus = Literal["running", "completed", "failed", "skipped"]
AttemptStatus = Literal["running", "failed", "waiting", "due"]

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
SEQUENCE_SUFFIX = ":task_sequence"  # the node name of a task sequence's command is the step's with this


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
class Attempt:
    """The newest attempt of one item of a step that has not ended (index 0 of a step without a loop).

    `failed` waits for a decision whether to try again, `waiting` for its timer, `due` for its command.
    """

    index: int
    number: int
    status: AttemptStatus = "running"
    command_id: int | None = None
    response: Any = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopState:
    """Progress of one loop; constant work per item.

    Args (fields):
        loop_id: the original's `loop_event_id`, one per entry of the step.
        items: the collection: a list, or a range for a number.
        size: number of items; of a cursor loop, of its slots.
        limit: items in flight at most.
        next_index: items below have been issued or have ended.
        results: output of each ended item by index, None once they are over `LOOP_RESULTS_BYTES_MAX`.
        error: of the item that failed first, naming it.
    """

    loop_id: str
    mode: str
    items: Sequence[Any]
    size: int
    limit: int
    next_index: int = 0
    success: int = 0
    failed: int = 0
    results: HashTrieMap[int, Any] | None = field(default_factory=HashTrieMap)
    results_bytes: int = 0
    continue_on_error: bool = False
    error: str | None = None

    @property
    def is_failing(self) -> bool:
        """Whether an item has failed and no more are to be started."""
        return self.failed > 0 and not self.continue_on_error

    @property
    def ended(self) -> int:
        """Number of items that have ended."""
        return self.success + self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRun:
    """One entry of a step.

    Args (fields):
        epoch: counts the entries of the step, from 1.
        attempt: of a run that has ended without a loop, the attempt that it ended with, from 1.
        outcome_type: the event that its arcs see: call.done, call.error, loop.done, step.skipped, step.exit.
        routed: its arcs have been walked; `handled`: one of them handled its error.
    """

    step: str
    epoch: int
    status: RunStatus
    attempts: HashTrieMap[int, Attempt] = field(default_factory=HashTrieMap)
    attempts_max: int = 1
    attempt: int = 1
    loop: LoopState | None = None
    timed_out: bool = False
    entered_version: int = 0
    ended_version: int = 0
    ended_event_id: int | None = None
    outcome_type: str = ""
    response: Any = None
    error: str | None = None
    routed: bool = False
    handled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """An execution as of `version`.

    Args (fields):
        runs: the newest run of each step, by step name.
        unrouted: steps whose newest run has ended and whose arcs have not been walked, in the order of their ends.
        waiting: steps that arcs have selected and that have not been entered, with the sources.
        open: command id to (step, item index), of commands that have not ended.
        results: output of the newest completed run of each step.
        variables: what `set` has set.
        sizes: JSON bytes of each result and variable; `data_bytes` is their sum with the workload's.
        failures: unhandled errors, oldest first: (step, text).
        timed_out: the execution's own timer has fired.
    """

    execution_id: int
    catalog_id: int
    path: str
    playbook_version: int | None = None
    version: int = 0
    status: ExecutionStatus = "RUNNING"
    root_event_id: int | None = None
    workflow_event_id: int | None = None
    workload: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    runs: Mapping[str, StepRun] = field(default_factory=dict)
    unrouted: tuple[str, ...] = ()
    waiting: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    open: HashTrieMap[int, tuple[str, int]] = field(default_factory=HashTrieMap)
    sizes: HashTrieMap[str, int] = field(default_factory=HashTrieMap)
    data_bytes: int = 0
    completed_steps: tuple[str, ...] = ()
    current_step: str | None = None
    failures: tuple[tuple[str, str], ...] = ()
    error: str | None = None
    timed_out: bool = False

    @property
    def is_terminal(self) -> bool:
        """Whether the execution has ended."""
        return self.status != "RUNNING"


def initial_state(execution_id: int, catalog_id: int, path: str = "") -> State:
    """Return the state before the first event, which brings the path."""
    return State(execution_id=execution_id, catalog_id=catalog_id, path=path)
