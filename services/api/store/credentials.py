"""`noetl.credential`: named secrets, their data encrypted before it reaches a statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.api.store.queries import queries
from shared.wire.types import parse_id

if TYPE_CHECKING:
    from services.api.store.database import Database, Row

TABLE = "credential"  # bound into what is encrypted, together with the name

_SQL = queries("credential")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCredential:
    """A credential to store; `data_encrypted` is sealed for its name."""

    credential_id: int
    name: str
    type: str
    data_encrypted: str
    meta: Mapping[str, Any] | None
    tags: Sequence[str] | None
    description: str | None


async def save(database: Database, credential: NewCredential) -> Row:
    """Insert or replace by name and return the row without its data."""
    row = await database.fetchrow(
        _SQL["upsert"],
        credential.credential_id,
        credential.name,
        credential.type,
        credential.data_encrypted,
        credential.meta,
        None if credential.tags is None else list(credential.tags),
        credential.description,
    )
    assert row is not None
    return row


async def list_credentials(
    database: Database, *, type_name: str | None, text: str | None, limit: int, offset: int
) -> list[Row]:
    """Return up to `limit` credentials by name, without data."""
    return await database.fetch(_SQL["list"], type_name, text, limit, offset)


async def find(database: Database, identifier: str) -> Row | None:
    """Return the credential with this id (all digits) or name, its data still encrypted."""
    return await database.fetchrow(_SQL["find"], parse_id(identifier), identifier)


async def delete(database: Database, identifier: str) -> Row | None:
    """Delete the credential and return its id and name; None when there is none."""
    row = await find(database, identifier)
    return None if row is None else await database.fetchrow(_SQL["delete"], row["id"])
