"""Values of one write transaction: the locked execution row, its commands, and the events to append."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncpg


class ExecutionStatus(StrEnum):
    """Status of an execution; the terminal ones are decided by the terminal event and never change."""

    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class CommandStatus(StrEnum):
    """Status of a command: PENDING -> CLAIMED -> RUNNING -> one of the rest."""

    PENDING = "PENDING"
    CLAIMED = "CLAIMED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


ENGINE_WORKER = "playhead-engine"  # claimant of commands that the engine itself carries out: sub-playbooks
COMMAND_TERMINAL = frozenset({CommandStatus.COMPLETED, CommandStatus.FAILED, CommandStatus.CANCELLED})
EXECUTION_TERMINAL = frozenset({ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED})


@dataclass(slots=True, kw_only=True)
class ExecutionRow:
    """The row of `noetl.execution` under lock; changes are written back once per batch."""

    execution_id: int
    catalog_id: int
    parent_execution_id: int | None
    status: str
    stream_version: int = 0
    actionable_version: int = 0
    decided_version: int = 0
    last_event_id: int | None = None
    ended: bool = False
    error: str | None = None
    state: Mapping[str, Any] | None = None
    parent_command_id: int | None = None
    root_execution_id: int | None = None  # of a playbook that is among its own callers: the first of them
    execution_pool: str | None = None
    run_by_playhead: bool = True  # else the original runs it on the same database, and we never decide it
    is_new: bool = False
    dirty: bool = False

    @property
    def is_terminal(self) -> bool:
        """Whether the execution has ended."""
        return self.status in EXECUTION_TERMINAL

    def end(self, status: ExecutionStatus, *, error: str | None) -> None:
        """Close the execution; its open commands are cancelled by the batch."""
        self.status, self.error, self.ended, self.dirty = status, error, True, True


@dataclass(slots=True, kw_only=True)
class CommandRow:
    """The row of `noetl.command` as loaded, with the worker row of its claimant."""

    execution_id: int
    command_id: int
    event_id: int
    step_name: str
    tool_kind: str | None
    status: str
    worker_id: str | None
    claimed_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    attempt: int
    lease_until: datetime | None
    call_event_id: int | None
    latest_event_id: int | None
    error: str | None
    worker_status: str | None
    worker_heartbeat: datetime | None
    result: Mapping[str, Any] | None = None
    dirty: bool = False

    @classmethod
    def from_record(cls, record: asyncpg.Record) -> CommandRow:
        """Build a row from the `load_commands` query."""
        return cls(**dict(record))

    @property
    def is_terminal(self) -> bool:
        """Whether the command has ended."""
        return self.status in COMMAND_TERMINAL

    def renew(self, now: datetime, lease: timedelta) -> None:
        """Extend the lease of the claim from the database's `now`."""
        self.lease_until, self.dirty = now + lease, True

    def close(
        self, status: CommandStatus, now: datetime, *, result: Mapping[str, Any] | None, error: str | None
    ) -> None:
        """Set the terminal status."""
        self.status, self.completed_at, self.result, self.error, self.dirty = status, now, result, error, True


@dataclass(slots=True, kw_only=True)
class NewEvent:
    """An event to append; the batch gives it a version and, unless preset, an id."""

    event_type: str
    node_name: str
    status: str
    node_type: str | None = None
    context: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    meta: Mapping[str, Any] | None = None
    error: str | None = None
    worker_id: str | None = None
    command_id: int | None = None
    parent_event_id: int | None = None
    idempotency_key: str | None = None
    event_id: int | None = None


@dataclass(slots=True, kw_only=True)
class NewCommand:
    """A command to issue."""

    command_id: int
    step_name: str
    tool_kind: str
    context: Mapping[str, Any]
    meta: Mapping[str, Any]
    attempt: int = 1
    parent_event_id: int | None = None
    loop_event_id: str | None = None
    iter_index: int | None = None
    pool: str | None = None
    by_engine: bool = False  # no worker is told: the engine carries it out


@dataclass(slots=True, kw_only=True)
class Columns:
    """Column-wise arrays of one multi-row statement: unnest wants columns, the code thinks in rows."""

    width: int
    values: list[list[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values = [[] for _ in range(self.width)]

    def add(self, *row: Any) -> None:
        """Append one row; its length must be the width. NUL characters, which no text column takes, become U+FFFD."""
        for column, value in zip(self.values, row, strict=True):
            column.append(value.replace("\x00", "\ufffd") if type(value) is str and "\x00" in value else value)

    def __len__(self) -> int:
        return len(self.values[0])
