"""Wake-ups after a commit: the outbox publisher over core NATS, and the readers of event streams.

Lossy on purpose. The publisher also polls, and a stream reader also looks at intervals, so NATS may be away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from shared.wire.subjects import OUTBOX_KICK_SUBJECT, STREAM_WAKE_SUBJECT

if TYPE_CHECKING:
    from services.api.store.stream_writer import Committed

READERS_MAX = 10_000  # open event streams per process; beyond: 503


class Connection(Protocol):
    """The part of a NATS connection that the bus uses."""

    @property
    def is_connected(self) -> bool:
        """Whether messages can be sent now."""
        ...

    async def publish(self, subject: str, payload: bytes = b"") -> None:
        """Send a core NATS message."""
        ...


class TooManyReadersError(Exception):
    """The process serves `READERS_MAX` event streams already."""


class Bus:
    """Collects wake-ups of one turn of the event loop and sends them together."""

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._readers: dict[int, set[asyncio.Event]] = {}
        self._reader_count = 0
        self._pending = asyncio.Event()
        self._kick = False
        self._woken: set[int] = set()

    def attach(self, connection: Connection) -> None:
        """Use `connection` from now on."""
        self._connection = connection

    @property
    def connection(self) -> Any:
        """The connection, None until NATS was reached."""
        return self._connection

    @property
    def is_connected(self) -> bool:
        """Whether NATS can be reached."""
        return self._connection is not None and self._connection.is_connected

    def kick(self) -> None:
        """Tell the outbox publisher that rows wait."""
        self._kick = True
        self._pending.set()

    def committed(self, change: Committed) -> None:
        """After a commit: kick the publisher and wake who reads these executions, here and on other replicas."""
        for execution_id in change.executions:
            self.wake(execution_id)
            self._woken.add(execution_id)
        self.kick()

    def wake(self, execution_id: int) -> None:
        """Wake this process's readers of an execution."""
        for event in self._readers.get(execution_id, ()):
            event.set()

    def on_message(self, subject: str) -> None:
        """Handle a wake-up from another replica."""
        token = subject.rpartition(".")[2]
        if token.isdigit():
            self.wake(int(token))

    @asynccontextmanager
    async def reading(self, execution_id: int) -> AsyncIterator[asyncio.Event]:
        """Register a reader; the event is set when the execution's log has grown.

        Raises:
            TooManyReadersError: the limit of open streams is reached.
        """
        if self._reader_count >= READERS_MAX:
            raise TooManyReadersError
        event = asyncio.Event()
        self._readers.setdefault(execution_id, set()).add(event)
        self._reader_count += 1
        try:
            yield event
        finally:
            self._reader_count -= 1
            readers = self._readers[execution_id]
            readers.discard(event)
            if not readers:
                del self._readers[execution_id]

    async def run(self, stop: asyncio.Event) -> None:
        """Send what was collected until `stop`; a `kick` at the end makes the loop see it."""
        while not stop.is_set():
            await self._pending.wait()
            self._pending.clear()
            kick, self._kick = self._kick, False
            woken, self._woken = self._woken, set()
            connection = self._connection
            if connection is None or not connection.is_connected:
                continue
            if kick:
                await connection.publish(OUTBOX_KICK_SUBJECT)
            for execution_id in woken:
                await connection.publish(f"{STREAM_WAKE_SUBJECT}.{execution_id}")
