"""The form of a playbook's workload, as the GUI and MCP clients show it: fields, defaults, and hints in comments. Pure.

A hint stands behind a key of `workload:` on its line: `# ui:description=text`, `# ui:secret`, `# ui:enum=[a, b]`,
`# ui:credential=pg_*`; several may follow each other. What is no hint is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from shared.engine import PlaybookError, read_document

FIELDS_MAX = 1000  # fields of one form, nested ones included
DEPTH_MAX = 32  # levels of nested fields; deeper objects are shown as a default only

_KEY = re.compile(r"^( *)([A-Za-z_][A-Za-z0-9_-]*)\s*:")
_HINT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\s*(?:=(.*))?\Z", re.S)
_JSON_TYPES = {"enum": "string"}

Hint = str | list[str] | bool
Hints = dict[str, Hint]


def _hint_value(text: str) -> str | list[str]:
    if text.startswith("[") and text.endswith("]"):
        return [item.strip().strip("'\"") for item in text[1:-1].split(",") if item.strip()]
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return text


def _hints_of(line: str) -> Hints:
    found: Hints = {}
    for comment in line.split("#")[1:]:
        text = comment.strip()
        match = _HINT.match(text[3:].strip()) if text.startswith("ui:") else None
        if match is not None:
            value = (match[2] or "").strip()
            found[match[1]] = _hint_value(value) if value else True
    return found


def _hinted_lines(content: str) -> Iterator[tuple[str, Hints]]:
    """Yield the keys directly under the top-level `workload:` with the hints on their lines."""
    inside, indent = False, 0
    for line in content.splitlines():
        stripped = line.lstrip(" ")
        if not stripped or stripped.startswith("#"):
            continue
        depth = len(line) - len(stripped)
        if depth == 0:
            inside, indent = stripped.startswith("workload:"), 0
            continue
        match = _KEY.match(line) if inside else None
        if match is not None:
            indent = indent or depth
            if depth == indent:
                yield match[2], _hints_of(line)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    for types, name in (
        (bool, "boolean"),
        (int, "integer"),
        (float, "number"),
        (Mapping, "object"),
        (list, "array"),
    ):
        if isinstance(value, types):
            return name
    return "string"


class _Form:
    """Builds fields until `FIELDS_MAX` of them are made."""

    def __init__(self) -> None:
        self._left = FIELDS_MAX

    def fields(self, values: Mapping[Any, Any], hints: Mapping[str, Hints], depth: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for key, value in values.items():
            if self._left <= 0:
                break
            self._left -= 1
            found.append(self._field(str(key), value, hints.get(str(key), {}), depth))
        return found

    def _field(self, name: str, value: object, hints: Hints, depth: int) -> dict[str, Any]:
        description, options, glob = hints.get("description"), hints.get("enum"), hints.get("credential")
        children = None
        if isinstance(value, Mapping) and options is None and depth < DEPTH_MAX:
            children = self.fields(value, {}, depth + 1)
        return {
            "name": name,
            "kind": "enum" if options is not None else _kind(value),
            "default": value,
            "description": ", ".join(description) if isinstance(description, list) else _text(description),
            "secret": bool(hints.get("secret", False)),
            "credential_glob": _text(glob),
            "options": options if options is None or isinstance(options, list) else [options],
            "children": children,
        }


def _text(hint: Hint | None) -> str | None:
    return hint if isinstance(hint, str) else None


def form_fields(content: str) -> list[dict[str, Any]]:
    """Return the fields of a document's `workload:` in its order; none when it has none or cannot be read."""
    try:
        workload = read_document(content).data.get("workload")
    except PlaybookError:
        return []
    if not isinstance(workload, Mapping):
        return []
    return _Form().fields(workload, dict(_hinted_lines(content)), 0)


def input_schema(content: str) -> dict[str, Any]:
    """Return the same as a JSON schema, which lets more keys pass."""
    properties: dict[str, Any] = {}
    for item in form_fields(content):
        shown: dict[str, Any] = {"type": _JSON_TYPES.get(item["kind"], item["kind"])}
        for key, target in (("description", "description"), ("options", "enum")):
            if item[key]:
                shown[target] = item[key]
        if item["default"] is not None:
            shown["default"] = item["default"]
        properties[item["name"]] = shown
    return {"type": "object", "properties": properties, "additionalProperties": True}
