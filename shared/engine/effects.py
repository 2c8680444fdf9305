"""What a decision wants: events, commands, timers, cancellations. JSON forms as in docs/contracts.md section 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import xxhash

from shared.engine.state import Event, State

_ID_MASK = (1 << 63) - 1


def _members(effect: Any) -> dict[str, Any]:
    return {field.name: getattr(effect, field.name) for field in fields(effect)}


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendEvent:
    """Append an event to the execution's stream."""

    event_type: str
    node_name: str
    status: str
    node_type: str | None = None
    context: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    meta: Mapping[str, Any] | None = None
    error: str | None = None
    parent_event_id: int | None = None
    command_id: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        return {"kind": "event", **_members(self)}

    def as_event(self, version: int, event_id: int, now: datetime) -> Event:
        """Return the event as the store will append it."""
        return Event(
            version=version,
            event_id=event_id,
            type=self.event_type,
            step=self.node_name,
            status=self.status,
            context=self.context,
            result=self.result,
            meta=self.meta or {},
            error=self.error,
            command_id=self.command_id,
            occurred_at=now,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueCommand:
    """Issue a command; `command_id` is derived from what it is for (`command_id_for`).

    `child` has the playbook to run instead of a tool: path or catalog_id, version, payload, wait, ignore_failure.
    """

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
    child: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        return {"kind": "command", **_members(self)}

    def as_event(self, version: int, event_id: int, now: datetime) -> Event:
        """Return the event as the store will append it."""
        return Event(
            version=version,
            event_id=event_id,
            type="command.issued",
            step=self.step_name,
            status="PENDING",
            meta=self.meta,
            command_id=self.command_id,
            occurred_at=now,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTimer:
    """Have `timer.fired` appended at `due_at` (ISO 8601)."""

    timer_id: int
    due_at: str
    purpose: str
    step_name: str | None = None
    command_id: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        return {"kind": "timer", **_members(self)}

    def as_event(self, version: int, event_id: int, now: datetime) -> None:
        """Return nothing: it appends no event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelCommand:
    """Cancel a command that has not ended."""

    command_id: int
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        return {"kind": "cancel_command", **_members(self)}

    def as_event(self, version: int, event_id: int, now: datetime) -> None:
        """Return nothing: it appends no event."""


Effect = AppendEvent | IssueCommand | SetTimer | CancelCommand


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The effects of one decision, in order.

    Args (fields):
        state: the state with them, for showing; None: as before.
        misses: how often a template used what is undefined; `missed` has the names, the first ones.
    """

    effects: tuple[Effect, ...] = ()
    state: State | None = None
    misses: int = 0
    missed: tuple[str, ...] = ()


_KINDS: dict[str, type[AppendEvent] | type[IssueCommand] | type[SetTimer] | type[CancelCommand]] = {
    "event": AppendEvent,
    "command": IssueCommand,
    "timer": SetTimer,
    "cancel_command": CancelCommand,
}
_TEXT = ("event_type", "node_name", "status", "step_name", "tool_kind", "due_at", "purpose", "reason")
_INTEGER = ("command_id", "attempt", "timer_id", "parent_event_id", "iter_index")
_OBJECT = ("context", "result", "meta", "child")


def effect_from_json(data: Mapping[str, Any]) -> Effect:
    """Read an effect.

    Raises:
        ValueError: a field is unknown, missing or of the wrong type; the text names it.
    """
    kind = data.get("kind")
    cls = _KINDS.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise ValueError(f"kind must be one of {', '.join(_KINDS)}")
    given = {key: value for key, value in data.items() if key != "kind" and value is not None}
    for key, value in given.items():
        if key not in cls.__dataclass_fields__:
            raise ValueError(f"{kind}: unknown field {key}")
        if key in _TEXT and not isinstance(value, str):
            raise ValueError(f"{kind}: {key} must be text")
        if key in _INTEGER and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _ID_MASK):
            raise ValueError(f"{kind}: {key} must be an integer from 0 to 2^63 - 1")
        if key == "due_at":
            datetime.fromisoformat(value)
        if key in _OBJECT and not isinstance(value, Mapping):
            raise ValueError(f"{kind}: {key} must be an object")
    try:
        return cls(**given)
    except TypeError as error:
        raise ValueError(f"{kind}: a field is missing: {error}") from error


def command_id_for(execution_id: int, step: str, epoch: int, index: int, attempt: int) -> int:
    """Return the positive 63-bit id of a command from what it is for, so that deciding twice cannot issue it twice.

    At a million commands the chance of any collision is below 1e-7 (birthday bound over 2^63), and a collision is only
    possible inside one execution, because command rows are keyed by both ids.
    """
    text = f"{execution_id}\x1f{step}\x1f{epoch}\x1f{index}\x1f{attempt}"
    return (xxhash.xxh3_64_intdigest(text.encode()) & _ID_MASK) or 1


def timer_id_for(execution_id: int, step: str, purpose: str) -> int:
    """Return the positive 63-bit id of a timer from what it is for, so that deciding twice sets it once."""
    text = f"{execution_id}\x1f{step}\x1f{purpose}"
    return (xxhash.xxh3_64_intdigest(text.encode()) & _ID_MASK) or 1
