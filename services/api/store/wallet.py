"""Every stored secret, for the keys that protect them: what is under which key, and batches to encrypt anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from services.api.store.queries import queries

if TYPE_CHECKING:
    from services.api.store.database import Connection, Database, Row

ROWS_LOOKED_AT = 100_000  # of each table when keys are counted

_SQL = queries("wallet")


async def labels(database: Database) -> list[Row]:
    """Return kinds of stored values with their `number` and one example (`place`, `row_key`, `value`)."""
    return await database.fetch(_SQL["labels"], ROWS_LOOKED_AT)


async def credentials_to_rewrap(
    connection: Connection, *, current: str, forms: Sequence[str] | None, after: int, limit: int
) -> Sequence[Row]:
    """Lock and return credentials whose value does not begin with `current`."""
    return cast("Sequence[Row]", await connection.fetch(_SQL["credentials_to_rewrap"], current, forms, after, limit))


async def update_credentials(connection: Connection, values: dict[int, str]) -> None:
    """Store values by credential id."""
    await connection.execute(_SQL["update_credentials"], list(values), list(values.values()))


async def keychain_to_rewrap(
    connection: Connection, *, current: str, forms: Sequence[str] | None, after: str, limit: int
) -> Sequence[Row]:
    """Lock and return keychain entries of which a value does not begin with `current`."""
    return cast("Sequence[Row]", await connection.fetch(_SQL["keychain_to_rewrap"], current, forms, after, limit))


async def update_keychain(connection: Connection, values: dict[str, tuple[str, str | None]]) -> None:
    """Store values and renewal settings by cache key."""
    await connection.execute(
        _SQL["update_keychain"],
        list(values),
        [value for value, _ in values.values()],
        [renewal for _, renewal in values.values()],
    )
