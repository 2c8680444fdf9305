"""Read an event envelope off the wire (docs/contracts.md section 2)."""

from __future__ import annotations

from typing import Any

import orjson

from shared.wire.types import parse_id


class EnvelopeError(ValueError):
    """The message is no event envelope; the text names what is wrong."""


def read_envelope(data: bytes) -> dict[str, Any]:
    """Return the envelope with `execution_id`, `event_id`, `catalog_id` and `stream_version` as integers.

    Raises:
        EnvelopeError: it is no JSON object, or one of these, or the event type, is missing or wrong.
    """
    try:
        envelope = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise EnvelopeError(f"no JSON: {error}") from error
    if not isinstance(envelope, dict):
        raise EnvelopeError("no JSON object")
    for key in ("execution_id", "event_id", "catalog_id", "stream_version"):
        value = parse_id(envelope.get(key))
        if value is None:
            raise EnvelopeError(f"{key} must be a positive integer")
        envelope[key] = value
    if not isinstance(envelope.get("event_type"), str):
        raise EnvelopeError("event_type must be text")
    return envelope
