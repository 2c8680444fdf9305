"""Encryption at rest of credentials and keychain entries. Never logs, never puts plaintext or keys into an error.

Stored text: `v1.<key id>.<nonce>.<ciphertext and tag>`, the last two base64url without padding. AES-256-GCM; the
additional data binds format, key, table and row, so a value copied to another row does not decrypt. What the original
stored is plain JSON; it is read as it is and encrypted when it is next written.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if TYPE_CHECKING:
    from shared.platform.settings import ApiSettings

FORMAT = "v1"
KEY_BYTES = 32  # AES-256
NONCE_BYTES = 12  # 96 bits, what GCM is defined for (NIST SP 800-38D, 8.2)
KEY_ID_DIGITS = 8  # of the SHA-256 of the key: tells keys apart, reveals nothing about them
HOW_TO_SET = (
    "set NOETL_ENCRYPTION_KEY to the base64 of 32 random bytes (for example `openssl rand -base64 32`) "
    "or NOETL_ENCRYPTION_KEY_FILE to a file that holds it, and restart the API"
)
_SEPARATORS = re.compile(r"[\s,]+")


class CipherError(Exception):
    """A value cannot be encrypted or decrypted."""


class KeyUnavailableError(CipherError):
    """The key is not configured: a person has to set it; the message says how."""


class CorruptValueError(CipherError):
    """The stored value was changed, cut or moved to another row."""


def _parse_key(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"the encryption key is not base64; {HOW_TO_SET}") from error
    if len(key) != KEY_BYTES:
        raise ValueError(f"the encryption key has {len(key)} bytes instead of {KEY_BYTES}; {HOW_TO_SET}")
    return key


def _key_id(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()[:KEY_ID_DIGITS]


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    if "+" in text or "/" in text:
        raise CorruptValueError("the stored value is damaged: it is not base64url")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise CorruptValueError("the stored value is damaged: it is not base64url") from error


def _additional_data(*, key_id: str, table: str, row: str) -> bytes:
    """Return the bound context; lengths in front keep two different contexts from looking the same."""
    parts = (FORMAT, key_id, table, row)
    return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)


class Cipher:
    """Encrypts with the first key, decrypts with any: to rotate, put the new key in front."""

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        """Take keys of 32 bytes each; none means that only plain values can be read."""
        self._keys = {_key_id(key): AESGCM(key) for key in keys}
        self._writing = _key_id(keys[0]) if keys else None

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
        return cls(tuple(_parse_key(part) for part in _SEPARATORS.split(text) if part))

    @property
    def can_encrypt(self) -> bool:
        """Whether a key is configured."""
        return self._writing is not None

    def encrypt(self, plaintext: bytes, *, table: str, row: str) -> str:
        """Return `plaintext` as stored text for `row` of `table`.

        Raises:
            KeyUnavailableError: no key is configured.
        """
        if self._writing is None:
            raise KeyUnavailableError(f"secrets are stored encrypted and no encryption key is configured: {HOW_TO_SET}")
        nonce = os.urandom(NONCE_BYTES)
        context = _additional_data(key_id=self._writing, table=table, row=row)
        sealed = self._keys[self._writing].encrypt(nonce, plaintext, context)
        return f"{FORMAT}.{self._writing}.{_encode(nonce)}.{_encode(sealed)}"

    def decrypt(self, text: str, *, table: str, row: str) -> bytes:
        """Return the plaintext of `row` of `table`; plain JSON of the original comes back as it is.

        Raises:
            KeyUnavailableError: it was encrypted with a key that is not configured.
            CorruptValueError: it was changed, cut or moved from another row.
        """
        if not text.startswith(f"{FORMAT}."):
            return text.encode()
        parts = text.split(".")
        if len(parts) != 4:
            raise CorruptValueError("the stored value is damaged: it has not four parts")
        _format, key_id, nonce_text, sealed_text = parts
        nonce, sealed = _decode(nonce_text), _decode(sealed_text)
        key = self._keys.get(key_id)
        if key is None:
            raise KeyUnavailableError(
                f"encrypted with key {key_id[:KEY_ID_DIGITS]!r}, which is not configured: {HOW_TO_SET}"
            )
        if len(nonce) != NONCE_BYTES:
            raise CorruptValueError("the stored value is damaged: its nonce is no 96 bits")
        try:
            return key.decrypt(nonce, sealed, _additional_data(key_id=key_id, table=table, row=row))
        except InvalidTag as error:
            raise CorruptValueError("the stored value was changed or belongs to another row") from error
