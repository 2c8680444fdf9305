"""Schema migrations: numbered `.sql` files, each applied once in its own transaction, their hashes recorded.

One session-level advisory lock on a connection of its own serialises replicas that start together. A migration that was
applied with other content stops the start: history is append-only.
"""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import asyncpg

from services.api.store.queries import queries
from shared.platform.errors import PlayheadError

if TYPE_CHECKING:
    from services.api.store.database import Database

log = logging.getLogger(__name__)

MIGRATION_LOCK = 0x706C617968656164  # 'playhead' as a bigint: the key of the advisory lock
CONNECT_TIMEOUT_SECONDS = 15.0
LOCK_TIMEOUT_MS = 10_000  # DDL waits at most so long behind readers, then the start is tried again
STATEMENT_TIMEOUT_SECONDS = 600.0  # an index on a large table of the original may take minutes
_FILE = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")

_SQL = queries("migration")


class MigrationError(PlayheadError):
    """The schema cannot be brought up to date; the message names the file and the fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One numbered file."""

    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Return the hash that is recorded when the file is applied."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """Return every migration of this release in order.

    Raises:
        MigrationError: a number stands twice.
    """
    found: list[Migration] = []
    for entry in resources.files("services.api.store").joinpath("migrations").iterdir():
        match = _FILE.match(entry.name)
        if match:
            found.append(Migration(number=int(match[1]), name=entry.name, sql=entry.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.number)
    if len({migration.number for migration in found}) != len(found):
        raise MigrationError("two migrations have the same number")
    return found


async def migrate(dsn: str) -> int:
    """Apply what is missing to the database at `dsn`; return how many files were applied.

    Raises:
        MigrationError: an applied file changed, or a statement failed.
        OSError: Postgres cannot be reached.
    """
    connection = await asyncpg.connect(
        dsn,
        timeout=CONNECT_TIMEOUT_SECONDS,
        command_timeout=STATEMENT_TIMEOUT_SECONDS,
        server_settings={"application_name": "playhead-migrate", "lock_timeout": str(LOCK_TIMEOUT_MS)},
    )
    try:
        await connection.execute(_SQL["lock_history"], MIGRATION_LOCK)
        await connection.execute(_SQL["create_schema"])
        await connection.execute(_SQL["create_history"])
        applied = {row["number"]: row["sha256"] for row in await connection.fetch(_SQL["applied"])}
        count = 0
        for migration in migrations():
            known = applied.get(migration.number)
            if known is None:
                await _apply(connection, migration)
                count += 1
            elif known != migration.sha256:
                raise MigrationError(f"{migration.name} was applied with other content; add a new migration instead")
        await connection.execute(_SQL["ensure_partitions"])
        return count
    finally:
        await connection.close()


async def require_current_schema(database: Database) -> None:
    """Return when the schema is this release's or newer.

    Raises:
        MigrationError: it is not; the text says what to do.
    """
    try:
        rows = await database.fetch(_SQL["applied"])
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        rows = []
    applied = {row["number"] for row in rows}
    missing = [migration.name for migration in migrations() if migration.number not in applied]
    if missing:
        raise MigrationError(f"the database lacks {', '.join(missing)}: run `playhead migrate` first")


async def _apply(connection: asyncpg.Connection[asyncpg.Record], migration: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(_SQL["record"], migration.number, migration.name, migration.sha256)
    except asyncpg.PostgresError as error:
        raise MigrationError(f"{migration.name}: {error}") from error
    log.info("migration applied", extra={"migration": migration.name})
