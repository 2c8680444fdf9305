"""Secrets kept out of what leaves the worker: the texts that are secret, and their replacement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from services.worker.limits import RENDER_DEPTH_MAX, SECRET_REDACT_MIN_CHARS

REDACTED = "[REDACTED]"
# Members of a credential that say where, not who: they are in answers and errors for good reason.
_OPEN_KEYS = frozenset(
    {"host", "port", "db_host", "db_port", "user", "username", "db_user", "database", "dbname", "db_name", "schema"}
    | {"sslmode", "type", "name", "service", "provider", "kind", "region", "role", "warehouse", "account", "method"}
    | {"header", "header_name", "scope", "scopes", "grant_type", "audience", "token_type", "bucket", "description"}
    | {"endpoint", "token_url", "nats_user", "token_uri", "auth_uri", "project_id", "namespace", "expires_in"}
)


def texts(value: object, depth: int = 0) -> Iterator[str]:
    """Yield every text in plain data, keys left out."""
    if isinstance(value, str):
        yield value
    elif depth < RENDER_DEPTH_MAX and isinstance(value, Mapping):
        for member in value.values():
            yield from texts(member, depth + 1)
    elif depth < RENDER_DEPTH_MAX and isinstance(value, list):
        for member in value:
            yield from texts(member, depth + 1)


def secret_texts(fields: Mapping[str, Any]) -> set[str]:
    """Return the texts of a credential that must not be shown; short ones would blank out ordinary words."""
    closed = [value for key, value in fields.items() if str(key).lower() not in _OPEN_KEYS]
    return {text for text in texts(closed) if len(text) >= SECRET_REDACT_MIN_CHARS}


def longest_first(secrets: Iterable[str]) -> list[str]:
    """Return secrets in the order in which they are replaced: one that contains another goes first, short ones never."""
    return sorted({text for text in secrets if len(text) >= SECRET_REDACT_MIN_CHARS}, key=len, reverse=True)


def redacted(value: Any, secrets: list[str], depth: int = 0) -> Any:
    """Return plain data with every occurrence of a secret replaced; secrets of an entry never reach the log."""
    if not secrets or depth >= RENDER_DEPTH_MAX:
        return value
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, REDACTED)
        return value
    if isinstance(value, dict):
        return {key: redacted(member, secrets, depth + 1) for key, member in value.items()}
    if isinstance(value, list):
        return [redacted(member, secrets, depth + 1) for member in value]
    return value
