"""Tools as the worker has them: real child processes and a real HTTP session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest_asyncio

from services.worker.python_pool import PythonPool
from services.worker.tools import ToolBox, ToolCall, run_tool

RESULT_MAX_BYTES = 200_000
MEMORY_BYTES = 512 << 20

Call = Callable[..., Awaitable[Any]]


@pytest_asyncio.fixture(scope="session")
async def box() -> AsyncIterator[ToolBox]:
    pool = PythonPool(processes=2, memory_bytes=MEMORY_BYTES, result_max_bytes=RESULT_MAX_BYTES)
    async with pool, aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield ToolBox(session=session, python=pool, result_max_bytes=RESULT_MAX_BYTES)


@pytest_asyncio.fixture
async def call(box: ToolBox) -> Call:
    async def run(
        kind: str,
        *,
        given: dict[str, Any] | None = None,
        context: dict[str, Any] | None = None,
        seconds: float = 10.0,
        **config: Any,
    ) -> Any:
        call = ToolCall(
            kind=kind, step="s", config=config, input=given or {}, context=context or {}, timeout_seconds=seconds
        )
        return await run_tool(call, box)

    return run
