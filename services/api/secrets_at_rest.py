"""Sealing and opening of stored secrets as routes need it: objects in, objects out, faults as answers."""

from __future__ import annotations

import logging
from typing import Any

import orjson

from services.api.crypto import Cipher, CipherError, CorruptValueError, KeyUnavailableError
from services.api.http import HttpError, dumps

log = logging.getLogger(__name__)


def seal(cipher: Cipher, value: object, *, table: str, row: str) -> str:
    """Return `value` as sealed JSON.

    Raises:
        HttpError: 503 when no key is configured.
    """
    try:
        return cipher.encrypt(dumps(value), table=table, row=row)
    except KeyUnavailableError as error:
        raise HttpError(503, {"code": "encryption_key_missing", "message": str(error)}) from error


def unseal(cipher: Cipher, text: str, *, table: str, row: str) -> Any:
    """Return the JSON value of a stored text, sealed or plain.

    Raises:
        HttpError: 503 when its key is not configured, 500 when it was changed or moved.
    """
    try:
        return orjson.loads(cipher.decrypt(text, table=table, row=row))
    except KeyUnavailableError as error:
        raise HttpError(503, {"code": "encryption_key_missing", "message": f"{table} '{row}': {error}"}) from error
    except (CipherError, orjson.JSONDecodeError) as error:
        log.error("stored secret unreadable", extra={"table": table})  # noqa: TRY400 - a trace would only repeat it
        message = str(error) if isinstance(error, CorruptValueError) else "the stored value is no JSON"
        raise HttpError(500, {"code": "stored_secret_unreadable", "message": f"{table} '{row}': {message}"}) from None
