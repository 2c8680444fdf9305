"""A small HTTP load generator on raw keep-alive connections: cheap enough to share two cores with the server it measures.

Bounded in requests and time; talks to loopback only.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
RUN_SECONDS_MAX = 120.0


@dataclass(frozen=True, slots=True)
class Report:
    """Rate in requests per second, latencies in milliseconds."""

    requests: int
    errors: int
    seconds: float
    rate: float
    p50_ms: float
    p99_ms: float


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0..1) of `values` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class _Client(asyncio.Protocol):
    """One connection: send a request, wait for its whole answer, send the next."""

    def __init__(self, requests: Iterator[bytes], done: asyncio.Future[None]) -> None:
        self._requests = requests
        self._done = done
        self._buffer = b""
        self._started = 0.0
        self.latencies: list[float] = []
        self.errors = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._transport.close()
            if not self._done.done():
                self._done.set_result(None)
            return
        self._started = time.perf_counter()
        self._transport.write(request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = 0
        for line in head.split(b"\r\n")[1:]:
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":", 1)[1])
        if len(body) < length:
            return
        self.latencies.append(time.perf_counter() - self._started)
        if not head.startswith(b"HTTP/1.1 2"):
            self.errors += 1
        self._buffer = body[length:]
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self.errors += 1
            self._done.set_result(None)


def request_bytes(url: str, body: bytes) -> bytes:
    """Return a POST request as it goes over the wire."""
    parts = urlsplit(url)
    return (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def run_load(url: str, bodies: Sequence[bytes], *, connections: int, requests: int) -> Report:
    """Send `requests` POSTs over `connections` keep-alive connections, cycling through `bodies`."""
    parts = urlsplit(url)
    assert parts.hostname in LOOPBACK, "load goes to loopback only"
    prepared = [request_bytes(url, body) for body in bodies]
    feed = itertools.islice(itertools.cycle(prepared), requests)
    loop = asyncio.get_running_loop()
    clients: list[_Client] = []
    waits: list[asyncio.Future[None]] = []
    started = time.perf_counter()
    for _ in range(connections):
        done = loop.create_future()
        client = _Client(feed, done)
        await loop.create_connection(lambda client=client: client, parts.hostname, parts.port)  # type: ignore[misc]
        clients.append(client)
        waits.append(done)
    async with asyncio.timeout(RUN_SECONDS_MAX):
        for wait in waits:
            await wait
    seconds = time.perf_counter() - started
    latencies = [value for client in clients for value in client.latencies]
    return Report(
        requests=len(latencies),
        errors=sum(client.errors for client in clients),
        seconds=seconds,
        rate=len(latencies) / seconds,
        p50_ms=percentile(latencies, 0.5) * 1000,
        p99_ms=percentile(latencies, 0.99) * 1000,
    )
