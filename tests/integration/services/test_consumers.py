"""The orchestrator's and the projector's loops on a real stream: poison is kept, neighbours go on."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import orjson
import pytest
from nats.aio.client import Client

from services.dev.processes import free_port
from services.orchestrator.app import EventLoop
from services.orchestrator.orchestrator import Orchestrator
from services.projector.app import Projector
from shared.messaging.connection import connect
from shared.messaging.consumer import PullConsumer
from shared.messaging.topology import ConsumerSpec, StreamSpec
from shared.platform.api_client import open_api
from shared.platform.health import serve_metrics
from shared.platform.settings import CommonSettings
from tests.e2e.playbooks import LINEAR
from tests.support.api import TOKEN, RunningApi
from tests.support.nats import NatsServer

WAIT_SECONDS = 10.0


@pytest.fixture
async def connection(nats_server: NatsServer) -> AsyncIterator[Client]:
    made = await connect(nats_server.url, name="test")
    yield made
    await made.close()


@pytest.fixture
def spec() -> ConsumerSpec:
    name = f"t{uuid.uuid4().hex[:8]}"
    return ConsumerSpec(stream=StreamSpec(name=name.upper(), subjects=(f"{name}.>",)), durable="reader")


async def dead_letters(api: RunningApi) -> list[dict[str, Any]]:
    _, answer = await api.request("GET", "/api/internal/dead-letters", headers={"Authorization": f"Bearer {TOKEN}"})
    rows: list[dict[str, Any]] = answer["rows"]
    return rows


async def consume(consumer: PullConsumer, handle: Callable[[Any], Any], count: int) -> None:
    left = count
    while left > 0:
        messages = await consumer.fetch(100, WAIT_SECONDS)
        assert messages, "nothing came"
        await handle(messages)
        left -= len(messages)


async def test_the_orchestrator_keeps_poison_and_decides_the_rest(
    api: RunningApi, connection: Client, spec: ConsumerSpec
) -> None:
    execution = await api.start(LINEAR)
    await api.work(execution, "start", {"greeting": "Hi", "sum": 1})
    async with PullConsumer(connection, spec) as consumer:
        await consumer.fetch(1, 0.5)  # makes stream and durable
        subject = spec.stream.subjects[0].replace(">", "a")
        bodies = [b"not json", b"[]", b'{"event_id": 1}', *[orjson.dumps(item) for item in await api.log(execution)]]
        for body in bodies:
            await connection.jetstream().publish(subject, body)
        loop = EventLoop(api.client, Orchestrator(api.client, cache_max=10), asyncio.Lock())
        await consume(consumer, loop.handle, len(bodies))
    assert [row["reason"][:6] for row in reversed(await dead_letters(api))] == ["no JSO", "no JSO", "execut"]
    assert "finish" in [item["node_name"] for item in await api.log(execution)]


async def test_the_projector_keeps_poison_and_projects_the_rest(
    api: RunningApi, connection: Client, spec: ConsumerSpec
) -> None:
    execution = await api.start(LINEAR)
    log = await api.log(execution)
    foreign = {**log[-1], "stream_id": "elsewhere", "catalog_id": 12345, "event_id": 77}
    async with PullConsumer(connection, spec) as consumer:
        await consumer.fetch(1, 0.5)
        subject = spec.stream.subjects[0].replace(">", "a")
        bodies = [b"{", *[orjson.dumps(item) for item in [log[0], foreign, *log[1:]]]]
        for body in bodies:
            await connection.jetstream().publish(subject, body)
        await consume(consumer, Projector(api.client).handle, len(bodies))
    letters = await dead_letters(api)
    assert sorted(row["source"] for row in letters) == ["projector", "projector"]
    assert any("catalog" in row["reason"] for row in letters)
    _, listed = await api.request("GET", "/api/executions")
    assert listed[0]["execution_id"] == str(execution)


async def test_what_the_api_cannot_take_comes_again(
    nats_server: NatsServer, connection: Client, spec: ConsumerSpec
) -> None:
    async with (
        PullConsumer(connection, spec) as consumer,
        open_api(CommonSettings(noetl_server_url="http://127.0.0.1:1")) as nobody,
    ):
        await consumer.fetch(1, 0.5)
        envelope = {"execution_id": 5, "event_id": 6, "catalog_id": 7, "stream_version": 9, "event_type": "call.done"}
        await connection.jetstream().publish(spec.stream.subjects[0].replace(">", "a"), orjson.dumps(envelope))
        loop = EventLoop(nobody, Orchestrator(nobody, cache_max=10), asyncio.Lock())
        first = await consumer.fetch(10, WAIT_SECONDS)
        await loop.handle(first)
        again = await consumer.fetch(10, WAIT_SECONDS)
        assert [message.deliveries for message in first + again] == [1, 2]


async def test_a_second_service_on_the_same_metrics_port_runs_all_the_same() -> None:
    port = free_port()
    async with (
        serve_metrics("127.0.0.1", port, ready=lambda: True),
        serve_metrics("127.0.0.1", port, ready=lambda: True),
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/readyz") as response,
    ):
        assert response.status == 200
