"""How many calls of a tool kind run at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.worker.tools.limits import TOOL_LIMIT_MAX


def parse_limits(text: str) -> dict[str, int]:
    """Return `duckdb=2,shell=4` as numbers by kind.

    Raises:
        ValueError: a part is no `kind=number` with a number from 1 to `TOOL_LIMIT_MAX`.
    """
    limits: dict[str, int] = {}
    for item in (item.strip() for item in text.split(",")):
        if not item:
            continue
        kind, _, number = (word.strip() for word in item.partition("="))
        if not kind or not number.isascii() or not number.isdigit() or not 1 <= int(number[:5]) <= TOOL_LIMIT_MAX:
            raise ValueError(f"'{item}' is not like duckdb=2, with a number from 1 to {TOOL_LIMIT_MAX}")
        limits[kind.lower()] = int(number)
    return limits


class ToolLimits:
    """One gate per limited kind; the other kinds are bounded by the worker's commands at once only."""

    def __init__(self, limits: dict[str, int]) -> None:
        self._gates = {kind: asyncio.Semaphore(number) for kind, number in limits.items()}

    @asynccontextmanager
    async def slot(self, kind: str) -> AsyncIterator[None]:
        """Wait for a free place of `kind`; that wait is no part of the tool's time limit."""
        gate = self._gates.get(kind)
        if gate is None:
            yield
            return
        async with gate:
            yield
