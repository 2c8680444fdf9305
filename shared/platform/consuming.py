"""What a service that consumes a stream and writes through the API opens, in the order in which it closes again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from shared.messaging.consumer import Message, PullConsumer
from shared.messaging.topology import ConsumerSpec, connected
from shared.platform.api_client import ApiClient, open_api
from shared.platform.health import serve_metrics
from shared.platform.settings import CommonSettings


@asynccontextmanager
async def consuming(
    settings: CommonSettings, spec: ConsumerSpec, *, name: str, metrics_port: int, stop: asyncio.Event
) -> AsyncIterator[tuple[ApiClient, PullConsumer] | None]:
    """Serve metrics and health, connect, and open the durable of `spec`; None when `stop` was set before NATS was reached.

    Raises:
        OSError: the address of the metrics cannot be bound.
    """
    consumer: PullConsumer | None = None

    def ready() -> bool:
        return consumer is not None and consumer.is_ready and not stop.is_set()

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serve_metrics(settings.noetl_metrics_host, metrics_port, ready=ready))
        api = await stack.enter_async_context(open_api(settings))
        connection = await stack.enter_async_context(connected(settings.nats_url, name=name, stop=stop))
        if connection is None:
            yield None
            return
        consumer = await stack.enter_async_context(PullConsumer(connection, spec))
        yield api, consumer


async def give_back(messages: Sequence[Message], *, delay_seconds: float) -> None:
    """Have a batch delivered again after `delay_seconds`."""
    for message in messages:
        await message.nak(delay_seconds)
