"""How many commands a worker has in flight, those that only wait left out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.worker.limits import SLEEPERS_MAX


class Slots:
    """Counts commands against a limit. A command that sleeps gives its place up and takes it back without waiting.

    So the limit may be exceeded for a while when sleepers wake up; no more commands are taken until it holds again.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._sleeping = 0
        self._changed = asyncio.Event()

    @property
    def free(self) -> int:
        """Return how many more commands may be taken now, 0 or more."""
        return max(self._limit - self._taken + min(self._sleeping, SLEEPERS_MAX), 0)

    def take(self) -> None:
        """Count one more command."""
        self._taken += 1

    def give_back(self) -> None:
        """Count one command less."""
        self._taken -= 1
        self._changed.set()

    @asynccontextmanager
    async def given_up(self) -> AsyncIterator[None]:
        """Do not count one command while the block runs."""
        self._sleeping += 1
        self._changed.set()
        try:
            yield
        finally:
            self._sleeping -= 1

    async def wait_free(self) -> int:
        """Return the number of free places as soon as there is one."""
        while self.free == 0:
            self._changed.clear()
            await self._changed.wait()
        return self.free
