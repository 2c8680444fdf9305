"""Publish batches to JetStream: every message with its `Nats-Msg-Id`, every ack awaited, one verdict per message."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import PubAck

INFLIGHT_MAX = 512  # unacknowledged messages at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message to publish; `msg_id` is what JetStream removes duplicates by."""

    subject: str
    payload: bytes
    msg_id: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a message is not known to be stored. One that `is_transient` says nothing about the message itself."""

    reason: str
    is_transient: bool = True


class JetStreamPublisher:
    """Publishes on one connection."""

    def __init__(self, connection: Client, *, timeout_seconds: float) -> None:
        self._connection = connection
        self._js = connection.jetstream(publish_async_max_pending=INFLIGHT_MAX)
        self._timeout = timeout_seconds

    @property
    def is_connected(self) -> bool:
        """Whether a server can be reached now."""
        return self._connection.is_connected

    async def publish(self, batch: Sequence[Outgoing]) -> list[Refusal | None]:
        """Publish all and wait for the acks, `timeout_seconds` at most for the whole batch.

        Returns:
            For each message None when it is stored (also when it was there before), else why it is not known to be.
        """
        futures: list[asyncio.Future[PubAck] | Refusal] = []
        try:
            async with asyncio.timeout(self._timeout):
                for message in batch:
                    futures.append(await self._send(message))
                waiting = [item for item in futures if not isinstance(item, Refusal)]
                if waiting:
                    await asyncio.wait(waiting)
        except TimeoutError:
            pass  # what has no answer yet gets its verdict below
        verdicts = [self._verdict(item) for item in futures]
        return verdicts + [Refusal(reason="not sent in time")] * (len(batch) - len(verdicts))

    async def _send(self, message: Outgoing) -> asyncio.Future[PubAck] | Refusal:
        try:
            return await self._js.publish_async(
                message.subject, message.payload, headers={**message.headers, "Nats-Msg-Id": message.msg_id}
            )
        except (nats.errors.MaxPayloadError, nats.errors.BadSubjectError) as error:
            return Refusal(reason=f"{type(error).__name__}: {error}", is_transient=False)
        except (nats.errors.Error, OSError) as error:
            return Refusal(reason=f"{type(error).__name__}: {error}")

    @staticmethod
    def _verdict(item: asyncio.Future[PubAck] | Refusal) -> Refusal | None:
        if isinstance(item, Refusal):
            return item
        if not item.done():
            item.cancel()
            return Refusal(reason="no ack in time")
        if item.cancelled():
            return Refusal(reason="cancelled")
        error = item.exception()
        if error is None:
            return None
        if isinstance(error, nats.js.errors.NoStreamResponseError):
            return Refusal(reason="no stream takes this subject")
        refused = isinstance(error, nats.js.errors.BadRequestError)
        return Refusal(reason=f"{type(error).__name__}: {error}", is_transient=not refused)
