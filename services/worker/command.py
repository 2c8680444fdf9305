"""A claimed command, read from the API's answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from shared.wire.types import parse_id


class BadCommandError(ValueError):
    """The claim was answered with something that is no command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run, for whom, and what to send back with the result.

    `deferred` has the places below `tool_config` and `input` that the worker is to render; None: the server does not say,
    and every template is rendered, as by the original's workers.
    """

    execution_id: int
    command_id: int
    event_id: int
    step: str
    kind: str
    attempt: int
    tool_config: dict[str, Any]
    input: dict[str, Any]
    render_context: dict[str, Any]
    meta: dict[str, Any]
    deferred: list[list[str | int]] | None = None

    @property
    def catalog_id(self) -> int | None:
        """Return the catalog entry of the playbook; keychain entries belong to it."""
        return parse_id(self.render_context.get("catalog_id")) or parse_id(self.meta.get("catalog_id"))

    def log_fields(self) -> dict[str, Any]:
        """Return what every log line about this command carries."""
        return {"execution_id": self.execution_id, "command_id": self.command_id}


def _object(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return member `key` as an object; absent and null are empty, text is parsed, as for the original's workers."""
    value = document.get(key)
    if isinstance(value, str) and value:
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise BadCommandError(f"`{key}` of the command is no JSON object") from None
    if value is None or value == "":
        return {}
    if not isinstance(value, dict):
        raise BadCommandError(f"`{key}` of the command is no JSON object")
    return value


def placeholder_of(value: object) -> str | None:
    """Return the locator of a part that the original keeps elsewhere because it is large, None of any other value."""
    if not isinstance(value, Mapping) or value.get("kind") not in ("result_ref", "temp_ref"):
        return None
    ref = value.get("ref")
    return ref if isinstance(ref, str) and ref.startswith("noetl://") else None


def _paths(value: object) -> list[list[str | int]] | None:
    """Return the deferred places, None when the server sends none or something else."""
    if not isinstance(value, list) or not all(isinstance(path, list) for path in value):
        return None
    return value


def parse_command(answer: object, *, event_id: int, command_id: int) -> Command:
    """Read the answer of a claim. `command_id` is the notification's, used when the answer's meta has none.

    Raises:
        BadCommandError: a part is missing or of the wrong type.
    """
    if not isinstance(answer, dict):
        raise BadCommandError("the answer of a claim is no object")
    meta, context = _object(answer, "meta"), _object(answer, "context")
    execution_id = parse_id(answer.get("execution_id"))
    found = parse_id(meta.get("command_id")) or command_id
    if execution_id is None or not found:
        raise BadCommandError("the claimed command has no id")
    attempt = meta.get("attempt")
    return Command(
        execution_id=execution_id,
        command_id=found,
        event_id=event_id,
        step=str(answer.get("node_name") or answer.get("node_id") or ""),
        kind=str(answer.get("action") or "").lower(),
        attempt=attempt if isinstance(attempt, int) and attempt > 0 else 1,
        tool_config=_object(context, "tool_config"),
        input=_object(context, "input"),
        render_context=_object(context, "render_context"),
        meta=meta,
        deferred=_paths(context.get("deferred")),
    )
