"""Any Python value as plain JSON data. Standard library only: the python children import it too."""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from enum import Enum
from typing import Any

from services.worker.limits import PLAIN_DEPTH_MAX

_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1  # what orjson and JSONB readers keep exact


class NotPlainError(ValueError):
    """The value cannot be written as JSON: nested too deep, or a cycle."""


def _text(value: str) -> str:
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:  # lone surrogates
        return value.encode("utf-8", "replace").decode()
    return value


def _bytes(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def _scalar(value: Any) -> Any:
    """Return what a value without members becomes; `NotImplemented` when it has some or is unknown."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return _scalar(value.value)
    if isinstance(value, str):
        return _text(str(value))
    if isinstance(value, int):
        return int(value) if _INT_MIN <= value <= _INT_MAX else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _bytes(bytes(value))
    return NotImplemented


def _key(key: Any) -> str:
    if isinstance(key, str):
        return _text(str(key))
    plain = _scalar(key)
    if plain is None or isinstance(plain, bool):
        return {None: "null", True: "true", False: "false"}[plain]
    return str(key if plain is NotImplemented else plain)


def _members(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping):
        return {_key(key): to_plain(member, depth + 1) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(member, depth + 1) for member in value]
    if isinstance(value, (set, frozenset)):
        return [
            to_plain(member, depth + 1) for member in sorted(value, key=lambda member: (str(type(member)), str(member)))
        ]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: to_plain(getattr(value, field.name), depth + 1) for field in fields}
    for method in ("model_dump", "tolist", "to_dict"):  # pydantic, numpy, pandas
        convert = getattr(value, method, None)
        if callable(convert) and not isinstance(value, type):
            return to_plain(convert(), depth + 1)
    return _text(str(value))


def to_plain(value: Any, depth: int = 0) -> Any:
    """Return `value` as dicts with text keys, lists, text, numbers, booleans and None.

    NaN and infinities become None, sets sorted lists, times ISO 8601 text, durations seconds, bytes text (base64 when they
    are no UTF-8), integers beyond 64 bits and unknown objects their text.

    Raises:
        NotPlainError: it is nested deeper than `PLAIN_DEPTH_MAX` levels.
    """
    plain = _scalar(value)
    if plain is not NotImplemented:
        return plain
    if depth >= PLAIN_DEPTH_MAX:
        raise NotPlainError(f"the output is nested deeper than {PLAIN_DEPTH_MAX} levels, or contains itself")
    return _members(value, depth)
