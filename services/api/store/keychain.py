"""`noetl.keychain`: tokens and copies of secrets per catalog entry, with an expiry, sealed for their cache key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from services.api.store.queries import queries

if TYPE_CHECKING:
    from services.api.store.database import Database, Row

TABLE = "keychain"  # bound into what is encrypted, together with the cache key
RENEW_TABLE = "keychain.renew_config"  # the same for the renewal settings, which hold client secrets

_SQL = queries("keychain")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKeychainEntry:
    """An entry to store; `expires_at` wins over `ttl_seconds`."""

    cache_key: str
    keychain_name: str
    catalog_id: int
    credential_type: str
    cache_type: str
    scope_type: str
    data_encrypted: str
    ttl_seconds: float
    expires_at: datetime | None
    execution_id: int | None
    parent_execution_id: int | None
    auto_renew: bool
    renew_config_encrypted: str | None


def cache_key(*, name: str, catalog_id: int, scope_type: str, execution_id: int | None) -> str:
    """Return the primary key of an entry in the original's form."""
    match scope_type:
        case "local":
            return f"{name}:{catalog_id}:{execution_id}"
        case "shared":
            return f"{name}:{catalog_id}:shared:{execution_id}"
        case _:
            return f"{name}:{catalog_id}:global"


async def save(database: Database, entry: NewKeychainEntry) -> Row | None:
    """Insert or replace; return `expires_at` and `ttl_seconds`, or None when the catalog entry does not exist."""
    return await database.fetchrow(
        _SQL["upsert"],
        entry.cache_key,
        entry.keychain_name,
        entry.catalog_id,
        entry.credential_type,
        entry.cache_type,
        entry.scope_type,
        entry.data_encrypted,
        entry.ttl_seconds,
        entry.expires_at,
        entry.execution_id,
        entry.parent_execution_id,
        entry.auto_renew,
        entry.renew_config_encrypted,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialCopy:
    """A credential to keep in the keychain for a while."""

    cache_key: str
    keychain_name: str
    catalog_id: int
    credential_type: str
    scope_type: str
    data_encrypted: str
    ttl_seconds: float
    execution_id: int | None
    updated_at: datetime


async def cache_credential(database: Database, copy: CredentialCopy) -> None:
    """Keep `copy` unless a good one or a token stands there; nothing happens for an unknown catalog entry."""
    await database.fetchval(
        _SQL["cache_credential"],
        copy.cache_key,
        copy.keychain_name,
        copy.catalog_id,
        copy.credential_type,
        copy.scope_type,
        copy.data_encrypted,
        copy.ttl_seconds,
        copy.execution_id,
        copy.updated_at,
    )


async def catalog_of_execution(database: Database, execution_id: int) -> int | None:
    """Return the catalog entry that an execution runs."""
    value = await database.fetchval(_SQL["catalog_of_execution"], execution_id)
    return None if value is None else int(value)


async def read(database: Database, key: str) -> Row | None:
    """Return the entry, expired or not, and count the access."""
    return await database.fetchrow(_SQL["read"], key)


async def delete(database: Database, key: str) -> None:
    """Delete the entry if it exists."""
    await database.fetchval(_SQL["delete"], key)


async def list_entries(database: Database, catalog_id: int, *, limit: int) -> list[Row]:
    """Return up to `limit` entries of a catalog entry, without data."""
    return await database.fetch(_SQL["list"], catalog_id, limit)


async def purge_expired(database: Database, *, limit: int) -> None:
    """Delete up to `limit` entries that expired and are not renewed."""
    await database.fetchval(_SQL["purge_expired"], limit)
