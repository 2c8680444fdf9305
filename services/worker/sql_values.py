"""Values of a database as JSON, and JSON as parameters (`argument`). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from services.worker.plain import to_plain
from shared.wire.sql_arguments import argument, json_text

__all__ = ["argument", "cell", "json_text", "number"]

_EXACT_DIGITS = 15  # decimal digits that a JSON number keeps exactly


def number(value: Decimal) -> int | float | str | None:
    """Return a numeric as JSON: an integer without decimals, a float of at most 15 digits, else its text, which is exact."""
    if not value.is_finite():
        return None
    _, digits, exponent = value.as_tuple()
    if exponent == 0 and len(digits) <= _EXACT_DIGITS:
        return int(value)
    return float(value) if len(digits) <= _EXACT_DIGITS else format(value, "f")


def cell(value: Any) -> Any:
    """Return a database value as plain JSON: times as ISO 8601, numerics see `number`, UUIDs and what is unknown as text."""
    if value is None or isinstance(value, (bool, int, str, float)):
        return to_plain(value) if isinstance(value, (int, float)) else value
    if isinstance(value, Decimal):
        return number(value)
    if isinstance(value, (list, tuple)):
        return [cell(member) for member in value]
    if isinstance(value, Mapping):
        return {str(key): cell(member) for key, member in value.items()}
    if isinstance(value, (datetime, date, time, timedelta, bytes, bytearray, memoryview)):
        return to_plain(value)
    if hasattr(value, "lower_inc"):
        return _range(value)
    return str(value)


def _range(value: Any) -> str:
    """Return a range as Postgres writes it."""
    if value.isempty:
        return "empty"
    low, high = ("" if bound is None else str(cell(bound)) for bound in (value.lower, value.upper))
    return f"{'[' if value.lower_inc else '('}{low},{high}{']' if value.upper_inc else ')'}"
