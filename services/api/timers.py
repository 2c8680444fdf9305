"""Durable timers: fire those that are due.

The rows are the truth. This process remembers only when to look next: after each commit that set a timer, and after each
look. What nobody remembers (a crash) the reconciler's pass finds.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import asyncpg

from services.api.http import HttpError
from services.api.metrics import TIMERS_FIRED
from services.api.store.lifecycle import DueTimer, FireTimer
from services.api.store.queries import queries
from services.api.store.stream_writer import Committed
from shared.platform.tracing import span

if TYPE_CHECKING:
    from services.api.context import ApiContext

log = logging.getLogger(__name__)

_SQL = queries("reconcile")
FIRE_MAX = 500  # timers of one look
WAIT_MIN_SECONDS = 0.005  # between two looks, also when the clocks of this machine and the database differ
WAIT_MAX_SECONDS = 3600.0  # one sleep; a later timer is looked up again


async def fire_due(context: ApiContext, *, limit: int) -> int:
    """Append `timer.fired` for timers that are due by the database's clock; return how many."""
    rows = await context.database.fetch(_SQL["due_timers"], limit)
    if not rows:
        return 0
    timers = [DueTimer(**dict(row)) for row in rows]
    done: list[DueTimer] = []
    with span("fire timers", timers=len(timers)):
        for timer in timers:
            try:
                await context.writer.submit(FireTimer(timer))
            except HttpError as error:
                log.warning("timer not fired", extra={"execution_id": timer.execution_id, "status": error.status})
                continue
            done.append(timer)
        if done:
            ids = [timer.execution_id for timer in done], [timer.timer_id for timer in done]
            await context.database.fetch(_SQL["mark_timers_fired"], *ids)
    TIMERS_FIRED.inc(len(done))
    return len(done)


class TimerClock:
    """Looks for due timers when one is due."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._next: datetime | None = None
        self._wake = asyncio.Event()

    def committed(self, change: Committed) -> None:
        """Note the earliest timer that a commit has set."""
        due = change.next_timer
        if due is not None and (self._next is None or due < self._next):
            self._next = due
            self._wake.set()

    def wake(self) -> None:
        """Make `run` look at its stop event."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Fire timers until `stop`."""
        while not stop.is_set():
            if self._next is None or (wait := (self._next - datetime.now(UTC)).total_seconds()) > 0:
                await self._sleep(WAIT_MAX_SECONDS if self._next is None else min(wait, WAIT_MAX_SECONDS))
                continue
            self._next = None
            try:
                await fire_due(self._context, limit=FIRE_MAX)
                later = await self._context.database.fetchval(_SQL["next_timer"])
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                log.warning("timers left to the reconciler", extra={"error": type(error).__name__})
                continue
            if later is not None and (self._next is None or later < self._next):
                self._next = later
            await asyncio.sleep(WAIT_MIN_SECONDS)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, WAIT_MIN_SECONDS)):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()
