"""JSON text of what playbooks compute: as fast as it goes, and exact where integers are longer than 64 bits."""

from __future__ import annotations

import json
from typing import Any

import orjson

from services.worker.plain import to_plain


def encoded(value: Any) -> bytes:
    """Return the JSON text of plain data; text for what JSON does not know.

    Raises:
        NotPlainError: it is nested too deep, or contains itself.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # an integer beyond 64 bits, or no JSON type
        return _exact(value)


def _exact(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        return orjson.dumps(to_plain(value), option=orjson.OPT_NON_STR_KEYS)
