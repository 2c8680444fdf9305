"""JSON text of plain data."""

from __future__ import annotations

from typing import Any

import orjson


def dumps(value: Any) -> bytes:
    """Return the JSON text of `value`; what JSON does not have becomes its text."""
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)


def size_of(value: Any) -> int:
    """Return the bytes of the JSON text of `value`; cheap for scalars."""
    if value is None or isinstance(value, bool | int | float):
        return 8
    if isinstance(value, str):
        return len(value) + 2
    return len(dumps(value))
