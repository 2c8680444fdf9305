"""Identifier types that cross function boundaries. A bare int or str never does."""

from __future__ import annotations

from typing import NewType

ExecutionId = NewType("ExecutionId", int)
EventId = NewType("EventId", int)
CommandId = NewType("CommandId", int)
CatalogId = NewType("CatalogId", int)
StepName = NewType("StepName", str)

ID_MAX = 2**63 - 1  # ids are positive signed 64-bit integers (BIGINT)


def parse_id(value: object) -> int | None:
    """Return `value` as a positive 63-bit id when it is an int or a string of digits, else None.

    Clients send ids as numbers or as strings (clients.md section 0); anything else is not an id.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if 0 < value <= ID_MAX else None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 19:
        number = int(value)
        return number if 0 < number <= ID_MAX else None
    return None
