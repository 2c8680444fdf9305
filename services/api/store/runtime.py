"""`noetl.runtime`: worker pools and their heartbeats, by the database's clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.api.store.queries import queries

if TYPE_CHECKING:
    from services.api.store.database import Database, Row

WORKER_POOL = "worker_pool"

_SQL = queries("runtime")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPool:
    """A worker pool that announces itself."""

    runtime_id: int
    kind: str = WORKER_POOL
    name: str
    uri: str | None
    status: str
    labels: Mapping[str, Any] | None
    capacity: int | None
    runtime: Mapping[str, Any]


async def register(database: Database, pool: NewPool) -> int:
    """Insert or overwrite by name and return the row's id."""
    return int(
        await database.fetchval(
            _SQL["register"],
            pool.runtime_id,
            pool.kind,
            pool.name,
            pool.uri,
            pool.status,
            pool.labels,
            pool.capacity,
            pool.runtime,
        )
    )


async def heartbeat(database: Database, name: str, *, kind: str = WORKER_POOL) -> Row | None:
    """Mark a pool as alive and ready; return `runtime_id` and `runtime`, None when it is unknown."""
    return await database.fetchrow(_SQL["heartbeat"], kind, name)


async def deregister(database: Database, name: str) -> Row | None:
    """Mark a pool as offline; return `runtime_id` and `runtime`, None when it is unknown."""
    return await database.fetchrow(_SQL["deregister"], WORKER_POOL, name)


async def list_pools(
    database: Database,
    *,
    runtime: str | None,
    status: str | None,
    offline_after_seconds: float,
    limit: int,
    offset: int,
) -> list[Row]:
    """Return up to `limit` pools by name."""
    return await database.fetch(_SQL["list"], WORKER_POOL, runtime, status, offline_after_seconds, limit, offset)


async def ping(database: Database) -> None:
    """Ask Postgres anything; raises what the driver raises."""
    await database.fetchval(_SQL["ping"])


async def public_key(database: Database, name: str) -> Row | None:
    """Return the row with a worker's `public_key`, None when no worker of this name has registered."""
    return await database.fetchrow(_SQL["public_key"], WORKER_POOL, name)
