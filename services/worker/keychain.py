"""Keychain entries that a command's configuration names: fetched, handed to its templates, kept out of its output."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from services.worker.limits import KEYCHAIN_ENTRIES_MAX, RENDER_DEPTH_MAX, SECRET_REDACT_MIN_CHARS
from services.worker.redaction import longest_first, texts
from services.worker.templates import has_template, render
from services.worker.tools.base import ToolError

if TYPE_CHECKING:
    from services.worker.api import WorkerApi
    from services.worker.command import Command

_NAME = re.compile(r"""\bkeychain(?:\.([A-Za-z_][A-Za-z0-9_]*)|\[\s*['"]([^'"\]]{1,256})['"]\s*\])""")
_REFERENCE = "$noetl_ref"


def uses_keychain(text: str) -> bool:
    """Whether `text` is a template that names a keychain entry."""
    return "keychain" in text and "{" in text and _NAME.search(text) is not None


def _references(value: object, depth: int = 0) -> Iterator[str]:
    if depth >= RENDER_DEPTH_MAX:
        return
    if isinstance(value, Mapping):
        reference = value.get(_REFERENCE)
        if isinstance(reference, Mapping) and reference.get("kind") == "keychain":
            yield str(reference.get("name", ""))
        for member in value.values():
            yield from _references(member, depth + 1)
    elif isinstance(value, list):
        for member in value:
            yield from _references(member, depth + 1)


def named_entries(config: object) -> list[str]:
    """Return the keychain entries that `config` names in templates or as `$noetl_ref`, sorted."""
    names = {match[1] or match[2] for text in texts(config) if uses_keychain(text) for match in _NAME.finditer(text)}
    return sorted(names | {name for name in _references(config) if name})


def _resolved(value: Any, entries: Mapping[str, Any], depth: int = 0) -> Any:
    """Replace `{"$noetl_ref": {"kind": "keychain", "name", "field"}}` by the field."""
    if depth >= RENDER_DEPTH_MAX:
        return value
    if isinstance(value, Mapping):
        reference = value.get(_REFERENCE)
        if isinstance(reference, Mapping) and reference.get("kind") == "keychain":
            entry = entries.get(str(reference.get("name", "")), {})
            return entry.get(str(reference.get("field", "")), "")
        return {key: _resolved(member, entries, depth + 1) for key, member in value.items()}
    if isinstance(value, list):
        return [_resolved(member, entries, depth + 1) for member in value]
    return value


async def prepared(command: Command, api: WorkerApi) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Return the command's tool configuration and input, rendered, and the secrets that went in.

    Raises:
        ToolError: it names too many entries, or one that does not exist.
    """
    source = {"tool_config": command.tool_config, "input": command.input}
    places = _places(source, command.deferred)
    wanted = named_entries([value for _, value in places])
    if not wanted and not has_template([value for _, value in places]):
        return command.tool_config, command.input, []
    if len(wanted) > KEYCHAIN_ENTRIES_MAX:
        text = f"{len(wanted)} keychain entries; at most {KEYCHAIN_ENTRIES_MAX} per command"
        raise ToolError("worker", "KEYCHAIN", text)
    entries: dict[str, dict[str, Any]] = {}
    for name in wanted:
        entry = await api.keychain(command.catalog_id, name, command.execution_id)
        if entry is None:
            raise ToolError("worker", "KEYCHAIN", f"keychain entry '{name}' does not exist or has expired")
        entries[name] = entry
    names = {**command.render_context, **command.input, "keychain": entries}
    rendered: Any = source
    for path, value in places:
        rendered = _with(rendered, path, render(_resolved(value, entries), names, code=uses_keychain))
    secrets = {text for text in texts(entries) if len(text) >= SECRET_REDACT_MIN_CHARS}
    return rendered["tool_config"], rendered["input"], longest_first(secrets)


def _places(source: Mapping[str, Any], deferred: list[list[str | int]] | None) -> list[tuple[list[str | int], Any]]:
    """Return the places to render with what stands there; everything when the server does not name them."""
    if deferred is None:
        return [(["tool_config"], source["tool_config"]), (["input"], source["input"])]
    found: list[tuple[list[str | int], Any]] = []
    for path in deferred:
        value: Any = source
        try:
            for key in path:
                value = value[key]
        except (KeyError, IndexError, TypeError):
            continue  # rendered away
        if path:
            found.append((path, value))
    return found


def _with(value: Any, path: Sequence[str | int], new: Any) -> Any:
    """Return a copy of `value` with `new` at `path`, sharing what is beside it."""
    if not path:
        return new
    key, *rest = path
    if isinstance(value, Mapping):
        return {**value, key: _with(value[key], rest, new)}
    return [_with(item, rest, new) if index == key else item for index, item in enumerate(value)]
