"""The result of a tool and the events that report it (clients.md section 1.4). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from services.worker.command import Command
from services.worker.limits import COMPACT_CONTEXT_MAX_BYTES, ERROR_MESSAGE_MAX_CHARS
from services.worker.select import selected

Event = dict[str, Any]

_STRIPPED = frozenset({"data", "response", "result", "payload", "rows", "columns"})
_FAILED = frozenset({"error", "failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a tool gave: plain output, its JSON text, and the error text when it failed.

    `brief` has its scalars for every event. `shown` has what travels instead of the output once `reference` says where that is
    stored. `stored` is the JSON text to store when that is another than `encoded`.
    """

    output: Any
    encoded: bytes
    brief: Mapping[str, Any]
    shown: Mapping[str, Any]
    error: str | None = None
    stored: bytes | None = None
    reference: Mapping[str, Any] | None = None

    @property
    def status(self) -> str:
        """Return COMPLETED or FAILED."""
        return "COMPLETED" if self.error is None else "FAILED"


def outcome_of(output: Any, select: Any = None) -> Outcome:
    """Wrap a plain output; one whose `status` is `error` or `failed` is a failure, as in the original.

    `select` is the tool's `output`, whose members are shown beside a reference.
    """
    brief = compact(output)
    shown = {
        key: value for key, value in brief.items() if value == output[key]
    }  # a part of a member would hide the rest
    chosen = selected(output, select) if select else {}
    if len(orjson.dumps(chosen)) <= COMPACT_CONTEXT_MAX_BYTES:
        shown |= chosen
    return Outcome(output=output, encoded=orjson.dumps(output), error=error_in(output), brief=brief, shown=shown)


def error_in(output: Any) -> str | None:
    """Return the error text of an output that calls itself a failure."""
    if not isinstance(output, dict) or str(output.get("status", "")).lower() not in _FAILED:
        return None
    given = output.get("error") or output.get("message")
    text = given.get("message") if isinstance(given, Mapping) else given
    return str(text or "Tool returned error status")[:ERROR_MESSAGE_MAX_CHARS]


def sequence_outcome(result: Mapping[str, Any], select: Any = None) -> Outcome:
    """Wrap the result of a task sequence.

    Its variables are shown whole: they must reach the engine even when the result is stored. What is stored has the members
    of the last task on top, as templates see them. A failed sequence is an error with the text of its failed task.
    """
    last = result["_prev"]
    top = {key: value for key, value in last.items() if key not in result} if isinstance(last, Mapping) else {}
    plain = outcome_of({**top, **{key: value for key, value in result.items() if key != "_prev"}}, select)
    brief = {"status": result["status"], "_prev": compact(last), "metrics": result["metrics"]}
    shown = {**plain.shown, **brief, "results": {}, "ctx": result["ctx"]}
    return replace(plain, output=result, encoded=orjson.dumps(result), brief=brief, shown=shown, stored=plain.encoded)


def compact(output: Any) -> dict[str, Any]:
    """Return the scalars of an output, one level deep, without bulk keys; the largest are left out when all are too many."""
    if not isinstance(output, Mapping):
        return {}
    kept: dict[str, Any] = {}
    for key, value in output.items():
        if key in _STRIPPED or key.startswith("_"):
            continue
        if isinstance(value, Mapping):
            members = {k: v for k, v in value.items() if not isinstance(v, (Mapping, list))}
            if members:
                kept[key] = members
        elif not isinstance(value, list):
            kept[key] = value
    return _fitting(kept, COMPACT_CONTEXT_MAX_BYTES)


def _fitting(members: dict[str, Any], limit: int) -> dict[str, Any]:
    """Return members, in their order, that have at most `limit` bytes of JSON together; small ones go first."""
    sizes = {key: len(orjson.dumps([key, value])) for key, value in members.items()}
    if sum(sizes.values()) <= limit:
        return members
    fitting: set[str] = set()
    for key in sorted(sizes, key=lambda key: sizes[key]):
        limit -= sizes[key]
        if limit < 0:
            break
        fitting.add(key)
    return {key: value for key, value in members.items() if key in fitting}


def _meta(command: Command) -> dict[str, Any]:
    return {"command_id": command.command_id, "attempt": command.attempt}


def _loop_meta(command: Command) -> dict[str, Any]:
    epoch = command.meta.get("__loop_epoch_id") or command.meta.get("loop_event_id")
    index = command.meta.get("loop_iteration_index")
    meta = _meta(command)
    if epoch is not None:
        meta["__loop_epoch_id"] = epoch
    if index is not None:
        meta["loop_iteration_index"] = index
    return meta


def _event(command: Command, name: str, payload: Event, meta: Event, *, actionable: bool = False) -> Event:
    return {
        "step": command.step,
        "name": name,
        "payload": payload,
        "meta": meta,
        "actionable": actionable,
        "informative": True,
    }


def started_events(command: Command, worker_id: str) -> list[Event]:
    """Return the events of a command that begins."""
    ids = {"command_id": command.command_id, "worker_id": worker_id}
    entered = {"status": "started", "command_id": command.command_id}
    meta = _meta(command)
    return [_event(command, "command.started", ids, meta), _event(command, "step.enter", entered, meta)]


def heartbeat_event(command: Command, worker_id: str) -> Event:
    """Return the event that renews the command's lease."""
    ids = {"command_id": command.command_id, "worker_id": worker_id}
    return _event(command, "command.heartbeat", ids, _meta(command))


def ended_events(command: Command, worker_id: str, outcome: Outcome) -> list[Event]:
    """Return the events of a command that ended; only the call event is actionable and carries the whole output."""
    context = dict(outcome.brief)
    result: Event = {"status": outcome.status, "context": context}
    if outcome.reference is not None:
        result = {"status": outcome.status, "context": dict(outcome.shown), "reference": dict(outcome.reference)}
    call: Event = {
        "command_id": command.command_id,
        "loop_event_id": command.meta.get("loop_event_id") or command.meta.get("__loop_epoch_id"),
        "loop_iteration_index": command.meta.get("loop_iteration_index"),
        "result": result,
    }
    if outcome.reference is None:
        call["response"] = orjson.Fragment(outcome.encoded)
    leave: Event = {
        "command_id": command.command_id,
        "status": outcome.status,
        "result": {"status": outcome.status, "context": context},
        "error": outcome.error,
    }
    end: Event = {
        "command_id": command.command_id,
        "worker_id": worker_id,
        "result": {"status": outcome.status, "context": {**context, "worker_id": worker_id}},
    }
    failed = outcome.error is not None
    if failed:
        call["error"] = end["error"] = outcome.error
    loop_meta, meta = _loop_meta(command), _meta(command)
    return [
        _event(command, "call.error" if failed else "call.done", call, loop_meta, actionable=True),
        _event(command, "step.exit", leave, loop_meta),
        _event(command, "command.failed" if failed else "command.completed", end, meta),
    ]
