"""API tokens: their text, and the book of active ones that every replica keeps in memory.

A token is `ph_<token id>_<secret>`. The secret has 256 bits, so a plain SHA-256 of it is enough to store: there is nothing to
guess. Looking up is a dictionary access; the database is read every few seconds and once for an id that is not known yet.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.api.auth.actor import Actor
from services.api.auth.roles import Role
from services.api.store import tokens as store

if TYPE_CHECKING:
    from services.api.store.database import Database, Row

PREFIX = "ph"
ID_BYTES = 8
SECRET_BYTES = 32
TEXT_CHARS_MAX = 200  # longer text is no token of ours
UNKNOWN_REFRESH_SECONDS = 1.0  # ids that are not known make the book be read again at most so often


@dataclass(frozen=True, slots=True)
class MintedToken:
    """A new token: `text` is for its holder, the rest is stored."""

    token_id: str
    text: str
    secret_sha256: bytes


def mint() -> MintedToken:
    """Return a new token."""
    token_id, secret = secrets.token_hex(ID_BYTES), secrets.token_urlsafe(SECRET_BYTES)
    return MintedToken(token_id, f"{PREFIX}_{token_id}_{secret}", hashlib.sha256(secret.encode()).digest())


def split(text: str) -> tuple[str, str] | None:
    """Return id and secret of a token's text, None when it is not one of ours."""
    parts = text.split("_", 2) if len(text) <= TEXT_CHARS_MAX else []
    return (parts[1], parts[2]) if len(parts) == 3 and parts[0] == PREFIX else None


@dataclass(frozen=True, slots=True)
class _Entry:
    secret_sha256: bytes
    expires_unix: float | None
    actor: Actor


class TokenBook:
    """The active tokens, by id."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._entries: dict[str, _Entry] = {}
        self._used: dict[str, float] = {}
        self._read_at = -UNKNOWN_REFRESH_SECONDS
        self._reading = asyncio.Lock()

    async def refresh(self, *, older_than_seconds: float = 0.0) -> None:
        """Read the active tokens again, unless that happened `older_than_seconds` ago or later.

        Raises:
            OSError, asyncpg.PostgresError: the database cannot be used; what was known stays.
        """
        async with self._reading:
            if time.monotonic() - self._read_at < older_than_seconds:
                return
            rows = await store.active(self._database)
            self._entries = {row["token_id"]: _entry(row) for row in rows}
            self._read_at = time.monotonic()

    async def find(self, text: str) -> Actor | None:
        """Return who holds the token `text`, None when it is unknown, revoked or expired."""
        parts = split(text)
        if parts is None:
            return None
        token_id, secret = parts
        entry = self._entries.get(token_id)
        if entry is None:  # perhaps made by another replica a moment ago
            await self.refresh(older_than_seconds=UNKNOWN_REFRESH_SECONDS)
            entry = self._entries.get(token_id)
        if entry is None or not hmac.compare_digest(hashlib.sha256(secret.encode()).digest(), entry.secret_sha256):
            return None
        now = time.time()
        if entry.expires_unix is not None and now >= entry.expires_unix:
            return None
        self._used[token_id] = now
        return entry.actor

    async def flush_used(self) -> None:
        """Write down when tokens were last used."""
        used, self._used = self._used, {}
        if used:
            await store.mark_used(self._database, used)


def _entry(row: Row) -> _Entry:
    actor = Actor(kind="token", name=row["name"], roles=frozenset({Role(row["role"])}), token_id=row["token_id"])
    return _Entry(bytes(row["secret_sha256"]), row["expires_unix"], actor)
