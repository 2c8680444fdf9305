"""`noetl.catalog`: versions of documents by path. An entry never changes once it is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

from services.api.store.queries import queries
from shared.wire.types import parse_id

if TYPE_CHECKING:
    from services.api.store.database import Database, Row

VERSION_MAX = 32_767  # versions are SMALLINT

_SQL = queries("catalog")


class EntryInUseError(Exception):
    """The entry is part of a history and stays; the text is the table that refers to it."""


class VersionsExhaustedError(Exception):
    """The path has as many versions as the column can count; register under another path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEntry:
    """A document to register; the store gives it its version."""

    catalog_id: int
    path: str
    kind: str
    content: str
    payload: Mapping[str, Any]
    meta: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryFilter:
    """What a list shows; None and empty mean everything."""

    kind: str | None = None
    path: str | None = None
    agents_only: bool = False
    capabilities: Sequence[str] = ()


async def register(database: Database, entry: NewEntry) -> int:
    """Store `entry` as the next version of its path and return that version (1-based).

    Raises:
        VersionsExhaustedError: the path has `VERSION_MAX` versions.
    """
    async with database.transaction() as connection:
        await connection.execute(_SQL["lock_path"], entry.path)
        await connection.execute(_SQL["add_kind"], entry.kind)
        last = await connection.fetchval(_SQL["last_version"], entry.path) or 0
        if last >= VERSION_MAX:
            raise VersionsExhaustedError(entry.path)
        await connection.execute(
            _SQL["insert_entry"],
            entry.catalog_id,
            entry.path,
            last + 1,
            entry.kind,
            entry.content,
            entry.payload,
            entry.meta,
        )
        return int(last) + 1


async def list_entries(database: Database, chosen: EntryFilter, *, limit: int, offset: int) -> list[Row]:
    """Return up to `limit` entries, newest first."""
    return await database.fetch(
        _SQL["list_entries"],
        chosen.kind,
        chosen.path,
        chosen.agents_only,
        list(chosen.capabilities),
        limit,
        offset,
    )


async def entry_by_id(database: Database, catalog_id: int) -> Row | None:
    """Return one entry."""
    return await database.fetchrow(_SQL["entry_by_id"], catalog_id)


async def entry_by_path(database: Database, path: str, version: int | None) -> Row | None:
    """Return a version of `path`, or the newest."""
    return await database.fetchrow(_SQL["entry_by_path"], path, version)


async def entry(database: Database, *, catalog_id: int | None, path: str | None, version: int | None) -> Row | None:
    """Return the entry with that id, else a version of `path`, or the newest."""
    if catalog_id is not None:
        return await entry_by_id(database, catalog_id)
    return await entry_by_path(database, path or "", version)


async def newest_of(database: Database, reference: str) -> Row | None:
    """Return what `reference` names: the newest version of a path, or the entry with that id when it is digits."""
    row = await entry_by_path(database, reference, None)
    number = parse_id(reference) if row is None else None
    return row if number is None else await entry_by_id(database, number)


async def delete(database: Database, reference: str) -> list[Row]:
    """Delete every version of a path, or the entry with that id; return what is gone.

    Raises:
        EntryInUseError: executions or secrets refer to one of them; nothing is deleted.
    """
    try:
        rows = await database.fetch(_SQL["delete_by_path"], reference)
        number = None if rows else parse_id(reference)
        return rows if number is None else await database.fetch(_SQL["delete_by_id"], number)
    except asyncpg.ForeignKeyViolationError as error:
        raise EntryInUseError(error.table_name or "executions") from error
