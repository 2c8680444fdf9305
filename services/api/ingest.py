"""Worker events as they arrive, in both dialects, turned into one form. Pure.

Python workers send `name` / `payload` with the full tool output in `payload.response`; Rust workers send `event_type` /
`context` with `context.result.context.data` (clients.md sections 1.4 and 2.4). Gateways and people send anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from services.api.http import HttpError
from shared.wire.types import parse_id

ERROR_TEXT_MAX = 2000  # characters of the `error` column, as in the original
RESULT_KEYS = frozenset({"status", "reference", "context", "command_id"})
FORBIDDEN_KEY = "_internal_data"
_FORBIDDEN_JSON = f'"{FORBIDDEN_KEY}":'.encode()  # as a key at any depth
CALL_TYPES = frozenset({"call.done", "call.error"})
_STATUS_ALIASES = {"OK": "COMPLETED", "SUCCESS": "COMPLETED", "ERROR": "FAILED", "TIMEOUT": "FAILED"}


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingEvent:
    """One event of a request, normalised; `response` is the complete tool output, if any was sent."""

    event_type: str
    step: str
    status: str
    result: Mapping[str, Any] | None
    response: Any
    has_response: bool
    error: str | None
    meta: Mapping[str, Any]
    command_id: int | None
    worker_id: str | None
    event_id: int | None
    attempt: int | None


def derived_status(event_type: str) -> str:
    """Return the status that the name of an event implies, as in the original."""
    if "error" in event_type or "failed" in event_type:
        return "FAILED"
    if "done" in event_type or "exit" in event_type or "completed" in event_type:
        return "COMPLETED"
    if "cancelled" in event_type:
        return "CANCELLED"
    return "RUNNING"


def normalised_status(value: object, fallback: str) -> str:
    """Return `value` upper-cased with the aliases of both dialects folded, or `fallback` when it is no text."""
    if not isinstance(value, str) or not value:
        return fallback
    upper = value.upper()
    return _STATUS_ALIASES.get(upper, upper)


def normalise(item: Mapping[str, Any], *, worker_id: str | None) -> IncomingEvent:
    """Turn one validated event object into an `IncomingEvent`.

    Raises:
        HttpError: 422 when the payload breaks the shape rules of the contract.
    """
    event_type: str = item["name"]
    payload: Mapping[str, Any] = item.get("payload") or {}
    meta: Mapping[str, Any] = item.get("meta") or {}
    if FORBIDDEN_KEY in payload:
        raise HttpError(422, f"payload includes forbidden inline output keys: {FORBIDDEN_KEY}")
    command_id = _command_id(payload, meta)
    status = derived_status(event_type)
    result = _result(payload, status=status, command_id=command_id, worker_id=worker_id)
    response, has_response = _response(event_type, payload)
    return IncomingEvent(
        event_type=event_type,
        step=item["step"],
        status=status,
        result=result,
        response=response,
        has_response=has_response,
        error=_error(payload),
        meta=meta,
        command_id=command_id,
        worker_id=worker_id,
        event_id=parse_id(item.get("event_id")),
        attempt=_attempt(meta),
    )


def share_command_id(events: Sequence[IncomingEvent]) -> list[IncomingEvent]:
    """Give events without a command id that of their batch when it names exactly one.

    An exception inside the original's Python worker sends `call.error` without a command id, followed by `command.failed`
    with it (clients.md section 1.4).
    """
    ids = {event.command_id for event in events if event.command_id is not None}
    if len(ids) != 1:
        return list(events)
    (only,) = ids
    return [event if event.command_id is not None else replace(event, command_id=only) for event in events]


def _attempt(meta: Mapping[str, Any]) -> int | None:
    value = meta.get("attempt")
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _command_id(payload: Mapping[str, Any], meta: Mapping[str, Any]) -> int | None:
    result = payload.get("result")
    candidates: list[object] = [payload.get("command_id"), meta.get("command_id")]
    context = payload.get("context")
    if isinstance(context, Mapping):
        candidates.append(context.get("command_id"))
    if isinstance(result, Mapping):
        candidates.append(result.get("command_id"))
        inner = result.get("context")
        if isinstance(inner, Mapping):
            candidates.append(inner.get("command_id"))
    for candidate in candidates:
        found = parse_id(candidate)
        if found is not None:
            return found
    return None


def _check_result(given: object) -> Mapping[str, Any]:
    """Return `payload.result` when it has the shape of the contract; the texts of the errors are the original's.

    Raises:
        HttpError: 422 when it has not.
    """
    if not isinstance(given, Mapping):
        raise HttpError(422, "payload.result must be an object")
    extra = sorted(set(given) - RESULT_KEYS)
    if extra:
        raise HttpError(422, f"payload.result includes unsupported keys: {', '.join(extra)}")
    for key in ("reference", "context"):
        value = given.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise HttpError(422, f"payload.result.{key} must be an object")
    context = given.get("context")
    if context and _FORBIDDEN_JSON in orjson.dumps(context, default=str, option=orjson.OPT_NON_STR_KEYS):
        raise HttpError(422, f"payload.result.context includes forbidden inline output keys: {FORBIDDEN_KEY}")
    return given


def _result(
    payload: Mapping[str, Any], *, status: str, command_id: int | None, worker_id: str | None
) -> dict[str, Any]:
    context: dict[str, Any] = {}
    document: dict[str, Any] = {"status": status}
    given = None if payload.get("result") is None else _check_result(payload["result"])
    if given is not None:
        document["status"] = normalised_status(given.get("status"), status)
        if given.get("reference"):
            document["reference"] = given["reference"]
        context.update(given.get("context") or {})
    for key in ("status", "loop_event_id", "call_index"):
        if given is None and payload.get(key) is not None:
            context[key] = payload[key]
    if command_id is not None:
        context["command_id"] = command_id
    if given is None and worker_id is not None and payload.get("worker_id"):
        context["worker_id"] = payload["worker_id"]
    if context:
        document["context"] = context
    return document


def _response(event_type: str, payload: Mapping[str, Any]) -> tuple[Any, bool]:
    if event_type not in CALL_TYPES:
        return None, False
    if "response" in payload:
        return payload["response"], True
    result = payload.get("result")
    if isinstance(result, Mapping) and result.get("reference"):
        return None, False
    context = result.get("context") if isinstance(result, Mapping) else None
    if "call_index" in payload and isinstance(context, Mapping) and "data" in context:
        return context["data"], True
    return None, False


def _error(payload: Mapping[str, Any]) -> str | None:
    result = payload.get("result")
    for candidate in (payload.get("error"), result.get("error") if isinstance(result, Mapping) else None):
        text = candidate.get("message") if isinstance(candidate, Mapping) else candidate
        if text:
            return str(text)[:ERROR_TEXT_MAX]
    return None
