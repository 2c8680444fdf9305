"""`output.select`: members of a result that are shown on top of it, and beside its reference when it is stored. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from services.worker.limits import SELECT_MAX

_PART = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
_MISSING = object()


def selections(output: Any) -> list[tuple[str, str]]:
    """Return (name, path) of each member that an `output` (or `output_select`) names; at most `SELECT_MAX`."""
    given = output
    if isinstance(output, Mapping):
        given = output.get("select") or output.get("output_select")
    if isinstance(given, Mapping):
        found = [(str(name), path) for name, path in given.items() if isinstance(path, str)]
    elif isinstance(given, list):
        found = [pair for pair in map(_pair, given) if pair is not None]
    else:
        found = []
    return found[:SELECT_MAX]


def selecting(config: Mapping[str, Any]) -> Any:
    """Return which of the keys of a tool or task selects members of its result, None when none does."""
    return next((config[key] for key in ("output", "output_select") if selections(config.get(key))), None)


def _pair(item: Any) -> tuple[str, str] | None:
    path = item.get("path") if isinstance(item, Mapping) else item
    if not isinstance(path, str) or not path:
        return None
    name = (item.get("as") or item.get("name")) if isinstance(item, Mapping) else None
    return (str(name) if name else re.split(r"[.\[\]]", path.rstrip("]"))[-1] or path), path


def _at(value: Any, path: str) -> Any:
    for index, key in _PART.findall(path.removeprefix("$").lstrip(".")):
        if index and isinstance(value, list) and int(index) < len(value):
            value = value[int(index)]
        elif key and isinstance(value, Mapping) and key in value:
            value = value[key]
        elif key.isascii() and key.isdigit() and isinstance(value, list) and int(key) < len(value):
            value = value[int(key)]
        else:
            return _MISSING
    return value


def selected(result: Any, output: Any) -> dict[str, Any]:
    """Return the members of `result` that `output` selects, by name; what is not there is left out."""
    found = {name: _at(result, path) for name, path in selections(output)}
    return {name: value for name, value in found.items() if value is not _MISSING}


def with_selected(result: Any, output: Any) -> Any:
    """Return `result` with what `output` selects on top; members of its own keep their names and values."""
    if not isinstance(result, dict):
        return result
    return {**selected(result, output), **result} if output else result
