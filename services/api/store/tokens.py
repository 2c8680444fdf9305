"""`noetl.api_token`: who may call the API. Only hashes are stored; the token itself is shown once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from services.api.store.queries import queries

if TYPE_CHECKING:
    from services.api.store.database import Database, Row

TOKENS_MAX = 10_000  # rows; all active ones are held in memory by every replica
PER_NAME_MAX = 2  # so that a new token can be handed out before the old one is revoked

_SQL = queries("token")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A token to store; `ttl_seconds` None: it does not expire."""

    token_id: str
    name: str
    role: str
    secret_sha256: bytes
    created_by: str
    ttl_seconds: float | None


async def create(database: Database, token: NewToken) -> Row | None:
    """Store a token; None when its name has `PER_NAME_MAX` active ones, or the table is full."""
    async with database.transaction() as connection:
        await connection.execute(_SQL["lock_name"], token.name)
        row = await connection.fetchrow(
            _SQL["create"],
            token.token_id,
            token.name,
            token.role,
            token.secret_sha256,
            token.created_by,
            token.ttl_seconds,
            PER_NAME_MAX,
            TOKENS_MAX,
        )
        return cast("Row | None", row)


async def list_tokens(database: Database, *, name: str | None, include_dead: bool, limit: int) -> list[Row]:
    """Return tokens without their hashes, newest first."""
    return await database.fetch(_SQL["list"], name, include_dead, limit)


async def active(database: Database) -> list[Row]:
    """Return every token that opens something, with its hash."""
    return await database.fetch(_SQL["active"], TOKENS_MAX)


async def revoke(database: Database, token_id: str) -> Row | None:
    """Revoke a token; None when there is none of this id."""
    return await database.fetchrow(_SQL["revoke"], token_id)


async def mark_used(database: Database, used: dict[str, float]) -> None:
    """Note when tokens were last used: unix seconds by token id."""
    await database.fetchval(_SQL["used"], list(used), list(used.values()))


async def purge(database: Database, *, older_than_seconds: float, limit: int) -> None:
    """Delete up to `limit` tokens that have been dead for so long."""
    await database.fetchval(_SQL["purge"], older_than_seconds, limit)
