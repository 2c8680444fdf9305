"""The outbox publisher: claims rows over HTTP, publishes them to JetStream, marks them. Any number may run.

At least once: a crash between publish and mark repeats the publish, which JetStream drops by `Nats-Msg-Id`. While NATS or
the API is away rows wait in Postgres; only a message that JetStream refuses for what it is counts towards its dead letter.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import orjson

from services.outbox.metrics import BATCH_SECONDS, DEAD_LETTERED, PENDING, PUBLISHED, REFUSED
from shared.messaging.publisher import JetStreamPublisher, Outgoing, Refusal
from shared.messaging.topology import StreamSpec, commands_stream, connected, ensure_streams, events_stream
from shared.platform.api_client import ApiClient, open_api
from shared.platform.errors import ApiRefusedError, ApiUnavailableError
from shared.platform.health import serve_metrics
from shared.platform.lifecycle import pause, run_service
from shared.platform.settings import OutboxSettings
from shared.platform.tracing import inject, span
from shared.wire.subjects import OUTBOX_KICK_SUBJECT

log = logging.getLogger(__name__)

JITTER_SHARE = 0.25  # of every wait, so that replicas do not poll together
DISCONNECTED_SECONDS = 0.25  # between looks whether NATS is back; nothing is claimed meanwhile
PENDING_LOOK_SECONDS = 5.0  # interval of the gauge


def jittered(seconds: float) -> float:
    """Return `seconds` give or take `JITTER_SHARE`."""
    return seconds * random.uniform(1 - JITTER_SHARE, 1 + JITTER_SHARE)  # noqa: S311 - spreads load


class OutboxPublisher:
    """The claim, publish, mark loop."""

    def __init__(
        self, api: ApiClient, publisher: JetStreamPublisher, settings: OutboxSettings, kicked: asyncio.Event
    ) -> None:
        self._api = api
        self._publisher = publisher
        self._settings = settings
        self._kicked = kicked
        self._published: list[int] = []  # acknowledged by JetStream, to be marked with the next claim
        self._streams_suspect = False
        self.is_healthy = False

    @property
    def streams_suspect(self) -> bool:
        """Whether a publish found no stream since the last look; reading clears it."""
        suspect, self._streams_suspect = self._streams_suspect, False
        return suspect

    async def step(self) -> bool:
        """Mark what the last batch published, publish the next; return whether there was one.

        Raises:
            ApiUnavailableError: nothing is lost; leased rows come back by themselves.
        """
        with BATCH_SECONDS.time(), span("outbox batch"):
            limit = self._settings.noetl_outbox_publisher_batch_size
            rows = await self._api.claim_outbox(limit, published=self._published)
            self._published = []
            self.is_healthy = True
            if not rows:
                return False
            verdicts = await self._publisher.publish([self._outgoing(row) for row in rows])
            self._published = [row["outbox_id"] for row, verdict in zip(rows, verdicts, strict=True) if verdict is None]
            PUBLISHED.inc(len(self._published))
            for row, verdict in zip(rows, verdicts, strict=True):
                if verdict is not None:
                    await self._give_back(row, verdict)
        return len(self._published) > 0

    async def finish(self) -> None:
        """Mark what the last batch published, for the last time."""
        if not self._published:
            return
        try:
            await self._api.mark_published(self._published)
        except (ApiUnavailableError, ApiRefusedError) as error:
            log.info("published rows not marked; they will be sent once more", extra={"error": str(error)})

    def _outgoing(self, row: dict[str, Any]) -> Outgoing:
        headers: dict[str, str] = {}
        inject(headers)
        return Outgoing(
            subject=row["subject"], payload=orjson.dumps(row["payload"]), msg_id=str(row["msg_id"]), headers=headers
        )

    async def _give_back(self, row: dict[str, Any], verdict: Refusal) -> None:
        fields = {"execution_id": row["execution_id"], "outbox_id": row["outbox_id"], "reason": verdict.reason}
        log.warning("not published", extra=fields)
        REFUSED.labels(kind="transient" if verdict.is_transient else "message").inc()
        self._streams_suspect = self._streams_suspect or verdict.is_transient
        attempts = 1 if verdict.is_transient else int(row["attempts"])
        if await self._api.mark_failed(row["outbox_id"], error=verdict.reason, attempts=attempts):
            DEAD_LETTERED.inc()
            log.error("given up; see /api/internal/dead-letters", extra=fields)

    async def _wait(self) -> None:
        """Wait for a kick or the poll interval."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(jittered(self._settings.noetl_outbox_publisher_idle_sleep_seconds)):
                await self._kicked.wait()

    async def run(self, stop: asyncio.Event, ensure_streams: Callable[[], Awaitable[None]]) -> None:
        """Publish until `stop`; `ensure_streams` is called when a stream seems to be gone."""
        while not stop.is_set():
            if not self._publisher.is_connected:
                await pause(stop, DISCONNECTED_SECONDS)
                continue
            self._kicked.clear()  # before the claim: a kick during it makes the next wait return at once
            try:
                busy = await self.step()
            except (ApiUnavailableError, ApiRefusedError) as error:
                self.is_healthy = False
                log.warning("api unavailable; rows wait", extra={"error": str(error)})
                await pause(stop, jittered(self._settings.noetl_outbox_publisher_error_sleep_seconds))
                continue
            if self.streams_suspect:
                await ensure_streams()
            if not busy:
                await self._wait()
        await self.finish()


async def _watch_pending(api: ApiClient, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            PENDING.set(await api.pending_count())
        except (ApiUnavailableError, ApiRefusedError):
            log.debug("pending rows not counted")
        await pause(stop, jittered(PENDING_LOOK_SECONDS))


async def main(settings: OutboxSettings, stop: asyncio.Event) -> None:
    """Publish until `stop` is set.

    Raises:
        OSError: the address of the metrics cannot be bound.
    """
    streams: tuple[StreamSpec, ...] = (
        events_stream(settings.noetl_event_nats_stream),
        commands_stream(settings.nats_stream, settings.nats_subject),
    )
    kicked = asyncio.Event()
    outbox: OutboxPublisher | None = None
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            serve_metrics(
                settings.noetl_metrics_host,
                settings.noetl_outbox_metrics_port,
                ready=lambda: outbox is not None and outbox.is_healthy and publisher.is_connected and not stop.is_set(),
            )
        )
        api = await stack.enter_async_context(open_api(settings))
        connection = await stack.enter_async_context(connected(settings.nats_url, name="playhead-outbox", stop=stop))
        if connection is None:
            return
        await ensure_streams(connection, streams, stop)

        async def on_kick(_: object) -> None:
            kicked.set()

        await connection.subscribe(OUTBOX_KICK_SUBJECT, cb=on_kick)
        publisher = JetStreamPublisher(connection, timeout_seconds=settings.noetl_outbox_publish_timeout_seconds)
        outbox = OutboxPublisher(api, publisher, settings, kicked)
        async with asyncio.TaskGroup() as group:
            group.create_task(_watch_pending(api, stop))
            await outbox.run(stop, lambda: ensure_streams(connection, streams, stop))


def run() -> int:
    """Run the service with settings from the environment; return its exit code."""
    return run_service("outbox", OutboxSettings, main)
