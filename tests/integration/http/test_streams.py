"""Event streams: many idle ones cost nothing, a lost wake-up is found, slow readers and too many of them are told so."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Iterable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import pytest
from prometheus_client import REGISTRY

from services.api import sse
from services.api.routes import stream as stream_route
from tests.e2e.playbooks import LINEAR
from tests.support.api import RunningApi, running_api
from tests.support.nats import NatsServer

IDLE_STREAMS = 1000
EXECUTIONS = 5
OWN_STATEMENTS_MAX = 40  # of the API's housekeeping while the test looks; a statement per stream would be a thousand


class Stream:
    """A raw connection that follows an execution, so that the test decides when to read."""

    def __init__(self, api: RunningApi, execution: int, *, query: str = "", headers: str = "", buffer: int = 0) -> None:
        self._path = f"/api/executions/{execution}/events/stream{query}"
        self._url = urlsplit(api.url)
        self._headers = headers
        self._buffer = buffer

    async def __aenter__(self) -> Self:
        plain = socket.socket()
        if self._buffer:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer)
        plain.setblocking(False)
        assert self._url.hostname is not None
        await asyncio.get_running_loop().sock_connect(plain, (self._url.hostname, self._url.port))
        self._reader, self._writer = await asyncio.open_connection(sock=plain, limit=self._buffer or 2**16)
        self._writer.write(f"GET {self._path} HTTP/1.1\r\nHost: {self._url.netloc}\r\n{self._headers}\r\n".encode())
        await self._writer.drain()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    async def until(self, mark: bytes) -> bytes:
        """Read up to `mark`."""
        return await self._reader.readuntil(mark)

    async def rest(self) -> bytes:
        """Read until the server closes."""
        return await self._reader.read()


def figure(name: str, **labels: str) -> float:
    """Return a metric of this process, where the API runs, too."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def together(steps: Iterable[Coroutine[None, None, object]]) -> None:
    """Run all `steps` at once."""
    async with asyncio.TaskGroup() as group:
        for step in steps:
            group.create_task(step)


async def note(api: RunningApi, execution: int, text: str = "") -> None:
    body = {"execution_id": execution, "step": "s", "name": "note", "payload": {"result": {"context": {"text": text}}}}
    status, answer = await api.request("POST", "/api/events", body)
    assert status == 200, answer


async def test_a_thousand_idle_streams_cost_the_database_nothing(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_route, "HEARTBEAT_SECONDS", 1.5)
    executions = [await api.start(LINEAR) for _ in range(EXECUTIONS)]
    streams = [Stream(api, executions[number % EXECUTIONS]) for number in range(IDLE_STREAMS)]
    for start in range(0, IDLE_STREAMS, 50):
        await together(stream.__aenter__() for stream in streams[start : start + 50])
    try:
        await together(stream.until(b": keep-alive") for stream in streams)
        before = figure("noetl_postgres_leases_total")
        await together(stream.until(b": keep-alive") for stream in streams)
        assert figure("noetl_postgres_leases_total") - before < OWN_STATEMENTS_MAX
        await note(api, executions[0])
        await together(stream.until(b"event: note") for stream in streams[::EXECUTIONS])
    finally:
        for stream in streams:
            await stream.__aexit__(None, None, None)


async def test_what_another_replica_commits_arrives(database_dsn: str, nats_server: NatsServer) -> None:
    async with (
        running_api(database_dsn, nats_url=nats_server.url) as one,
        running_api(database_dsn, nats_url=nats_server.url) as other,
    ):
        execution = await one.start(LINEAR)
        async with Stream(one, execution) as stream:
            await stream.until(b"id: 3\n")
            await note(other, execution)
            await stream.until(b"event: note")


async def test_what_another_replica_commits_arrives_without_nats(database_dsn: str) -> None:
    async with running_api(database_dsn) as one, running_api(database_dsn) as other:
        execution = await one.start(LINEAR)
        async with Stream(one, execution) as stream:
            await stream.until(b"id: 3\n")
            await note(other, execution)
            await stream.until(b"event: note")


@pytest.mark.parametrize(
    ("query", "headers", "first"),
    [("?since=2", "", 3), ("?after_version=1", "", 2), ("?since=1", "Last-Event-ID: 2\r\n", 3), ("", "", 1)],
)
async def test_a_stream_begins_where_its_reader_wants(api: RunningApi, query: str, headers: str, first: int) -> None:
    execution = await api.start(LINEAR)
    async with Stream(api, execution, query=query, headers=headers) as stream:
        await stream.until(b"retry: 2000\n\n")
        text = await stream.until(b"\nevent: ")
    assert f"id: {first}\n".encode() in text


async def test_the_end_is_said(api: RunningApi) -> None:
    execution = await api.start(LINEAR)
    async with Stream(api, execution, headers="Connection: close\r\n") as stream:
        await stream.until(b"id: 3\n")
        await api.request("POST", f"/api/executions/{execution}/cancel")
        text = await stream.rest()
    assert b'event: end\ndata: {"status":"CANCELLED"}\n\n' in text


async def test_a_reader_that_takes_nothing_is_dropped_with_a_hint_and_resumes(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "WRITE_SECONDS", 0.5)
    execution = await api.start(LINEAR)
    for _ in range(20):
        await note(api, execution, "x" * 90_000)
    before = figure("noetl_event_stream_closed_total", reason="slow_client")
    async with Stream(api, execution, buffer=4096) as slow:
        # It reads nothing until the server has given it up: the counter says when.
        while figure("noetl_event_stream_closed_total", reason="slow_client") == before:  # noqa: ASYNC110 - a metric has no event
            await asyncio.sleep(0.05)
        text = await slow.rest()
    assert b'"reason":"slow_client"' in text
    last = int(text.rpartition(b"\nid: ")[2].split(b"\n")[0])
    async with Stream(api, execution, headers=f"Last-Event-ID: {last - 1}\r\n") as resumed:
        assert b"id: %d\n" % last in await resumed.until(b"\nevent: ")


@pytest.mark.parametrize(("limit", "status"), [("noetl_streams_per_client_max", 429), ("noetl_streams_max", 503)])
async def test_a_stream_too_many_is_refused_with_a_time_to_come_back(
    database_dsn: str, limit: str, status: int
) -> None:
    async with running_api(database_dsn, **{limit: 1}) as api:
        execution = await api.start(LINEAR)
        async with Stream(api, execution) as first:
            await first.until(b"id: 3\n")
            async with api.session.get(f"{api.url}/api/executions/{execution}/events/stream") as refused:
                assert (refused.status, refused.headers["Retry-After"]) == (status, "5")
                assert (await refused.json())["detail"]["code"] == "too_many_streams"


async def test_a_server_that_stops_says_so_to_its_readers(database_dsn: str) -> None:
    async with running_api(database_dsn) as api:
        execution = await api.start(LINEAR)
        stream = await Stream(api, execution).__aenter__()
        await stream.until(b"id: 3\n")
    assert b'"reason":"shutdown"' in await stream.rest()
    await stream.__aexit__(None, None, None)
