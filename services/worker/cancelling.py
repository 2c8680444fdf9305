"""Finds out that an execution, or a command, was cancelled while its tool runs."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import dataclass, field
from typing import Protocol

from services.worker.limits import CANCEL_CHECK_SECONDS
from shared.platform.errors import ApiRefusedError, ApiUnavailableError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """What of an execution has been cancelled: the whole, or some commands of it (those that took too long)."""

    whole: bool = False
    commands: frozenset[int] = frozenset()

    def covers(self, command_id: int) -> bool:
        """Whether a command is among it."""
        return self.whole or command_id in self.commands


class KnowsCancelled(Protocol):
    """Who can be asked, as `services.worker.api.WorkerApi`."""

    async def cancelled(self, execution_id: int) -> Cancelled:
        """Return what was cancelled."""


@dataclass(slots=True)
class _Asked:
    """What is known of one execution, and how many of its commands want to know."""

    waiting: int = 0
    at: float = -math.inf
    cancelled: Cancelled = Cancelled()
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class CancelWatch:
    """Asks once per `interval_seconds` and execution, however many of its commands run here."""

    def __init__(self, api: KnowsCancelled, interval_seconds: float = CANCEL_CHECK_SECONDS) -> None:
        self._api = api
        self._interval = interval_seconds
        self._asked: dict[int, _Asked] = {}

    async def until_cancelled(self, execution_id: int, command_id: int) -> None:
        """Return as soon as the execution, or this command of it, is known to be cancelled; else never."""
        asked = self._asked.setdefault(execution_id, _Asked())
        asked.waiting += 1
        try:
            while not asked.cancelled.covers(command_id):
                await asyncio.sleep(self._interval)
                async with asked.asking:
                    if time.monotonic() - asked.at >= self._interval / 2:
                        asked.cancelled = await self._ask(execution_id)
                        asked.at = time.monotonic()
        finally:
            asked.waiting -= 1
            if not asked.waiting:
                self._asked.pop(execution_id, None)

    async def _ask(self, execution_id: int) -> Cancelled:
        try:
            return await self._api.cancelled(execution_id)
        except (ApiUnavailableError, ApiRefusedError) as error:
            log.info("cannot tell whether cancelled", extra={"execution_id": execution_id, "error": str(error)})
            return Cancelled()
