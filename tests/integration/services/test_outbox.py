"""What the outbox publisher promises, on a real Postgres and a real nats-server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from services.outbox.app import OutboxPublisher, main
from shared.messaging.connection import connect
from shared.messaging.publisher import JetStreamPublisher
from shared.messaging.topology import StreamSpec, ensure_stream
from shared.platform.settings import OutboxSettings
from tests.e2e.playbooks import LINEAR
from tests.support.api import TOKEN, RunningApi, running_api
from tests.support.nats import NatsServer

WAIT_SECONDS_MAX = 30


async def statuses(dsn: str) -> list[str]:
    connection = await asyncpg.connect(dsn)
    try:
        return [row["status"] for row in await connection.fetch("SELECT status FROM noetl.outbox ORDER BY outbox_id")]
    finally:
        await connection.close()


async def until_published(dsn: str) -> None:
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while set(await statuses(dsn)) != {"PUBLISHED"}:  # noqa: ASYNC110 - a table has no event
            await asyncio.sleep(0.05)


@asynccontextmanager
async def publishing(api: RunningApi, nats: NatsServer) -> AsyncIterator[None]:
    settings = OutboxSettings(
        nats_url=nats.url, noetl_server_url=api.url, noetl_internal_api_token=TOKEN, noetl_outbox_metrics_port=0
    )
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(main(settings, stop))
        try:
            yield
        finally:
            stop.set()


async def test_while_nats_is_away_rows_wait_and_the_api_accepts(api: RunningApi, database_dsn: str) -> None:
    nats = NatsServer()
    await nats.start()
    try:
        async with publishing(api, nats):
            await api.start(LINEAR)
            await until_published(database_dsn)
            await nats.stop()
            executions = [await api.start(LINEAR) for _ in range(3)]
            assert "PENDING" in await statuses(database_dsn)
            await nats.start()
            await until_published(database_dsn)
        connection = await connect(nats.url, name="test")
        js = connection.jetstream()
        for execution in executions:
            subscription = await js.subscribe(f"noetl.events.default.default.{execution}.0", ordered_consumer=True)
            ids = [(await subscription.next_msg(WAIT_SECONDS_MAX)).headers["Nats-Msg-Id"] for _ in range(3)]
            assert ids == [str(item["event_id"]) for item in await api.log(execution)]
        await connection.close()
    finally:
        await nats.close()


@pytest.fixture
async def publisher(nats_server: NatsServer) -> AsyncIterator[tuple[JetStreamPublisher, StreamSpec]]:
    connection = await connect(nats_server.url, name="test")
    subject = f"t{uuid.uuid4().hex[:8]}"
    spec = StreamSpec(name=subject.upper(), subjects=(f"{subject}.>",))
    await ensure_stream(connection, spec)
    yield JetStreamPublisher(connection, timeout_seconds=5.0), spec
    await connection.jetstream().delete_stream(spec.name)
    await connection.close()


async def add_row(dsn: str, subject: str, payload: str, *, msg_id: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "INSERT INTO noetl.outbox (execution_id, event_id, subject, payload, payload_codec, msg_id, attempts) "
        "VALUES (1, hashtext($3), $1, $2::jsonb, 'json', $3, 5)",
        subject,
        payload,
        msg_id,
    )
    await connection.close()


async def test_what_is_published_twice_is_stored_once(
    database_dsn: str, publisher: tuple[JetStreamPublisher, StreamSpec], nats_server: NatsServer
) -> None:
    made, spec = publisher
    subject = spec.subjects[0].replace(">", "a")
    await add_row(database_dsn, subject, "{}", msg_id="m1")
    async with running_api(database_dsn, noetl_outbox_lease_seconds=0.05) as api:
        settings = OutboxSettings()
        crashed = OutboxPublisher(api.client, made, settings, asyncio.Event())
        assert await crashed.step() is True  # published, and gone before it could mark
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while (await api.client.reconcile(10))["outbox_released"] == 0:  # noqa: ASYNC110 - a lease has no event
                await asyncio.sleep(0.02)
        second = OutboxPublisher(api.client, made, settings, asyncio.Event())
        assert await second.step() is True
        await second.finish()
    assert await statuses(database_dsn) == ["PUBLISHED"]
    connection = await connect(nats_server.url, name="look")
    info = await connection.jetstream().stream_info(spec.name)
    await connection.close()
    assert info.state.messages == 1


async def test_a_message_that_cannot_be_sent_is_given_up_with_its_reason(
    database_dsn: str, publisher: tuple[JetStreamPublisher, StreamSpec]
) -> None:
    made, spec = publisher
    subject = spec.subjects[0].replace(">", "a")
    await add_row(database_dsn, subject, '{"text": "' + "x" * (9 * 1024 * 1024) + '"}', msg_id="large")
    await add_row(database_dsn, subject, "{}", msg_id="small")
    async with running_api(database_dsn, noetl_outbox_attempts_max=1) as api:
        outbox = OutboxPublisher(api.client, made, OutboxSettings(), asyncio.Event())
        assert await outbox.step() is True
        await outbox.finish()
        headers = {"Authorization": f"Bearer {TOKEN}"}
        _, answer = await api.request("GET", "/api/internal/dead-letters", headers=headers)
    assert await statuses(database_dsn) == ["PUBLISHED"]
    assert [(row["source"], row["msg_id"]) for row in answer["rows"]] == [("outbox", "large")]
    assert "MaxPayload" in answer["rows"][0]["reason"]


async def test_a_missing_stream_does_not_use_up_attempts(database_dsn: str, nats_server: NatsServer) -> None:
    connection = await connect(nats_server.url, name="test")
    await add_row(database_dsn, f"nowhere.{uuid.uuid4().hex}", "{}", msg_id="m1")
    async with running_api(database_dsn, noetl_outbox_attempts_max=2) as api:
        made = JetStreamPublisher(connection, timeout_seconds=1.0)
        outbox = OutboxPublisher(api.client, made, OutboxSettings(), asyncio.Event())
        assert await outbox.step() is False
        assert outbox.streams_suspect
    await connection.close()
    assert await statuses(database_dsn) == ["FAILED"]
