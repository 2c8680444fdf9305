"""Streams and durable consumers: created when absent, never changed when present (an operator may have tuned them)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, RetentionPolicy, StorageType, StreamConfig

from shared.messaging.connection import connect
from shared.wire.subjects import COMMANDS_SUBJECT, EVENTS_PREFIX

log = logging.getLogger(__name__)

STREAM_MAX_AGE_SECONDS = 86_400.0  # the original's; Postgres keeps the log, a stream only delivers it
DUPLICATE_WINDOW_SECONDS = 120.0  # dedupe by Nats-Msg-Id; an outbox lease is 30 s, so a retry falls well inside
STREAM_MAX_BYTES = (
    1024**3
)  # of one stream, which JetStream reserves on disk; beyond, the oldest go first (they are in Postgres)
RETRY_SECONDS = 1.0  # between attempts to reach NATS or to create what is absent


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSpec:
    """A stream by name and subjects."""

    name: str
    subjects: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerSpec:
    """A durable pull consumer.

    `ack_wait_seconds` is how long a message may be handled before it is delivered again, `max_deliver` how often at
    most (-1: no limit), `max_ack_pending` how many may be unacknowledged over all members.
    """

    stream: StreamSpec
    durable: str
    filter_subject: str | None = None
    ack_wait_seconds: float = 30.0
    max_deliver: int = -1
    max_ack_pending: int = 10_000


def events_stream(name: str) -> StreamSpec:
    """Return the stream of events."""
    return StreamSpec(name=name, subjects=(f"{EVENTS_PREFIX}.>",))


def commands_stream(name: str, subject: str = COMMANDS_SUBJECT) -> StreamSpec:
    """Return the stream of command notifications: the bare subject and one per pool below it."""
    return StreamSpec(name=name, subjects=(subject, f"{subject}.>"))


async def ensure_stream(connection: Client, spec: StreamSpec) -> None:
    """Create the stream if it is absent.

    Raises:
        nats.errors.Error: JetStream does not answer or refuses.
    """
    js = connection.jetstream()
    try:
        await js.stream_info(spec.name)
    except nats.js.errors.NotFoundError:
        config = StreamConfig(
            name=spec.name,
            subjects=list(spec.subjects),
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            max_age=STREAM_MAX_AGE_SECONDS,
            max_bytes=STREAM_MAX_BYTES,
            duplicate_window=DUPLICATE_WINDOW_SECONDS,
        )
        try:
            await js.add_stream(config)
        except nats.js.errors.BadRequestError as error:
            if error.err_code != _NAME_IN_USE:
                raise
        log.info("stream created", extra={"stream": spec.name})


_NAME_IN_USE = 10058  # JSStreamNameExistErr: another process was faster


async def ensure_consumer(connection: Client, spec: ConsumerSpec) -> None:
    """Create the durable, and its stream, if absent. It starts at the first message: what waits is not skipped.

    Raises:
        nats.errors.Error: JetStream does not answer or refuses.
    """
    await ensure_stream(connection, spec.stream)
    js = connection.jetstream()
    try:
        await js.consumer_info(spec.stream.name, spec.durable)
    except nats.js.errors.NotFoundError:
        config = ConsumerConfig(
            durable_name=spec.durable,
            deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=spec.ack_wait_seconds,
            max_deliver=spec.max_deliver,
            max_ack_pending=spec.max_ack_pending,
            filter_subject=spec.filter_subject,
        )
        await js.add_consumer(spec.stream.name, config)
        log.info("consumer created", extra={"stream": spec.stream.name, "durable": spec.durable})


@asynccontextmanager
async def connected(url: str, *, name: str, stop: asyncio.Event) -> AsyncIterator[Client | None]:
    """Connect, waiting for NATS until `stop`; yields None when told to stop before it was reached."""
    connection: Client | None = None
    while connection is None and not stop.is_set():
        try:
            connection = await connect(url, name=name)
        except (OSError, TimeoutError) as error:
            log.warning("nats unavailable; waiting", extra={"error": str(error)})
            await _pause(stop)
    try:
        yield connection
    finally:
        if connection is not None:
            await _close(connection)


async def ensure_streams(connection: Client, specs: Sequence[StreamSpec], stop: asyncio.Event) -> None:
    """Create what is absent, retrying until it worked or `stop` is set."""
    for spec in specs:
        done = False
        while not done and not stop.is_set():
            try:
                await ensure_stream(connection, spec)
                done = True
            except (nats.errors.Error, TimeoutError, OSError) as error:
                log.warning("stream not ready", extra={"stream": spec.name, "error": type(error).__name__})
                await _pause(stop)


async def _pause(stop: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(RETRY_SECONDS):
            await stop.wait()
    except TimeoutError:
        return


async def _close(connection: Client) -> None:
    """Send what is buffered and close; a server that is away must not hold up the shutdown."""
    try:
        async with asyncio.timeout(1.0):
            await connection.flush()
    except (nats.errors.Error, TimeoutError, OSError):
        log.debug("nats flush at close failed")
    await connection.close()
