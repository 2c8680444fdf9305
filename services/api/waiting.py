"""Wait for the end of an execution on behalf of a client that holds its connection open."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from services.api.bus import TooManyReadersError
from services.api.http import overloaded
from services.api.store.queries import queries

if TYPE_CHECKING:
    from services.api.context import ApiContext
    from services.api.store.database import Row

_SQL = queries("analysis")
STOP_SECONDS = 2.0  # until a waiter sees that the process is stopping, at most


async def wait_for_end(
    context: ApiContext, execution_id: int, *, timeout_seconds: float, poll_seconds: float
) -> Row | None:
    """Return the terminal event, None when there is none after `timeout_seconds`.

    A commit wakes the waiter; it also looks every `poll_seconds`, `STOP_SECONDS` at most, for wake-ups that were lost.

    Raises:
        HttpError: 503 when too many clients wait, or the process is stopping.
    """
    deadline = time.monotonic() + timeout_seconds
    try:
        async with context.bus.reading(execution_id) as woken:
            left = timeout_seconds
            while left > 0:
                woken.clear()
                row = await context.database.fetchrow(_SQL["terminal"], execution_id)
                if row is not None:
                    return row
                if context.stopping.is_set():
                    raise overloaded("stopping", f"this server is stopping; execution {execution_id} goes on")
                left = deadline - time.monotonic()
                await _woken(woken, min(poll_seconds, STOP_SECONDS, max(left, 0.0)))
    except TooManyReadersError:
        raise overloaded("too_many_streams", f"too many clients wait; execution {execution_id} goes on") from None
    return None


async def _woken(woken: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await woken.wait()
    except TimeoutError:
        return
