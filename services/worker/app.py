"""The worker process: fetch as many notifications as there are free slots, run them, stop within bounded time."""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from contextlib import AsyncExitStack

from services.worker.api import WorkerApi, open_worker_api
from services.worker.limits import (
    ACK_WAIT_SECONDS,
    FETCH_SECONDS,
    REGISTER_RETRY_SECONDS,
    SHUTDOWN_RESERVE_SECONDS,
)
from services.worker.metrics import INFLIGHT
from services.worker.runner import CommandRunner, Delivery
from services.worker.slots import Slots
from services.worker.tools.box import open_toolbox
from shared.messaging.consumer import PullConsumer
from shared.messaging.topology import ConsumerSpec, commands_stream, connected
from shared.platform.errors import ApiRefusedError, ApiUnavailableError
from shared.platform.health import serve_metrics
from shared.platform.lifecycle import pause, run_service
from shared.platform.settings import WorkerSettings

log = logging.getLogger(__name__)


class Registration:
    """Keeps the worker in the API's pool: register, then heartbeats; anything else than a good answer registers anew."""

    def __init__(self, api: WorkerApi, interval_seconds: float) -> None:
        self._api = api
        self._interval = interval_seconds
        self.is_registered = False

    async def keep(self, stop: asyncio.Event) -> None:
        """Run until `stop`."""
        while not stop.is_set():
            try:
                if self.is_registered:
                    await self._api.pool_heartbeat()
                else:
                    await self._api.register()
                    log.info("registered", extra={"worker_id": self._api.worker_id})
                self.is_registered = True
                wait = self._interval
            except (ApiUnavailableError, ApiRefusedError) as error:
                again = self.is_registered and isinstance(error, ApiRefusedError)  # 404: register at once
                self.is_registered = False
                log.warning("pool registration failed", extra={"error": str(error)})
                wait = 0.0 if again else min(REGISTER_RETRY_SECONDS * (1 + random.random()), self._interval)  # noqa: S311
            await pause(stop, wait)

    async def leave(self) -> None:
        """Deregister, so that claims are free at once; without an answer the API finds out by the missing heartbeat."""
        if not self.is_registered:
            return
        try:
            await self._api.deregister()
        except (ApiUnavailableError, ApiRefusedError) as error:
            log.info("not deregistered", extra={"error": str(error)})


class Worker:
    """The fetch loop and the tasks of its commands."""

    def __init__(self, consumer: PullConsumer, runner: CommandRunner, slots: Slots) -> None:
        self._consumer = consumer
        self._runner = runner
        self._slots = slots
        self._active: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event, drain_seconds: float) -> None:
        """Work until `stop`, then finish what runs for up to `drain_seconds` and cancel the rest."""
        async with asyncio.TaskGroup() as group:
            fetching = group.create_task(self._fetch(group, stop))
            await stop.wait()
            fetching.cancel()
            if self._active:
                log.info("stopping; commands run on", extra={"commands": len(self._active)})
                await asyncio.wait(self._active, timeout=drain_seconds)
            for task in self._active:
                task.cancel()

    async def _fetch(self, group: asyncio.TaskGroup, stop: asyncio.Event) -> None:
        while not stop.is_set():
            free = await self._slots.wait_free()
            for message in await self._consumer.fetch(free, FETCH_SECONDS):
                self._slots.take()
                task = group.create_task(self._handle(message))
                self._active.add(task)
                task.add_done_callback(self._done)

    async def _handle(self, message: Delivery) -> None:
        with INFLIGHT.track_inprogress():
            try:
                await self._runner.handle(message)
            except Exception:  # the boundary of one command: a bug must not end the others
                log.exception("command abandoned; its lease will expire and it will be claimed again")

    def _done(self, task: asyncio.Task[None]) -> None:
        self._active.discard(task)
        self._slots.give_back()


def _consumer_spec(settings: WorkerSettings) -> ConsumerSpec:
    return ConsumerSpec(
        stream=commands_stream(settings.nats_stream, settings.nats_subject),
        durable=settings.nats_consumer,
        filter_subject=settings.nats_filter_subject or None,
        ack_wait_seconds=ACK_WAIT_SECONDS,
    )


async def main(settings: WorkerSettings, stop: asyncio.Event) -> None:
    """Serve commands until `stop` is set.

    Raises:
        OSError: the address of the metrics cannot be bound.
    """
    worker_id = settings.worker_id or f"worker-{uuid.uuid4().hex[:8]}"
    drain = max(settings.noetl_shutdown_seconds - SHUTDOWN_RESERVE_SECONDS, 0.0)
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(open_worker_api(settings, worker_id))
        registration = Registration(api, settings.noetl_worker_heartbeat_seconds)
        consumer: PullConsumer | None = None

        def ready() -> bool:
            return consumer is not None and consumer.is_ready and registration.is_registered and not stop.is_set()

        await stack.enter_async_context(
            serve_metrics(settings.noetl_metrics_host, settings.noetl_worker_metrics_port, ready=ready)
        )
        name = f"playhead-{worker_id}"
        connection = await stack.enter_async_context(connected(settings.nats_url, name=name, stop=stop))
        if connection is None:
            return
        stack.push_async_callback(registration.leave)
        box = await stack.enter_async_context(open_toolbox(settings, api))
        consumer = await stack.enter_async_context(PullConsumer(connection, _consumer_spec(settings)))
        slots = Slots(settings.noetl_worker_max_inflight_commands)
        worker = Worker(consumer, CommandRunner(api, box, settings, slots), slots)
        async with asyncio.TaskGroup() as group:
            group.create_task(registration.keep(stop))
            await worker.run(stop, drain)


def run() -> int:
    """Run the service with settings from the environment; return its exit code."""
    return run_service("worker", WorkerSettings, main)
