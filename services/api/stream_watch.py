"""Finds what a lost wake-up hid from the readers of event streams: one statement for all of them, and rarely."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import asyncpg

from services.api.store.queries import queries

if TYPE_CHECKING:
    from services.api.context import ApiContext

log = logging.getLogger(__name__)

SECONDS = 60.0  # between two looks while NATS works: core NATS drops messages only to a client that is too slow
SECONDS_WITHOUT_NATS = 2.0  # other replicas cannot wake anybody then
_IDS_PER_STATEMENT = 1000

_SQL = queries("execution")


async def watch(context: ApiContext, stop: asyncio.Event) -> None:
    """Look now and then, and at once after NATS came back, until `stop`."""
    bus = context.bus
    while not stop.is_set():
        try:
            async with asyncio.timeout(SECONDS if bus.is_connected else SECONDS_WITHOUT_NATS):
                await bus.gap.wait()
        except TimeoutError:
            pass
        bus.gap.clear()
        try:
            await look(context)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            log.warning("streams not checked", extra={"error": type(error).__name__})


async def look(context: ApiContext) -> None:
    """Wake the readers of every execution whose log is longer than what they have; no statement when nobody reads."""
    followed = context.bus.followed()
    ids = list(followed)
    for start in range(0, len(ids), _IDS_PER_STATEMENT):
        rows = await context.database.fetch(_SQL["watermarks"], ids[start : start + _IDS_PER_STATEMENT])
        for row in rows:
            if row["stream_version"] > followed[row["execution_id"]]:
                context.bus.wake(row["execution_id"])
