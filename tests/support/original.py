"""Stand-ins for the original: a server that answers from recordings, its writes, and an ingress before both servers."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import asyncpg
from aiohttp import web

from services.dev.parity.recordings import Answer, Recording
from services.dev.processes import free_port

APPLICATION = "noetl-server"  # what the original's connections call themselves
_HOP_HEADERS = {"content-length", "transfer-encoding", "date", "server", "connection", "content-encoding"}


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """Serve `app` on a free loopback port; yields its URL."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


class RecordedOriginal:
    """Answers a recorded request as the original did, and remembers what it was asked."""

    def __init__(self, recordings: Iterable[Recording], *, changed: Mapping[str, Answer] | None = None) -> None:
        """Take the recordings; `changed` replaces the answers of some, by name."""
        self.asked: list[str] = []
        self._answers = {
            _key(item.request.method, item.request.path, item.request.body, item.request.headers): (changed or {}).get(
                item.request.name, item.answer
            )
            for item in recordings
            if item.answer is not None
        }

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.path_qs}")
        answer = self._answers.get(_key(request.method, request.path_qs, await request.text(), request.headers))
        if answer is None:
            return web.json_response({"detail": "Not Found"}, status=404)
        headers = {key: value for key, value in answer.headers.items() if key not in _HOP_HEADERS}
        return web.Response(status=answer.status, body=answer.body, headers=headers)


def _key(method: str, path: str, body: str | None, headers: Mapping[str, str]) -> tuple[str, str, str, str]:
    return method, path, body or "", headers.get("Origin", "")


class Ingress:
    """Sends each request to the first backend whose route fits, as an ingress does; rules may change while it serves."""

    def __init__(self, session: aiohttp.ClientSession, *, default: str) -> None:
        self._session = session
        self._default = default
        self.rules: list[tuple[str, re.Pattern[str], str]] = []

    def send(self, method: str, path: str, backend: str) -> None:
        """Route `method` (`*` for any) and the regular expression `path` to `backend`, before what was there."""
        self.rules.insert(0, (method, re.compile(path), backend))

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        return app

    def backend(self, method: str, path: str) -> str:
        fits = (url for verb, pattern, url in self.rules if verb in ("*", method) and pattern.fullmatch(path))
        return next(fits, self._default)

    async def _pass_on(self, request: web.Request) -> web.Response:
        url = self.backend(request.method, request.path) + request.path_qs
        headers = {key: value for key, value in request.headers.items() if key.lower() not in {*_HOP_HEADERS, "host"}}
        body = await request.read()
        async with self._session.request(
            request.method, url, headers=headers, data=body or None, allow_redirects=False
        ) as response:
            kept = {key: value for key, value in response.headers.items() if key.lower() not in _HOP_HEADERS}
            return web.Response(status=response.status, body=await response.read(), headers=kept)


class OriginalDatabase:
    """Writes the rows that the original writes, on its own connection."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self.connection = connection

    async def value(self, sql: str, *arguments: Any) -> Any:
        """Return the first value of a statement."""
        return await self.connection.fetchval(sql, *arguments)

    async def rows(self, sql: str, *arguments: Any) -> Sequence[Mapping[str, Any]]:
        """Return the rows of a statement."""
        return list(await self.connection.fetch(sql, *arguments))

    async def start(self, path: str) -> tuple[int, int]:
        """Start an execution with one pending command; returns its id and the id of the `command.issued` event."""
        entry = await self.value("SELECT catalog_id FROM noetl.catalog WHERE path = $1 ORDER BY version DESC", path)
        execution = await self.value("SELECT noetl.snowflake_id()")
        await self.connection.execute(
            "INSERT INTO noetl.execution (execution_id, catalog_id, status, start_time, state)"
            " VALUES ($1, $2, 'RUNNING', now(), '{}')",
            execution,
            entry,
        )
        for event_type, node in (("playbook.initialized", path), ("workflow.initialized", "workflow")):
            await self.event(execution, event_type, node, "initialized")
        command = await self.value("SELECT noetl.snowflake_id()")
        issued = await self.event(execution, "command.issued", "start", "PENDING")
        await self.connection.execute(
            "INSERT INTO noetl.command (command_id, event_id, execution_id, catalog_id, step_name, tool_kind, status, context)"
            " VALUES ($1, $2, $3, $4, 'start', 'python', 'PENDING', '{}')",
            command,
            issued,
            execution,
            entry,
        )
        return int(execution), issued

    async def event(self, execution: int, event_type: str, node: str, status: str) -> int:
        """Append an event as the original does; returns its id."""
        return int(
            await self.value(
                "INSERT INTO noetl.event (execution_id, catalog_id, event_id, event_type, node_id, node_name, status, result)"
                " SELECT $1, catalog_id, noetl.snowflake_id(), $2, $3, $3, $4, jsonb_build_object('status', $4::varchar)"
                "   FROM noetl.execution WHERE execution_id = $1 RETURNING event_id",
                execution,
                event_type,
                node,
                status,
            )
        )


@asynccontextmanager
async def original_database(dsn: str) -> AsyncIterator[OriginalDatabase]:
    """A connection as the original has it."""
    connection = await asyncpg.connect(dsn, server_settings={"application_name": APPLICATION})
    try:
        yield OriginalDatabase(connection)
    finally:
        await connection.close()
