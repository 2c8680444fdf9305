"""Encryption at rest of credentials and keychain entries. Never logs, never puts plaintext or keys into an error.

What is written is an envelope, `v2.<key id>.<wrapped data key>.<sealed value>`: a data key of its own for every value, wrapped
by a key-encryption key from the settings. Both parts are base64url of nonce, ciphertext and tag of AES-256-GCM; the additional
data binds format, table, column and row, so a value copied elsewhere does not open. To change the key, only data keys are
wrapped anew.

What is read as well: `v1`, this program's earlier form without data keys, and the original's three: plain JSON, base64 of nonce
and ciphertext, and its envelope in JSON. The original binds nothing to the row.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if TYPE_CHECKING:
    from shared.platform.settings import ApiSettings

FORMAT = "v2"
FORMAT_BEFORE = "v1"  # one key for everything
PLAIN, ORIGINAL_SEALED, ORIGINAL_ENVELOPE = "plain", "original", "original-envelope"  # forms of the original
KEY_BYTES = 32  # AES-256
NONCE_BYTES = 12  # 96 bits, what GCM is defined for (NIST SP 800-38D, 8.2)
TAG_BYTES = 16
KEYS_MAX = 16  # configured at once
KEY_ID_DIGITS = 8  # of the SHA-256 of the key: tells keys apart, reveals nothing about them
HOW_TO_SET = (
    "set NOETL_ENCRYPTION_KEY to the base64 of 32 random bytes (for example `openssl rand -base64 32`) "
    "or NOETL_ENCRYPTION_KEY_FILE to a file that holds it, and restart the API"
)
_SEPARATORS = re.compile(r"[\s,]+")
_KEY_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
# The column that a table's name stands for; version 1 bound the table's name alone.
_COLUMNS = {"credential": "credential.data_encrypted", "keychain": "keychain.data_encrypted"}


class CipherError(Exception):
    """A value cannot be encrypted or decrypted."""


class KeyUnavailableError(CipherError):
    """The key is not configured: a person has to set it; the message says how."""


class CorruptValueError(CipherError):
    """The stored value was changed, cut or moved to another row."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key-encryption key; `key_id` may be stored and shown."""

    key_id: str
    secret: bytes


def key_digest(secret: bytes) -> str:
    """Return the id of a key without a name."""
    return hashlib.sha256(secret).hexdigest()[:KEY_ID_DIGITS]


def parse_key(text: str) -> Key:
    """Return a key given as base64, or as `name:base64`.

    Raises:
        ValueError: it is neither; the text does not repeat it.
    """
    name, separator, encoded = text.rpartition(":")
    if separator and _KEY_NAME.fullmatch(name) is None:
        raise ValueError("the name of an encryption key has 1 to 32 letters, digits, - or _")
    try:
        secret = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ValueError(f"the encryption key is not base64; {HOW_TO_SET}") from error
    if len(secret) != KEY_BYTES:
        raise ValueError(f"the encryption key has {len(secret)} bytes instead of {KEY_BYTES}; {HOW_TO_SET}")
    return Key(name or key_digest(secret), secret)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    if "+" in text or "/" in text:
        raise CorruptValueError("the stored value is damaged: it is not base64url")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise CorruptValueError("the stored value is damaged: it is not base64url") from error


def _standard(text: str) -> bytes:
    """Return base64 as the original writes it, with or without its padding."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise CorruptValueError("the stored value is damaged: it is not base64") from error


def _bound(*parts: str) -> bytes:
    """Return additional data; lengths in front keep two different contexts from looking the same."""
    return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)


def _seal(key: AESGCM, plaintext: bytes, bound: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + key.encrypt(nonce, plaintext, bound)


def _open(key: AESGCM, sealed: bytes, bound: bytes | None) -> bytes:
    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise CorruptValueError("the stored value is damaged: it is too short")
    try:
        return key.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)
    except InvalidTag as error:
        raise CorruptValueError(
            "the stored value was changed, belongs to another row, or its key is another"
        ) from error


def _original_envelope(text: str) -> Mapping[str, Any] | None:
    """Return the original's envelope, None when `text` is none."""
    if '"dek"' not in text:
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(value, dict) or value.keys() != {"v", "alg", "ct", "dek"} or not isinstance(value["dek"], dict):
        return None
    return value if value["v"] == 1 and value["alg"] == "AES-256-GCM" else None


def form_of(text: str) -> str:
    """Return what protects a stored text: `v2`, `v1`, or one of the original's forms."""
    if text.startswith((f"{FORMAT}.", f"{FORMAT_BEFORE}.")):
        return text[:2]
    if _original_envelope(text) is not None:
        return ORIGINAL_ENVELOPE
    if len(text) * 3 // 4 >= NONCE_BYTES + TAG_BYTES and _BASE64.fullmatch(text) is not None and not text.isdigit():
        return ORIGINAL_SEALED
    return PLAIN


class Cipher:
    """Encrypts with the first key, decrypts with any: to rotate, put the new key in front."""

    def __init__(self, keys: tuple[Key, ...]) -> None:
        """Take keys of different ids; none means that only plain values can be read."""
        self.key_ids = tuple(key.key_id for key in keys)
        self._keys = {key.key_id: AESGCM(key.secret) for key in keys}
        self._by_digest = {key_digest(key.secret): key.key_id for key in keys}
        self.current = self.key_ids[0] if keys else None
        if len(self._keys) != len(keys) or len(keys) > KEYS_MAX:
            raise ValueError(f"encryption keys need different names, and there are {KEYS_MAX} at most")

    @classmethod
    def from_settings(cls, settings: ApiSettings) -> Cipher:
        """Build the cipher from NOETL_ENCRYPTION_KEY or its file; several keys are separated by commas or lines.

        Raises:
            ValueError: a key is no base64 of 32 bytes, or the file cannot be read.
        """
        text = settings.noetl_encryption_key.get_secret_value()
        if not text and settings.noetl_encryption_key_file:
            try:
                text = Path(settings.noetl_encryption_key_file).read_text(encoding="ascii")
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"NOETL_ENCRYPTION_KEY_FILE cannot be read: {type(error).__name__}") from error
        return cls(tuple(parse_key(part) for part in _SEPARATORS.split(text) if part))

    @property
    def can_encrypt(self) -> bool:
        """Whether a key is configured."""
        return self.current is not None

    def _current(self) -> tuple[str, AESGCM]:
        if self.current is None:
            raise KeyUnavailableError(f"secrets are stored encrypted and no encryption key is configured: {HOW_TO_SET}")
        return self.current, self._keys[self.current]

    def _key(self, key_id: str) -> AESGCM:
        key = self._keys.get(key_id)
        if key is None:
            raise KeyUnavailableError(f"encrypted with key {key_id[:32]!r}, which is not configured: {HOW_TO_SET}")
        return key

    def encrypt(self, plaintext: bytes, *, table: str, row: str) -> str:
        """Return `plaintext` as stored text for `row` of `table` (or `table.column`).

        Raises:
            KeyUnavailableError: no key is configured.
        """
        key_id, key = self._current()
        column = _COLUMNS.get(table, table)
        data_key = os.urandom(KEY_BYTES)
        wrapped = _seal(key, data_key, _bound(FORMAT, "data key", key_id, column, row))
        sealed = _seal(AESGCM(data_key), plaintext, _bound(FORMAT, "value", column, row))
        return f"{FORMAT}.{key_id}.{_encode(wrapped)}.{_encode(sealed)}"

    def decrypt(self, text: str, *, table: str, row: str) -> bytes:
        """Return the plaintext of `row` of `table`; plain JSON of the original comes back as it is.

        Raises:
            KeyUnavailableError: it was encrypted with a key that is not configured.
            CorruptValueError: it was changed, cut or moved from another row.
        """
        match form_of(text):
            case "v2":
                data_key, sealed = self._unwrap(text, table=table, row=row)
                bound = _bound(FORMAT, "value", _COLUMNS.get(table, table), row)
                return _open(AESGCM(data_key), sealed, bound)
            case "v1":
                _format, key_id, nonce, sealed_text = _parts(text)
                key_id = self._by_digest.get(key_id, key_id)
                bound = _bound(FORMAT_BEFORE, text.split(".")[1], table, row)
                return _open(self._key(key_id), _decode(nonce) + _decode(sealed_text), bound)
            case "original-envelope":
                return self._open_original_envelope(text)
            case "original":
                return self._open_with_any(_standard(text))
            case _:
                return text.encode()

    def _unwrap(self, text: str, *, table: str, row: str) -> tuple[bytes, bytes]:
        _format, key_id, wrapped, sealed = _parts(text)
        bound = _bound(FORMAT, "data key", key_id, _COLUMNS.get(table, table), row)
        return _open(self._key(key_id), _decode(wrapped), bound), _decode(sealed)

    def _open_with_any(self, sealed: bytes) -> bytes:
        """Open what does not say which key it was sealed with."""
        if not self._keys:
            raise KeyUnavailableError(f"encrypted by the original, and no encryption key is configured: {HOW_TO_SET}")
        for key in self._keys.values():
            try:
                return _open(key, sealed, None)
            except CorruptValueError:
                continue
        raise KeyUnavailableError(f"encrypted by the original with a key that is not configured: {HOW_TO_SET}")

    def _open_original_envelope(self, text: str) -> bytes:
        envelope = _original_envelope(text)
        assert envelope is not None
        data_key = envelope["dek"]
        if data_key.get("p") != "local":
            provider = str(data_key.get("p"))[:32]
            raise KeyUnavailableError(
                f"its key is kept by {provider!r}, which this program does not reach: store the value again"
            )
        try:
            wrapped, sealed = _standard(data_key["ct"]), _standard(envelope["ct"])
        except (KeyError, TypeError) as error:
            raise CorruptValueError("the original's envelope is damaged") from error
        secret = self._open_with_any(wrapped)
        if len(secret) != KEY_BYTES:
            raise CorruptValueError("the original's envelope is damaged")
        return _open(AESGCM(secret), sealed, None)

    def is_current(self, text: str) -> bool:
        """Whether a stored text needs nothing when keys are rotated."""
        return text.startswith(f"{FORMAT}.{self.current}.")

    def rewrap(self, text: str, *, table: str, row: str) -> str:
        """Return a stored text under the current key: only its data key is wrapped anew, older forms are encrypted anew.

        Raises:
            KeyUnavailableError: the old or the new key is not configured.
            CorruptValueError: it was changed, cut or moved from another row.
        """
        if form_of(text) != FORMAT:
            return self.encrypt(self.decrypt(text, table=table, row=row), table=table, row=row)
        key_id, key = self._current()
        data_key, sealed = self._unwrap(text, table=table, row=row)
        wrapped = _seal(key, data_key, _bound(FORMAT, "data key", key_id, _COLUMNS.get(table, table), row))
        return f"{FORMAT}.{key_id}.{_encode(wrapped)}.{_encode(sealed)}"

    def key_of(self, text: str) -> str:
        """Return what protects a stored text: a key id, for version 1 with `v1:` in front, or the original's form."""
        form = form_of(text)
        if form not in (FORMAT, FORMAT_BEFORE):
            return form
        key_id = text.split(".", 2)[1][:32]
        return key_id if form == FORMAT else f"v1:{self._by_digest.get(key_id, key_id)}"


def _parts(text: str) -> list[str]:
    parts = text.split(".")
    if len(parts) != 4:
        raise CorruptValueError("the stored value is damaged: it has not four parts")
    return parts
