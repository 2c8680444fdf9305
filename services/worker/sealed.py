"""Secrets sealed for this worker: a key pair made at its start, whose public half it registers (as services.api.sealing)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ALGORITHM = "x25519-hkdf-sha256-chacha20-poly1305"
VERSION = 1
INFO = b"noetl-sealed-v1"
KEY_BYTES, NONCE_BYTES = 32, 12  # both come out of the derivation, in this order


class SealedBox:
    """Opens what was sealed for this process; the private key never leaves it."""

    def __init__(self) -> None:
        self._key = X25519PrivateKey.generate()
        self.public_key = base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    def open(self, envelope: object) -> bytes:
        """Return what is in an envelope.

        Raises:
            ValueError: it is none, was changed, or was sealed for another.
        """
        if not isinstance(envelope, Mapping) or (envelope.get("alg"), envelope.get("v")) != (ALGORITHM, VERSION):
            raise ValueError(f"not sealed with {ALGORITHM} version {VERSION}")
        sender, sealed = _decoded(envelope, "eph_pub"), _decoded(envelope, "ciphertext")
        shared = self._key.exchange(X25519PublicKey.from_public_bytes(sender))
        derived = HKDF(algorithm=SHA256(), length=KEY_BYTES + NONCE_BYTES, salt=None, info=INFO).derive(shared)
        bound = f"{ALGORITHM}|v={VERSION}".encode()
        try:
            return ChaCha20Poly1305(derived[:KEY_BYTES]).decrypt(derived[KEY_BYTES:], sealed, bound)
        except InvalidTag:
            raise ValueError("changed on its way, or sealed for another worker") from None


def _decoded(envelope: Mapping[str, Any], key: str) -> bytes:
    try:
        return base64.b64decode(envelope[key], validate=True)
    except (KeyError, TypeError, binascii.Error) as error:
        raise ValueError(f"`{key}` is no base64") from error
