"""Results that a Python worker of the original has put into its JetStream key-value bucket (clients.md section 1.7)."""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING

import nats.errors
import nats.js.errors

if TYPE_CHECKING:
    from nats.aio.client import Client

BUCKET = "noetl_result_store"
RESULT_BYTES_MAX = 64 << 20  # of one result unpacked; its bucket takes 1 MiB packed
READ_SECONDS = 5.0  # one read; the result is small and the server near
_LOCATOR = re.compile(r"noetl://(execution/\d{1,19}/result/[^\x00]{1,512}/[0-9a-f]{8})")
_GZIP = b"\x1f\x8b"


class UnreadableResultError(ValueError):
    """The stored bytes are no result, or too large."""


def key_of(locator: str) -> str | None:
    """Return the key under which a worker of the original keeps a result, None when `locator` has another form."""
    match = _LOCATOR.fullmatch(locator)
    return None if match is None else match[1].replace("/", "_")


async def read_result(connection: Client, key: str) -> bytes | None:
    """Return the JSON text of a result, None when it does not exist or has expired.

    Raises:
        UnreadableResultError: it cannot be unpacked.
        OSError: NATS does not answer.
    """
    try:
        bucket = await connection.jetstream(timeout=READ_SECONDS).key_value(BUCKET)
        entry = await bucket.get(key)
    except (nats.js.errors.NotFoundError, nats.js.errors.KeyNotFoundError, nats.js.errors.InvalidKeyError):
        return None
    except (nats.errors.Error, TimeoutError) as error:
        raise OSError(f"NATS does not answer: {type(error).__name__}") from error
    return unpacked(entry.value or b"")


def unpacked(data: bytes) -> bytes:
    """Return JSON text as it is, or out of gzip.

    Raises:
        UnreadableResultError: it has more than `RESULT_BYTES_MAX` bytes, or is damaged.
    """
    if not data.startswith(_GZIP):
        return data
    unpacker = zlib.decompressobj(wbits=31)
    try:
        text = unpacker.decompress(data, RESULT_BYTES_MAX)
    except zlib.error as error:
        raise UnreadableResultError("the stored result is damaged") from error
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise UnreadableResultError(f"the stored result has more than {RESULT_BYTES_MAX} bytes, or is cut")
    return text
