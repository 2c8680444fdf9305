"""What the pull consumer promises, on a real nats-server."""

from __future__ import annotations

import asyncio

from shared.messaging.connection import connect
from shared.messaging.consumer import PullConsumer
from shared.messaging.publisher import JetStreamPublisher, Outgoing
from shared.messaging.topology import ConsumerSpec, StreamSpec
from tests.support.nats import NatsServer

WAIT_SECONDS = 15.0
SPEC = ConsumerSpec(stream=StreamSpec(name="T", subjects=("t.>",)), durable="reader", ack_wait_seconds=30.0)


def outgoing(*names: str) -> list[Outgoing]:
    return [Outgoing(subject="t.a", payload=name.encode(), msg_id=name) for name in names]


async def test_messages_come_as_they_are_there_and_stay_gone_once_acknowledged(own_nats_server: NatsServer) -> None:
    connection = await connect(own_nats_server.url, name="test")
    async with PullConsumer(connection, SPEC) as consumer:
        assert await consumer.fetch(10, 0.5) == []
        assert await JetStreamPublisher(connection, timeout_seconds=5).publish(outgoing("1", "2", "3")) == [None] * 3
        found = await consumer.fetch(2, WAIT_SECONDS)
        assert len(found) <= 2
        while len(found) < 3:
            found += await consumer.fetch(2, WAIT_SECONDS)
        assert [message.data for message in found] == [b"1", b"2", b"3"]
        for message in found:
            await message.ack()
        assert await consumer.fetch(10, 0.5) == []
    await connection.close()


async def test_what_is_given_back_comes_again_and_what_is_terminated_does_not(own_nats_server: NatsServer) -> None:
    connection = await connect(own_nats_server.url, name="test")
    async with PullConsumer(connection, SPEC) as consumer:
        await consumer.fetch(1, 0.5)
        await JetStreamPublisher(connection, timeout_seconds=5).publish(outgoing("back", "gone"))
        found = await consumer.fetch(10, WAIT_SECONDS)
        while len(found) < 2:
            found += await consumer.fetch(10, WAIT_SECONDS)
        await found[0].nak()
        await found[1].term()
        again = await consumer.fetch(10, WAIT_SECONDS)
        assert [(message.data, message.deliveries) for message in again] == [(b"back", 2)]
    await connection.close()


async def test_a_stream_that_vanished_is_made_again(own_nats_server: NatsServer) -> None:
    connection = await connect(own_nats_server.url, name="test")
    async with PullConsumer(connection, SPEC) as consumer:
        await consumer.fetch(1, 0.5)
        await connection.jetstream().delete_stream("T")
        publisher = JetStreamPublisher(connection, timeout_seconds=1)
        async with asyncio.timeout(60):
            while (await publisher.publish(outgoing("later")))[0] is not None:
                await consumer.fetch(1, 0.5)
            found = await consumer.fetch(1, WAIT_SECONDS)
            while not found:
                found = await consumer.fetch(1, WAIT_SECONDS)
        assert found[0].data == b"later"
    await connection.close()


async def test_after_a_restart_of_the_server_messages_go_on(own_nats_server: NatsServer) -> None:
    connection = await connect(own_nats_server.url, name="test")
    async with PullConsumer(connection, SPEC) as consumer:
        await consumer.fetch(1, 0.5)
        await own_nats_server.stop()
        publisher = JetStreamPublisher(connection, timeout_seconds=1)
        assert (await publisher.publish(outgoing("early")))[0] is not None
        assert await consumer.fetch(1, 0.5) == []
        await own_nats_server.start()
        async with asyncio.timeout(60):
            while (await publisher.publish(outgoing("late")))[0] is not None:
                pass
            found = await consumer.fetch(10, WAIT_SECONDS)
            while b"late" not in [message.data for message in found]:
                found += await consumer.fetch(10, WAIT_SECONDS)
        assert [message.data for message in found].count(b"late") == 1
    await connection.close()
