"""The connection pool: the only place that opens connections to Postgres.

Times and leases use the database's clock (`now()`), never this process's. JSONB columns are read and written as Python
values through orjson.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import urlsplit

import asyncpg
import orjson

from services.api.metrics import CONNECTION_LEASES
from shared.platform.errors import PlayheadError

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = PoolConnectionProxy[asyncpg.Record]

Row: TypeAlias = Mapping[str, Any]  # one result row by column name

# Every statement here is a lookup by an index. Without statistics (a fresh or just restored database) the planner would rather
# scan and hash all partitions, and planning for 16 to 40 partitions costs more than the lookup: so plan once, by index.
PLANNER = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}

COMMAND_TIMEOUT_SECONDS = 30.0  # a statement that takes longer is a fault; callers get 503 and try again
ACQUIRE_TIMEOUT_SECONDS = 5.0  # waiting longer for a connection means the pool is saturated
CONNECTION_IDLE_SECONDS = 300.0  # idle connections above the minimum are closed


def encode_json(value: object) -> str:
    """Return `value` as JSON text for a JSONB parameter. NUL characters, which JSONB refuses, become U+FFFD."""
    text = orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    return text.replace("\\u0000", "\\ufffd") if "\\u0000" in text else text


async def _prepare(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, encoder=encode_json, decoder=orjson.loads, schema="pg_catalog")


async def _keep(_connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Reset nothing on release: no code here sets session state, and the default reset costs a round trip."""


async def fetch_one(connection: Connection, sql: str, *arguments: Any) -> Row | None:
    """Run one statement inside a transaction and return its first row or None."""
    return cast("Row | None", await connection.fetchrow(sql, *arguments))


class DatabaseUnavailableError(PlayheadError):
    """Postgres cannot be used; the text names the place and the reason, never the password."""


class Database:
    """A pool with the settings every statement relies on."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], *, size_min: int, size_max: int) -> None:
        self._pool = pool
        self.size_min = size_min
        self.size_max = size_max
        self.waiting = 0

    @classmethod
    async def open(cls, dsn: str, *, size_min: int, size_max: int) -> Database:
        """Open `size_min`..`size_max` connections.

        Raises:
            DatabaseUnavailableError: Postgres cannot be reached, or refuses us.
        """
        try:
            pool = await cls._create_pool(dsn, size_min=size_min, size_max=size_max)
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            parts = urlsplit(dsn)
            place = f"{parts.hostname}:{parts.port or 5432}{parts.path}"
            raise DatabaseUnavailableError(
                f"Postgres at {place} cannot be used: {error or type(error).__name__}"
            ) from error
        return cls(pool, size_min=size_min, size_max=size_max)

    @staticmethod
    async def _create_pool(dsn: str, *, size_min: int, size_max: int) -> asyncpg.Pool[asyncpg.Record]:
        return await asyncpg.create_pool(
            dsn,
            min_size=min(size_min, size_max),
            max_size=size_max,
            command_timeout=COMMAND_TIMEOUT_SECONDS,
            max_inactive_connection_lifetime=CONNECTION_IDLE_SECONDS,
            init=_prepare,
            reset=_keep,
            server_settings={
                "application_name": "playhead-api",
                "search_path": "noetl,public",
                "timezone": "UTC",
                "idle_in_transaction_session_timeout": "30000",
                "jit": "off",
                **PLANNER,
            },
        )

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection.

        Raises:
            TimeoutError: none became free in time; the pool is saturated.
        """
        self.waiting += 1
        CONNECTION_LEASES.inc()
        try:
            connection = await self._pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS)
        finally:
            self.waiting -= 1
        try:
            yield connection
        finally:
            await self._pool.release(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection inside a READ COMMITTED transaction; an exception rolls back."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def fetch(self, sql: str, *arguments: Any) -> list[Row]:
        """Run one statement and return its rows."""
        async with self.connection() as connection:
            return cast("list[Row]", await connection.fetch(sql, *arguments))

    async def fetchrow(self, sql: str, *arguments: Any) -> Row | None:
        """Run one statement and return its first row or None."""
        async with self.connection() as connection:
            return cast("Row | None", await connection.fetchrow(sql, *arguments))

    async def fetchval(self, sql: str, *arguments: Any) -> Any:
        """Run one statement and return its first value."""
        async with self.connection() as connection:
            return await connection.fetchval(sql, *arguments)

    @property
    def size(self) -> int:
        """Connections open now."""
        return self._pool.get_size()

    @property
    def idle(self) -> int:
        """Connections open and free now."""
        return self._pool.get_idle_size()

    async def close(self) -> None:
        """Close every connection, waiting for those in use."""
        await self._pool.close()
