"""What read answers hide: values under names of secrets, and text that is a secret by its form. Pure.

Only what is shown passes through here; the log keeps the data, because a hidden `next_page_token` in the data itself
breaks playbooks (storage_messaging.md, lesson 56).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

REDACTED = "[REDACTED]"
DEPTH_MAX = 200  # levels; deeper values are hidden rather than shown unchecked
_FORM_CHECK_CHARS_MAX = 1_000_000  # text beyond is data, and its answer should not wait for four more scans

# The last word or two of a key, split at `_`, `-`, space and camel case. Plurals are counts (`max_tokens`).
_SECRET_WORDS = frozenset(
    {"password", "passwd", "pwd", "passphrase", "secret", "token", "apikey", "authorization", "cookie"}
)
_SECRET_PAIRS = frozenset(
    {
        ("api", "key"),
        ("private", "key"),
        ("access", "key"),
        ("secret", "key"),
        ("encryption", "key"),
        ("signing", "key"),
        ("service", "account"),
        ("set", "cookie"),
        ("connection", "string"),
    }
)
_HARMLESS_PAIRS = frozenset({("page", "token"), ("continuation", "token"), ("sync", "token"), ("next", "token")})
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

# Linear by construction: each has a fixed prefix and bounded repeats.
_URL_PASSWORD = re.compile(r"(://[^/\s:@]{0,256}:)[^/\s@]{1,256}(?=@)")
_BEARER = re.compile(r"(?i)\b(bearer\s{1,4})[A-Za-z0-9._~+/=-]{8,4096}")
_JWT = re.compile(r"\beyJ[A-Za-z0-9_-]{10,4096}\.[A-Za-z0-9_-]{10,8192}\.[A-Za-z0-9_-]{5,1024}")
_PROVIDER_TOKEN = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{20,200}|gh[pousr]_[A-Za-z0-9]{30,255}|AKIA[0-9A-Z]{16}|xox[abprs]-[A-Za-z0-9-]{10,250})"
)


def is_secret_name(name: str) -> bool:
    """Whether a value under `name` is hidden."""
    words = [word.lower() for word in _WORDS.findall(name[:256])]
    if not words:
        return False
    pair = tuple(words[-2:])
    return pair not in _HARMLESS_PAIRS and (words[-1] in _SECRET_WORDS or pair in _SECRET_PAIRS)


def redact_text(text: str) -> str:
    """Return `text` without passwords in URLs, bearer tokens, JWTs, provider keys and private keys."""
    if len(text) > _FORM_CHECK_CHARS_MAX:
        return text
    if "-----BEGIN " in text and "PRIVATE KEY-----" in text:
        return REDACTED
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1{REDACTED}", text)
    text = _BEARER.sub(rf"\1{REDACTED}", text)
    if "eyJ" in text:
        text = _JWT.sub(REDACTED, text)
    return _PROVIDER_TOKEN.sub(REDACTED, text)


def _is_reference(value: Mapping[Any, Any]) -> bool:
    """Whether `value` only names a secret: the worker resolves it, and a person needs to see which."""
    reference = value.get("$noetl_ref")
    return len(value) == 1 and isinstance(reference, Mapping) and reference.get("kind") == "keychain"


def _hidden(value: object) -> object:
    if isinstance(value, bool | None):
        return value
    if isinstance(value, int | float):
        return value  # `token: 5` is a count; secrets that are numbers are sent as text
    if isinstance(value, str):
        return value if not value or ("{{" in value and "}}" in value) else REDACTED
    if isinstance(value, Mapping) and _is_reference(value):
        return dict(value)
    return REDACTED


def redact(value: Any, depth: int = 0) -> Any:
    """Return a copy of the JSON `value` that can be shown; `depth` is how deep it already lies."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        if depth >= DEPTH_MAX:
            return REDACTED
        return {
            key: _hidden(item) if isinstance(key, str) and is_secret_name(key) else redact(item, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return REDACTED if depth >= DEPTH_MAX else [redact(item, depth + 1) for item in value]
    return value
