"""A request body as JSON, without what JSON leaves open: nesting without end, a key twice, integers that lose digits. Pure.

orjson itself refuses NaN, Infinity, lone surrogates and text that is no UTF-8. It keeps the last of two equal keys and turns an
integer over 64 bits into a rounded float; both are found by walking the value, and the slower parser of the standard library
then says where.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from services.api.validation import error_item, json_detail

DEPTH_MAX = 100  # levels; what is stored is read back through parsers that end at 254
STRICT_BYTES_MAX = 1 << 20  # larger bodies are outputs: they are only checked for their depth
_WIDE = float(1 << 63)  # floats from here on may have been integers
_KEY = re.compile(rb'"\s*:')


class BodyError(ValueError):
    """A body that is refused; `detail` is the list that the 422 answers."""

    def __init__(self, detail: list[dict[str, Any]]) -> None:
        super().__init__(detail[0]["msg"])
        self.detail = detail


def _refused(message: str, kind: str, place: list[str | int]) -> BodyError:
    return BodyError([error_item(place, message, {}, kind=kind)])


def parse(raw: bytes) -> object:
    """Return the value of `raw`.

    Raises:
        BodyError: it is no JSON, nested over `DEPTH_MAX` levels, has a key twice or an integer over 64 bits.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        detail = json_detail(raw)
        if detail is not None:
            raise BodyError(detail) from error
        item = error_item(["body", error.pos], "JSON decode error", {}, kind="json_invalid")
        raise BodyError([{**item, "ctx": {"error": error.msg}}]) from error
    if isinstance(value, (dict, list)):
        keys, has_wide = _measure(value)
        if len(raw) <= STRICT_BYTES_MAX and (has_wide or len(_KEY.findall(raw)) > keys):
            _check_strictly(raw)
    return value


def _measure(value: dict[str, Any] | list[Any]) -> tuple[int, bool]:
    """Return how many keys `value` has in all and whether a float in it may have been an integer."""
    keys, has_wide = 0, False
    level: list[Any] = [value]
    for _ in range(DEPTH_MAX):
        below: list[Any] = []
        for container in level:
            if type(container) is dict:
                keys += len(container)
                items: Any = container.values()
            else:
                items = container
            for item in items:
                kind = type(item)  # of orjson's making, so never a subclass
                if kind is dict or kind is list:
                    below.append(item)
                elif kind is float and not -_WIDE < item < _WIDE:
                    has_wide = True
        if not below:
            return keys, has_wide
        level = below
    raise _refused(f"the body is nested over {DEPTH_MAX} levels", "json_too_deep", ["body"])


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _refused("the key stands twice in its object", "json_duplicate_key", ["body", twice[:200]])
    return found


def _integer(text: str) -> int:
    if len(text) > 20 or not -(1 << 63) <= int(text) < 1 << 64:
        raise _refused(f"the integer {text[:40]} has over 64 bits; send it as text", "json_integer_size", ["body"])
    return int(text)


def _check_strictly(raw: bytes) -> None:
    try:
        json.loads(raw, object_pairs_hook=_pairs, parse_int=_integer)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return  # orjson has accepted it
