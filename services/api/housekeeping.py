"""What every API process does beside answering: reads the token book again, stores the audit trail, clears what is over.

Each task is bounded and safe to run on every replica at once. A database that is away is tried again at the next turn.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import asyncpg

from services.api.audit import COUNT_SECONDS
from services.api.store import audit, keychain, tokens
from shared.platform.lifecycle import pause

if TYPE_CHECKING:
    from services.api.context import ApiContext

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.5  # of the audit trail: what a crash may lose
PURGE_SECONDS = 60.0
KEYS_SECONDS = 60.0  # the keys of stored secrets are looked at, and some values encrypted anew
PURGE_ROWS = 1_000  # of each table and turn
DAY_SECONDS = 86_400.0

Task = Callable[[], Awaitable[None]]


async def _every(stop: asyncio.Event, seconds: float, name: str, task: Task) -> None:
    """Run `task` every `seconds` until `stop`."""
    while not stop.is_set():
        await pause(stop, seconds)
        await _once(name, task)


async def _once(name: str, task: Task) -> None:
    try:
        await task()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        log.warning("housekeeping waits", extra={"task": name, "error": type(error).__name__})
    except Exception:
        log.exception("housekeeping failed", extra={"task": name})


async def _purge(context: ApiContext) -> None:
    kept = context.settings.noetl_audit_retention_days * DAY_SECONDS
    await audit.purge(context.database, older_than_seconds=kept, limit=PURGE_ROWS)
    await tokens.purge(context.database, older_than_seconds=kept, limit=PURGE_ROWS)
    await keychain.purge_expired(context.database, limit=PURGE_ROWS)


async def housekeeping(context: ApiContext, stop: asyncio.Event) -> None:
    """Run every task until `stop`, then store what is left of the audit trail."""
    trail, book = context.access.audit, context.access.book
    counts_at = time.monotonic() + COUNT_SECONDS

    async def flush() -> None:
        nonlocal counts_at
        due = time.monotonic() >= counts_at
        counts_at += COUNT_SECONDS if due else 0.0
        await trail.flush(counts=due)

    async def read_book() -> None:
        await book.refresh()
        await book.flush_used()

    async def purge() -> None:
        await _purge(context)

    async with asyncio.TaskGroup() as group:
        group.create_task(_every(stop, FLUSH_SECONDS, "audit", flush))
        group.create_task(_every(stop, context.settings.noetl_auth_refresh_seconds, "tokens", read_book))
        group.create_task(_every(stop, PURGE_SECONDS, "purge", purge))
        group.create_task(_every(stop, KEYS_SECONDS, "keys", context.wallet.look))
    await _once("audit", lambda: trail.flush(counts=True))
    await _once("tokens", book.flush_used)
