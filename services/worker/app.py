"""The worker process: fetch as many notifications as there are free slots, run them, stop within bounded time."""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack

from services.worker.api import WorkerApi, open_worker_api
from services.worker.limits import (
    ACK_WAIT_SECONDS,
    FETCH_SECONDS,
    REGISTER_RETRY_SECONDS,
    SEGMENT_FETCH_SECONDS,
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
    """The fetch loops, one per durable, and the tasks of their commands."""

    def __init__(self, consumers: Sequence[PullConsumer], runner: CommandRunner, slots: Slots) -> None:
        self._consumers = consumers
        self._runner = runner
        self._slots = slots
        self._active: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event, drain_seconds: float) -> None:
        """Work until `stop`, then finish what runs for up to `drain_seconds` and cancel the rest."""
        fetch = self._fetch if len(self._consumers) == 1 else self._fetch_in_turn
        async with asyncio.TaskGroup() as group:
            fetching = [group.create_task(fetch(consumer, group, stop)) for consumer in self._consumers]
            await stop.wait()
            for task in fetching:
                task.cancel()
            if self._active:
                log.info("stopping; commands run on", extra={"commands": len(self._active)})
                await asyncio.wait(self._active, timeout=drain_seconds)
            for task in self._active:
                task.cancel()

    async def _fetch(self, consumer: PullConsumer, group: asyncio.TaskGroup, stop: asyncio.Event) -> None:
        while not stop.is_set():
            free = await self._slots.wait_free()
            for message in await consumer.fetch(free, FETCH_SECONDS):
                self._slots.take()
                self._start(group, message)

    async def _fetch_in_turn(self, consumer: PullConsumer, group: asyncio.TaskGroup, stop: asyncio.Event) -> None:
        """Fetch one message into a place that is kept for it: several durables together never take more than is free."""
        while not stop.is_set():
            await self._slots.wait_free()
            self._slots.take()
            taken = False
            try:
                for message in await consumer.fetch(1, SEGMENT_FETCH_SECONDS):
                    self._start(group, message)
                    taken = True
            finally:
                if not taken:
                    self._slots.give_back()

    def _start(self, group: asyncio.TaskGroup, message: Delivery) -> None:
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


def consumer_specs(settings: WorkerSettings) -> list[ConsumerSpec]:
    """Return the durables that a worker pulls from; no message is in two of them.

    Without segments one durable gets all commands, or those of `NATS_FILTER_SUBJECT`. Each segment is a durable of its own:
    `legacy` has the bare subject, any other `<subject>.<segment>.>` (clients.md section 1.3).
    """
    stream = commands_stream(settings.nats_stream, settings.nats_subject)
    filters: dict[str, str | None] = {settings.nats_consumer: settings.nats_filter_subject or None}
    segments = settings.segments()
    if segments:
        filters = {
            settings.nats_consumer if segment == "legacy" else f"{settings.nats_consumer}_{segment}": (
                settings.nats_subject if segment == "legacy" else f"{settings.nats_subject}.{segment}.>"
            )
            for segment in segments
        }
    return [
        ConsumerSpec(stream=stream, durable=durable, filter_subject=subject, ack_wait_seconds=ACK_WAIT_SECONDS)
        for durable, subject in filters.items()
    ]


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
        consumers: list[PullConsumer] = []

        def ready() -> bool:
            listening = bool(consumers) and all(consumer.is_ready for consumer in consumers)
            return listening and registration.is_registered and not stop.is_set()

        await stack.enter_async_context(
            serve_metrics(settings.noetl_metrics_host, settings.noetl_worker_metrics_port, ready=ready)
        )
        name = f"playhead-{worker_id}"
        connection = await stack.enter_async_context(connected(settings.nats_url, name=name, stop=stop))
        if connection is None:
            return
        stack.push_async_callback(registration.leave)
        box = await stack.enter_async_context(open_toolbox(settings, api))
        for spec in consumer_specs(settings):
            consumers.append(await stack.enter_async_context(PullConsumer(connection, spec)))
        slots = Slots(settings.noetl_worker_max_inflight_commands)
        worker = Worker(consumers, CommandRunner(api, box, settings, slots), slots)
        async with asyncio.TaskGroup() as group:
            group.create_task(registration.keep(stop))
            await worker.run(stop, drain)


def run() -> int:
    """Run the service with settings from the environment; return its exit code."""
    return run_service("worker", WorkerSettings, main)
