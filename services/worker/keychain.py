"""Keychain entries that a command's configuration names: fetched, handed to its templates, kept out of its output."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from services.worker.keychain_entries import GetsSecrets, Owner, Render
from services.worker.limits import KEYCHAIN_ENTRIES_MAX, KEYCHAIN_NESTING_MAX, RENDER_DEPTH_MAX
from services.worker.redaction import longest_first, secret_texts, texts
from services.worker.templates import CODE_KEYS, Renderer, has_templates
from services.worker.tools.base import ToolError

if TYPE_CHECKING:
    from services.worker.command import Command


_NAME = re.compile(r"""\bkeychain(?:\.([A-Za-z_][A-Za-z0-9_]*)|\[\s*['"]([^'"\]]{1,256})['"]\s*\])""")
_REFERENCE = "$noetl_ref"
_CODE_PATHS = [[key] for key in CODE_KEYS]  # ends of paths to source text, whose braces need not be ours


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


class ReadsEntries(Protocol):
    """Where entries come from, as `services.worker.keychain_entries.KeychainEntries`."""

    async def fields(self, owner: Owner, name: str, render: Render, secrets: GetsSecrets) -> Mapping[str, Any]:
        """Return the fields of an entry."""


class Keychain:
    """The entries that one command has read, and their secrets."""

    def __init__(self, source: ReadsEntries, secrets: GetsSecrets, command: Command, renderer: Renderer) -> None:
        self._source = source
        self._elsewhere = secrets
        self._command = command
        self._renderer = renderer
        self._entries: dict[str, Mapping[str, Any]] = {}
        self._reading: list[str] = []
        self.secrets: list[str] = []

    async def entries(self, wanted: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return all entries read so far, `wanted` among them.

        Raises:
            ToolError: one does not exist or cannot be had, or there are too many.
        """
        for name in wanted:
            if name in self._entries:
                continue
            if len(self._entries) >= KEYCHAIN_ENTRIES_MAX:
                text = f"at most {KEYCHAIN_ENTRIES_MAX} keychain entries per command"
                raise ToolError("worker", "KEYCHAIN", text)
            self._entries[name] = await self._read(name)
        self.secrets = longest_first({text for entry in self._entries.values() for text in secret_texts(entry)})
        return self._entries

    async def _read(self, name: str) -> Mapping[str, Any]:
        catalog_id = self._command.catalog_id
        if catalog_id is None:
            raise ToolError("worker", "KEYCHAIN", f"keychain entry '{name}': the command has no catalog_id")
        if name in self._reading or len(self._reading) >= KEYCHAIN_NESTING_MAX:
            text = f"keychain entry '{name}' is defined by itself: {' -> '.join([*self._reading, name])}"
            raise ToolError("worker", "KEYCHAIN", text)
        owner = Owner(catalog_id=catalog_id, execution_id=self._command.execution_id)
        self._reading.append(name)
        try:
            return await self._source.fields(owner, name, self._rendered, self._elsewhere)
        finally:
            self._reading.pop()

    async def _rendered(self, value: Any) -> Any:
        """Evaluate a definition's templates, which may need other entries."""
        names = {**self._command.render_context, "keychain": await self.entries(named_entries(value))}
        return await self._renderer.render(value, names, replace=self.stands_for)

    def stands_for(self, value: Mapping[str, Any]) -> Any:
        """Return the field that `{"$noetl_ref": {"kind": "keychain", "name", "field"}}` means, `NotImplemented` for others."""
        reference = value.get(_REFERENCE)
        if not isinstance(reference, Mapping) or reference.get("kind") != "keychain":
            return NotImplemented
        return self._entries.get(str(reference.get("name", "")), {}).get(str(reference.get("field", "")), "")


async def render_places(
    value: Any,
    names: Mapping[str, Any],
    places: list[list[str | int]] | None,
    keychain: Keychain,
    renderer: Renderer,
    *,
    lenient: bool,
) -> Any:
    """Return `value` with its templates evaluated, everywhere or only at `places`, keychain entries included.

    Raises:
        ToolError: a template fails, or what it names cannot be had.
    """
    found = _places(value, places)
    wanted = named_entries([part for _, part in found])
    if not wanted and not has_templates([part for _, part in found]):
        return value
    known = {**names, "keychain": await keychain.entries(wanted)}
    for path, part in found:
        replace = keychain.stands_for if wanted else None
        keep = lenient or path[-1:] in _CODE_PATHS
        value = _with(value, path, await renderer.render(part, known, lenient=keep, replace=replace))
    return value


def _places(value: Any, places: list[list[str | int]] | None) -> list[tuple[list[str | int], Any]]:
    """Return the places to render with what stands there; the whole when none are named."""
    if places is None:
        return [([], value)]
    found: list[tuple[list[str | int], Any]] = []
    for path in places:
        part = value
        try:
            for key in path:
                part = part[key]
        except (KeyError, IndexError, TypeError):
            continue  # rendered away
        if path:
            found.append((path, part))
    return found


def _with(value: Any, path: Sequence[str | int], new: Any) -> Any:
    """Return a copy of `value` with `new` at `path`, sharing what is beside it."""
    if not path:
        return new
    key, *rest = path
    if isinstance(value, Mapping):
        return {**value, key: _with(value[key], rest, new)}
    return [_with(item, rest, new) if index == key else item for index, item in enumerate(value)]
