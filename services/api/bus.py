"""Wake-ups after a commit: the outbox publisher over core NATS, and the readers of event streams.

Lossy on purpose. The publisher also polls; for the readers one statement a minute, for all of them together, finds what a lost
wake-up hid (`stream_watch.py`), so NATS may be away.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from services.api.metrics import STREAMS_OPEN
from shared.wire.subjects import OUTBOX_KICK_SUBJECT, STREAM_WAKE_SUBJECT

if TYPE_CHECKING:
    from services.api.store.stream_writer import Committed


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
    """No more event streams: `by_client` says whether of this client or at all."""

    def __init__(self, message: str, *, by_client: bool) -> None:
        super().__init__(message)
        self.by_client = by_client


class Reader(asyncio.Event):
    """Somebody who follows an execution; set when its log has grown. `version` is what it has read so far."""

    def __init__(self, execution_id: int) -> None:
        super().__init__()
        self.execution_id = execution_id
        self.version = 0


class Bus:
    """Collects wake-ups of one turn of the event loop and sends them together."""

    def __init__(self, *, readers_max: int, readers_per_client_max: int) -> None:
        """Serve at most so many readers, in all and of one client."""
        self._readers_max = readers_max
        self._per_client_max = readers_per_client_max
        self._connection: Connection | None = None
        self._readers: dict[int, set[Reader]] = {}
        self._by_client: Counter[str] = Counter()
        self._pending = asyncio.Event()
        self._kick = False
        self._woken: set[int] = set()
        self.gap = asyncio.Event()  # wake-ups may have been lost: look at every execution that is followed

    def attach(self, connection: Connection) -> None:
        """Use `connection` from now on."""
        self._connection = connection
        self.gap.set()

    @property
    def connection(self) -> Any:
        """The connection, None until NATS was reached."""
        return self._connection

    @property
    def is_connected(self) -> bool:
        """Whether NATS can be reached."""
        return self._connection is not None and self._connection.is_connected

    @property
    def reader_count(self) -> int:
        """Event streams that are open."""
        return self._by_client.total()

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
        for reader in self._readers.get(execution_id, ()):
            reader.set()

    def wake_all(self) -> None:
        """Wake every reader of this process, so that it sees that the process stops."""
        for readers in self._readers.values():
            for reader in readers:
                reader.set()

    def followed(self) -> dict[int, int]:
        """Return each execution that somebody reads with the oldest version that a reader has."""
        return {key: min(reader.version for reader in readers) for key, readers in self._readers.items()}

    def on_message(self, subject: str) -> None:
        """Handle a wake-up from another replica."""
        token = subject.rpartition(".")[2]
        if token.isdigit():
            self.wake(int(token))

    @asynccontextmanager
    async def reading(self, execution_id: int, *, client: str = "") -> AsyncIterator[Reader]:
        """Register a reader of `client`; one without a name counts in all only.

        Raises:
            TooManyReadersError: the limit of open streams is reached.
        """
        if self.reader_count >= self._readers_max:
            raise TooManyReadersError(f"{self._readers_max} event streams are open on this server", by_client=False)
        if client and self._by_client[client] >= self._per_client_max:
            text = f"you have {self._per_client_max} event streams open; close some"
            raise TooManyReadersError(text, by_client=True)
        reader = Reader(execution_id)
        self._readers.setdefault(execution_id, set()).add(reader)
        self._by_client[client] += 1
        STREAMS_OPEN.inc()
        try:
            yield reader
        finally:
            STREAMS_OPEN.dec()
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]
            readers = self._readers[execution_id]
            readers.discard(reader)
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
