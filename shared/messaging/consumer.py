"""The project's own JetStream pull consumer: batches, explicit acks, and a stream or durable that vanished is made anew.

It asks for messages with the plain pull request of the JetStream wire protocol (`$JS.API.CONSUMER.MSG.NEXT`) instead of
`fetch` of nats-py, which waits for a full batch or the timeout: here a message is handed over the moment it comes, with all
others that are there. One request is out at a time, so no more than `limit` messages are ever held.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import nats.errors
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from prometheus_client import Counter

from shared.messaging.topology import ConsumerSpec, StreamSpec, ensure_consumer

if TYPE_CHECKING:
    from nats.aio.subscription import Subscription

log = logging.getLogger(__name__)

EXPIRES_SECONDS = 5.0  # life of one pull request at the server
EXPIRES_MARGIN_SECONDS = 1.0  # waited beyond it before a request is taken for lost
HEAL_SECONDS = 1.0  # between attempts to create a stream or consumer that is absent
NAK_DELAY_MAX_SECONDS = 3600.0
MESSAGES_BUFFERED_MAX = 10_000  # of one consumer; `limit` keeps it far below
BYTES_BUFFERED_MAX = 256 * 1024 * 1024

FETCHED = Counter("playhead_consumer_messages_total", "Messages handed over", ["stream", "durable"])
REDELIVERED = Counter("playhead_consumer_redelivered_total", "Messages delivered more than once", ["stream", "durable"])
HEALED = Counter("playhead_consumer_healed_total", "Stream or consumer found absent", ["stream", "durable"])


@dataclass(slots=True)
class Message:
    """A delivered message; exactly one of `ack`, `nak` and `term` ends it."""

    subject: str
    data: bytes
    headers: dict[str, str]
    deliveries: int
    pending: int
    _reply: str
    _connection: Client

    async def ack(self) -> None:
        """Say that it is handled; fire and forget, a lost ack is a duplicate later."""
        await self._answer(b"+ACK")

    async def nak(self, delay_seconds: float = 0.0) -> None:
        """Give it back for another delivery after `delay_seconds` (0..3600)."""
        delay = min(max(delay_seconds, 0.0), NAK_DELAY_MAX_SECONDS)
        await self._answer(b"-NAK " + orjson.dumps({"delay": int(delay * 1e9)}) if delay else b"-NAK")

    async def term(self) -> None:
        """Say that it must not come again."""
        await self._answer(b"+TERM")

    async def in_progress(self) -> None:
        """Start the ack wait anew."""
        await self._answer(b"+WPI")

    async def _answer(self, body: bytes) -> None:
        try:
            await self._connection.publish(self._reply, body)
        except (nats.errors.Error, OSError) as error:
            log.warning("ack not sent; the message will come again", extra={"error": type(error).__name__})


def _message(msg: Msg, connection: Client) -> Message:
    """Read the delivery count and what waits behind it from the ack subject.

    `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<timestamp>.<pending>`, or with two more tokens
    (domain, account) after ACK and one at the end.
    """
    tokens = msg.reply.split(".")
    offset = 2 if len(tokens) >= 11 else 0
    delivered, pending = tokens[4 + offset], tokens[8 + offset]
    return Message(
        subject=msg.subject,
        data=msg.data,
        headers=dict(msg.headers or {}),
        deliveries=int(delivered),
        pending=int(pending),
        _reply=msg.reply,
        _connection=connection,
    )


class PullConsumer:
    """Fetches from one durable. Use as an async context manager, by one task."""

    def __init__(self, connection: Client, spec: ConsumerSpec) -> None:
        self._connection = connection
        self._spec = spec
        self._queue: asyncio.Queue[Msg] = asyncio.Queue(MESSAGES_BUFFERED_MAX)
        self._subscription: Subscription | None = None
        self._inbox = ""
        self._outstanding = 0  # messages that the open request may still bring
        self._expires_at = 0.0  # loop time at which the open request is taken for lost
        self._reconnects = 0
        self._exists = False
        labels = (spec.stream.name, spec.durable)
        self._fetched, self._redelivered, self._healed = (
            FETCHED.labels(*labels),
            REDELIVERED.labels(*labels),
            HEALED.labels(*labels),
        )

    async def __aenter__(self) -> PullConsumer:
        self._inbox = self._connection.new_inbox()
        self._subscription = await self._connection.subscribe(
            self._inbox,
            cb=self._on_message,
            pending_msgs_limit=MESSAGES_BUFFERED_MAX,
            pending_bytes_limit=BYTES_BUFFERED_MAX,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening and give back what was delivered and not handed over."""
        if self._subscription is not None and not self._connection.is_closed:
            await self._subscription.unsubscribe()
        while not self._queue.empty():
            msg = self._queue.get_nowait()
            if msg.reply:
                await _message(msg, self._connection).nak()

    async def _on_message(self, msg: Msg) -> None:
        self._queue.put_nowait(msg)

    @property
    def is_ready(self) -> bool:
        """Whether NATS is connected and the durable was there when last looked."""
        return self._exists and self._connection.is_connected

    async def fetch(self, limit: int, timeout_seconds: float) -> list[Message]:
        """Return 1 to `limit` messages as soon as one is there, or none after `timeout_seconds` or while NATS is away."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        try:
            async with asyncio.timeout_at(deadline):
                if not self._exists:
                    await self._heal()
                while self._queue.empty():
                    await self._request(limit, loop.time())
                    first = await self._next(min(deadline, self._expires_at))
                    found = [] if first is None else self._take(first, limit)
                    if found:
                        return found
                return self._take(self._queue.get_nowait(), limit)
        except TimeoutError:
            return []
        except (nats.errors.Error, OSError) as error:
            log.debug("fetch failed", extra={"error": type(error).__name__})
            self._outstanding = 0
            await asyncio.sleep(min(HEAL_SECONDS, timeout_seconds))
            return []

    async def _next(self, until: float) -> Msg | None:
        try:
            async with asyncio.timeout_at(until):
                return await self._queue.get()
        except TimeoutError:
            return None

    async def _request(self, limit: int, now: float) -> None:
        """Have one pull request open: a new one when the last was answered in full, ended, or is lost."""
        reconnects = self._connection.stats["reconnects"]
        if self._outstanding > 0 and now < self._expires_at and reconnects == self._reconnects:
            return
        self._reconnects = reconnects
        body = orjson.dumps({"batch": limit, "expires": int(EXPIRES_SECONDS * 1e9)})
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._spec.stream.name}.{self._spec.durable}"
        await self._connection.publish(subject, body, reply=self._inbox)
        self._outstanding = limit
        self._expires_at = now + EXPIRES_SECONDS + EXPIRES_MARGIN_SECONDS

    def _take(self, first: Msg, limit: int) -> list[Message]:
        """Return `first` and what else is there, status messages taken out."""
        found: list[Message] = []
        msg: Msg | None = first
        while msg is not None and len(found) < limit:
            if msg.reply.startswith("$JS.ACK."):
                self._outstanding -= 1
                found.append(_message(msg, self._connection))
            else:
                self._on_status((msg.headers or {}).get("Status", ""))
            msg = None if self._queue.empty() or len(found) >= limit else self._queue.get_nowait()
        self._fetched.inc(len(found))
        self._redelivered.inc(sum(1 for message in found if message.deliveries > 1))
        return found

    def _on_status(self, status: str) -> None:
        """Handle the end of a request: 404 and 408 are an empty stream, 409 and 503 a consumer that is gone or moving."""
        if status == "100":  # an idle heartbeat
            return
        self._outstanding = 0
        if status in ("409", "503"):
            self._exists = False
            raise nats.errors.NoRespondersError

    async def _heal(self) -> None:
        await ensure_consumer(self._connection, self._spec)
        self._exists = True
        self._healed.inc()


__all__ = ["ConsumerSpec", "Message", "PullConsumer", "StreamSpec"]
