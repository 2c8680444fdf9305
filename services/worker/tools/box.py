"""What tools share, opened for the life of a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp

from services.worker.api import WorkerApi
from services.worker.limits import HTTP_CONNECTIONS_MAX
from services.worker.python_pool import PythonPool
from services.worker.tools.base import ToolBox
from services.worker.tools.concurrency import ToolLimits, parse_limits
from services.worker.tools.credentials import Credentials
from services.worker.tools.oauth import Tokens
from services.worker.tools.postgres import PostgresPools
from shared.messaging.user_nats import UserNats
from shared.platform.settings import WorkerSettings


@asynccontextmanager
async def open_toolbox(
    settings: WorkerSettings, api: WorkerApi, *, python: PythonPool | None = None
) -> AsyncIterator[ToolBox]:
    """Open sessions, children and pools, and close them all at the end; `python` is open already and stays so.

    Raises:
        ValueError: `NOETL_WORKER_TOOL_LIMITS` cannot be read.
    """
    limits = ToolLimits(parse_limits(settings.noetl_worker_tool_limits))
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=HTTP_CONNECTIONS_MAX)
        session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        if python is None:
            pool = PythonPool(
                processes=settings.noetl_worker_python_processes,
                memory_bytes=settings.noetl_worker_python_memory_bytes,
                result_max_bytes=settings.noetl_worker_result_max_bytes,
            )
            python = await stack.enter_async_context(pool)
        pools = PostgresPools(connections_max=settings.noetl_worker_postgres_connections)
        await stack.enter_async_context(session)
        yield ToolBox(
            session=session,
            python=python,
            result_max_bytes=settings.noetl_worker_result_max_bytes,
            settings=settings,
            api=api,
            credentials=Credentials(api),
            postgres=await stack.enter_async_context(pools),
            limits=limits,
            tokens=Tokens(session),
            nats=await stack.enter_async_context(UserNats()),
        )
