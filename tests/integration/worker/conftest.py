"""Tools as the worker has them, with a loopback API and real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
import pytest_asyncio
from aiohttp import web

from services.worker.api import open_worker_api
from services.worker.python_pool import PythonPool
from services.worker.tools import ToolBox, ToolCall, run_tool
from services.worker.tools.box import open_toolbox
from shared.platform.settings import WorkerSettings

EXECUTION = 700
RESULT_MAX_BYTES = 500_000

Call = Callable[..., Awaitable[Any]]


@dataclass
class FakeApi:
    """The routes of the API that tools call, with what they answer; `asked` has what was asked."""

    url: str = ""
    credentials: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append((request.method, request.path, orjson.loads(await request.read() or b"null")))
        planned = self.answers.get(f"{request.method} {request.path}")
        if planned:
            status, body = planned.pop(0) if len(planned) > 1 else planned[0]
            return web.json_response(body, status=status)
        if request.path.startswith("/api/credentials/"):
            name = request.path.rsplit("/", 1)[1]
            if name in self.credentials:
                kind, data = self.credentials[name]
                return web.json_response({"id": "1", "name": name, "type": kind, "data": data, "tags": []})
        if request.path == "/api/result/resolve" and request.query["ref"] in self.results:
            return web.json_response(self.results[request.query["ref"]])
        return web.json_response({"detail": "not found"}, status=404)

    def times(self, method: str, path: str) -> int:
        return sum(asked[:2] == (method, path) for asked in self.asked)


@pytest_asyncio.fixture
async def api() -> AsyncIterator[FakeApi]:
    fake = FakeApi()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.url = "http://{}:{}".format(*runner.addresses[0][:2])
    yield fake
    await runner.cleanup()


@pytest.fixture
def settings() -> dict[str, Any]:
    """Settings of the worker that a test module changes by overriding this fixture."""
    return {}


@pytest_asyncio.fixture(scope="session")
async def python() -> AsyncIterator[PythonPool]:
    async with PythonPool(processes=1, memory_bytes=512 << 20, result_max_bytes=RESULT_MAX_BYTES) as pool:
        yield pool


@pytest_asyncio.fixture
async def box(api: FakeApi, settings: dict[str, Any], python: PythonPool, tmp_path: Any) -> AsyncIterator[ToolBox]:
    values = {
        "noetl_server_url": api.url,
        "noetl_worker_result_max_bytes": RESULT_MAX_BYTES,
        "noetl_worker_data_dir": str(tmp_path / "data"),
        "noetl_worker_files_dir": str(tmp_path),
        **settings,
    }
    made = WorkerSettings(**values)
    async with open_worker_api(made, "w1") as client, open_toolbox(made, client, python=python) as toolbox:
        yield toolbox


@pytest_asyncio.fixture
async def call(box: ToolBox) -> Call:
    async def run(
        kind: str,
        *,
        given: dict[str, Any] | None = None,
        context: dict[str, Any] | None = None,
        seconds: float = 20.0,
        **config: Any,
    ) -> Any:
        made = ToolCall(
            kind=kind,
            step="s",
            config=config,
            input=given or {},
            context={"execution_id": str(EXECUTION), **(context or {})},
            timeout_seconds=seconds,
        )
        return await run_tool(made, box)

    return run


def connection_fields(dsn: str) -> dict[str, Any]:
    """Return the members of a Postgres credential for a URL."""
    parts = urlsplit(dsn)
    return {
        "db_host": parts.hostname,
        "db_port": str(parts.port),
        "db_user": parts.username,
        "db_password": parts.password or "no-password-needed",
        "db_name": parts.path.lstrip("/"),
    }


@pytest.fixture
async def database(empty_database_dsn: str, api: FakeApi) -> str:
    """An empty database, which credential `pg` names."""
    api.credentials["pg"] = ("postgres", connection_fields(empty_database_dsn))
    return empty_database_dsn
