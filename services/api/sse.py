"""Server-sent events: opening a stream, writing to readers of any speed, and closing with a word.

Nothing is queued per reader: pages are read from the log as fast as the reader takes them, so what waits for a slow one is what
its socket holds. A reader that takes nothing for `WRITE_SECONDS` gets `event: close` into its socket and loses the connection.
"""

from __future__ import annotations

import asyncio
import logging
import socket

from aiohttp import web

from services.api.http import dumps
from services.api.metrics import STREAMS_CLOSED

log = logging.getLogger(__name__)

WRITE_SECONDS = 30.0  # a reader that takes nothing for so long is slow
LINGER_SECONDS = 30.0  # what its socket holds may still be read for so long, then the connection is cut
SOCKET_BYTES = 262_144  # what the kernel holds for one reader; left alone it grows to 4 MiB, times ten thousand readers
RETRY_MS = 2000  # what readers wait before they connect again
CHUNK_BYTES = 65_536  # written at once; a page is cut into such pieces, and each waits for the reader


class SlowReaderError(Exception):
    """The reader took nothing for `WRITE_SECONDS`."""


async def event_stream(request: web.Request) -> web.StreamResponse:
    """Send the head of an event stream with the hint when to reconnect."""
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",
        }
    )
    await response.prepare(request)
    endpoint = None if request.transport is None else request.transport.get_extra_info("socket")
    if endpoint is not None:
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
    await send(response, b"retry: %d\n\n" % RETRY_MS)
    return response


async def send(response: web.StreamResponse, data: bytes) -> None:
    """Write `data`, piece by piece.

    Raises:
        SlowReaderError: the reader does not take it.
    """
    for start in range(0, len(data), CHUNK_BYTES):
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await response.write(data[start : start + CHUNK_BYTES])
        except TimeoutError:
            raise SlowReaderError from None


async def say_goodbye(response: web.StreamResponse, reason: str, *, retry_ms: int) -> None:
    """Tell the reader why the stream ends here and when to come back; it resumes with `Last-Event-ID`."""
    STREAMS_CLOSED.labels(reason=reason).inc()
    detail = dumps({"reason": reason, "retry_ms": retry_ms})
    await send(response, b"event: close\nretry: %d\ndata: %s\n\n" % (retry_ms, detail))
    await response.write_eof()


async def drop(request: web.Request, response: web.StreamResponse) -> None:
    """Leave the reason in the socket of a slow reader and close it, without waiting for the reader."""
    STREAMS_CLOSED.labels(reason="slow_client").inc()
    log.info("slow reader dropped", extra={"path": request.path})
    transport = request.transport
    if transport is None:
        return
    detail = dumps({"reason": "slow_client", "retry_ms": RETRY_MS})
    try:
        async with asyncio.timeout(0):
            await response.write(b"\nevent: close\nretry: %d\ndata: %s\n\n" % (RETRY_MS, detail))
    except (TimeoutError, OSError):
        pass  # it is in the socket's buffer, or the reader is gone
    transport.close()
    asyncio.get_running_loop().call_later(LINGER_SECONDS, transport.abort)
