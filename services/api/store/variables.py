"""`noetl.transient`: variables of executions. Values are JSON; JSON null is a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from services.api.store.database import encode_json
from services.api.store.queries import queries

if TYPE_CHECKING:
    from services.api.store.database import Database, Row

_SQL = queries("transient")


async def save(
    database: Database, execution_id: int, values: Mapping[str, Any], *, var_type: str, source_step: str | None
) -> None:
    """Set every variable of `values` in one statement."""
    texts = [encode_json(value) for value in values.values()]
    await database.fetchval(_SQL["upsert"], execution_id, list(values), texts, var_type, source_step)


async def list_variables(database: Database, execution_id: int, *, limit: int) -> list[Row]:
    """Return up to `limit` variables, oldest first; `var_value` is JSON text."""
    return await database.fetch(_SQL["list"], execution_id, limit)


async def read(database: Database, execution_id: int, name: str) -> Row | None:
    """Return one variable and count the access."""
    return await database.fetchrow(_SQL["read"], execution_id, name)


async def delete(database: Database, execution_id: int, name: str) -> bool:
    """Delete one variable; return whether it existed."""
    return await database.fetchval(_SQL["delete"], execution_id, name) is not None


async def delete_all(database: Database, execution_id: int) -> int:
    """Delete every variable of an execution and return how many there were."""
    return int(await database.fetchval(_SQL["delete_all"], execution_id))
