"""Sealed delivery: a secret that only one worker can open, in the original's format.

X25519 with a key pair made for this one message, HKDF-SHA256 without salt, ChaCha20-Poly1305. Key and nonce both come from the
derivation, so a nonce is never used twice; the additional data binds algorithm and version.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ALGORITHM = "x25519-hkdf-sha256-chacha20-poly1305"
VERSION = 1
INFO = b"noetl-sealed-v1"
PUBLIC_KEY_BYTES = 32
DERIVED_BYTES = 32 + 12  # key, then nonce


def public_key(text: object) -> X25519PublicKey:
    """Return the key that a worker registered: standard base64 of 32 bytes.

    Raises:
        ValueError: it is none.
    """
    try:
        raw = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != PUBLIC_KEY_BYTES:
        raise ValueError("worker_public_key is not the base64 of 32 bytes")
    return X25519PublicKey.from_public_bytes(raw)


def seal_for(recipient: X25519PublicKey, plaintext: bytes) -> dict[str, Any]:
    """Return `plaintext` so that only the holder of the recipient's private key can read it.

    Raises:
        ValueError: the recipient's key is a weak one, with which everybody could.
    """
    own = X25519PrivateKey.generate()
    derived = HKDF(algorithm=SHA256(), length=DERIVED_BYTES, salt=None, info=INFO).derive(own.exchange(recipient))
    bound = f"{ALGORITHM}|v={VERSION}".encode()
    sealed = ChaCha20Poly1305(derived[:32]).encrypt(derived[32:], plaintext, bound)
    sender = own.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {
        "alg": ALGORITHM,
        "v": VERSION,
        "eph_pub": base64.b64encode(sender).decode(),
        "ciphertext": base64.b64encode(sealed).decode(),
    }
