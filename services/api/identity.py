"""New ids: the clock and the node number under `shared.wire.ids`.

The node number is leased: a session-level advisory lock on a connection of its own. Two API processes on one database
therefore never share a node, and a crashed one frees its number at once.
"""

from __future__ import annotations

import time

import asyncpg

from shared.wire.ids import NODE_MAX, SnowflakeGenerator, SnowflakeLayout

NODE_LOCK_CLASS = 0x504C4159  # 'PLAY': first key of the advisory lock, the second is the node number
SQL_LAYOUT_NODES = 32  # 5 node bits
SQL_LAYOUT_ORIGINAL = 1  # the node of the original's SQL function
CONNECT_TIMEOUT_SECONDS = 10.0


class IdSource:
    """Mints ids for this process."""

    def __init__(
        self, generator: SnowflakeGenerator, *, node_id: int, lease: asyncpg.Connection[asyncpg.Record] | None
    ) -> None:
        self._generator = generator
        self.node_id = node_id
        self._lease = lease

    def next(self) -> int:
        """Return a new id, larger than every id this process minted before."""
        return self._generator.next(unix_ms=time.time_ns() // 1_000_000)

    @property
    def held(self) -> bool:
        """Whether the node number is still ours; when not, the process must not mint and reports not ready."""
        return self._lease is None or not self._lease.is_closed()

    async def close(self) -> None:
        """Give the node number back."""
        if self._lease is not None and not self._lease.is_closed():
            await self._lease.close()


async def lease_ids(dsn: str, *, node_id: int, layout: SnowflakeLayout) -> IdSource:
    """Return an id source on `node_id`, or on the first free node when it is -1.

    Raises:
        RuntimeError: every node number is taken, or the one asked for is the original's.
    """
    if layout is SnowflakeLayout.SQL and node_id == SQL_LAYOUT_ORIGINAL:
        raise RuntimeError(
            "node 1 of the sql layout belongs to noetl.snowflake_id(); set NOETL_SNOWFLAKE_NODE_ID to 2..31"
        )
    if node_id >= 0:
        return IdSource(SnowflakeGenerator(node_id=node_id, layout=layout), node_id=node_id, lease=None)
    nodes = range(NODE_MAX + 1) if layout is SnowflakeLayout.APP else range(2, SQL_LAYOUT_NODES)
    connection = await asyncpg.connect(
        dsn, timeout=CONNECT_TIMEOUT_SECONDS, server_settings={"application_name": "playhead-node-lease"}
    )
    for node in nodes:
        if await connection.fetchval("SELECT pg_try_advisory_lock($1, $2)", NODE_LOCK_CLASS, node):
            return IdSource(SnowflakeGenerator(node_id=node, layout=layout), node_id=node, lease=connection)
    await connection.close()
    raise RuntimeError("every snowflake node number is leased; set NOETL_SNOWFLAKE_NODE_ID")
