"""What is wrong with a request, in the original's words: pydantic's errors with their place, input and context. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import orjson
from pydantic import ValidationError

from services.api.redaction import REDACTED, is_secret_name, redact

ERRORS_MAX = 20  # in one answer
ECHO_BYTES_MAX = 4096  # of the refused input that an answer repeats
VALUE_ERROR = "Value error, "
INTEGER_TEXT = "Input should be a valid integer, unable to parse string as an integer"


# What credentials and keychain entries are made of: their members may have any name.
SECRET_BODIES = frozenset({"data", "token_data", "renew_config"})


def _is_secret(location: Iterable[str | int]) -> bool:
    """Whether a value at `location` may be a secret: an answer does not repeat it, as answers end up in logs."""
    return any(isinstance(key, str) and (key in SECRET_BODIES or is_secret_name(key)) for key in location)


def echo(value: object) -> object:
    """Return the refused `value` for an answer: without secrets, and only what it was when it is large."""
    if isinstance(value, str):
        return value if len(value) <= ECHO_BYTES_MAX else value[:200] + "..."
    if not isinstance(value, dict | list):
        return value
    shown = redact(value)
    if isinstance(shown, dict):
        shown = {key: REDACTED if item and key in SECRET_BODIES else item for key, item in shown.items()}
    if len(orjson.dumps(shown, default=str, option=orjson.OPT_NON_STR_KEYS)) <= ECHO_BYTES_MAX:
        return shown
    return f"<{type(value).__name__} of {len(value)}>"


def error_item(location: list[str | int], message: str, value: object, *, kind: str) -> dict[str, Any]:
    """Return one error of the list that a 422 answers."""
    place = location[:-1] if kind == "missing" else location  # what is missing is told by what should hold it
    shown = REDACTED if value and _is_secret(place) else echo(value)
    item: dict[str, Any] = {"type": kind, "loc": location, "msg": message, "input": shown}
    if kind == "value_error" and not message.startswith(VALUE_ERROR):  # a check of ours reads like one of pydantic's
        item |= {"msg": VALUE_ERROR + message, "ctx": {"error": {}}}
    return item


def validation_detail(error: ValidationError, prefix: str) -> list[dict[str, Any]]:
    """Return pydantic's errors as the original sends them, each with its place under `prefix`, `ERRORS_MAX` at most."""
    found: list[dict[str, Any]] = []
    for item in error.errors(include_url=False)[:ERRORS_MAX]:
        absent_parameter = prefix == "query" and item["type"] == "missing"  # the whole query is no input of a parameter
        made = error_item(
            [prefix, *item["loc"]], item["msg"], None if absent_parameter else item.get("input"), kind=item["type"]
        )
        context = item.get("ctx")
        if context:  # an exception has no JSON form: the original shows an empty object
            made["ctx"] = {key: {} if isinstance(value, Exception) else value for key, value in context.items()}
        found.append(made)
    return found


def json_detail(raw: bytes) -> list[dict[str, Any]] | None:
    """Return why `raw` is no JSON, as Python's parser of the original says it; None when that one would accept it."""
    try:
        json.loads(raw)
    except json.JSONDecodeError as error:
        item = error_item(["body", error.pos], "JSON decode error", {}, kind="json_invalid")
        return [{**item, "ctx": {"error": error.msg}}]
    except (UnicodeDecodeError, RecursionError, ValueError):
        return None
    return None
