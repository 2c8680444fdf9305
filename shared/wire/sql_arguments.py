"""JSON values as parameters of SQL statements. Pure."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return json_text(value) if isinstance(value, (Mapping, list)) else str(value)


def json_text(value: Any) -> str:
    """Return JSON text of plain data."""
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()


def _json(value: Any) -> str:
    """Return the JSON text that a parameter means: text that is JSON already as it is."""
    if isinstance(value, str):
        try:
            orjson.loads(value)
        except orjson.JSONDecodeError:
            return json_text(value)
        return value
    return json_text(value)


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in ("true", "t", "yes", "on", "1"):
        return True
    if text in ("false", "f", "no", "off", "0"):
        return False
    raise ValueError("it is no boolean")


def _bytes(value: Any) -> bytes:
    text = str(value)
    if text.startswith("\\x"):
        return bytes.fromhex(text[2:])
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return text.encode()


def _int(value: Any) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise ValueError("it is no whole number")
    return int(value)


_CONVERTERS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("int2", "int4", "int8", "oid"), _int),
    **dict.fromkeys(("float4", "float8"), float),
    **dict.fromkeys(("text", "varchar", "bpchar", "name", "char", "unknown", "citext"), _text),
    **dict.fromkeys(("json", "jsonb"), _json),
    "bool": _bool,
    "numeric": lambda value: Decimal(str(value)),
    "uuid": lambda value: uuid.UUID(str(value)),
    "date": lambda value: datetime.fromisoformat(str(value)).date(),
    "time": lambda value: time.fromisoformat(str(value)),
    "timestamp": lambda value: datetime.fromisoformat(str(value)).replace(tzinfo=None),
    "timestamptz": lambda value: datetime.fromisoformat(str(value)).astimezone(),
    "interval": lambda value: timedelta(seconds=float(value)),
    "bytea": _bytes,
}


def argument(value: Any, type_name: str) -> Any:
    """Return a JSON value as the Python value that a parameter of Postgres type `type_name` (`int4`, `text[]`) takes.

    Raises:
        ValueError: it is no value of that type; the text says why.
    """
    if value is None:
        return None
    if type_name.endswith("[]"):
        if not isinstance(value, list):
            raise ValueError(f"a parameter of type {type_name} takes a list")
        return [argument(member, type_name[:-2]) for member in value]
    convert = _CONVERTERS.get(type_name)
    if convert is None:
        return value if isinstance(value, str) else _text(value)
    try:
        return convert(value)
    except (ValueError, TypeError, InvalidOperation, OverflowError) as error:
        raise ValueError(f"{_text(value)[:100]!r} is no {type_name}: {error}") from error
