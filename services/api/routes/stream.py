"""GET /api/executions/{execution_id}/events/stream: the log as server-sent events, resumable, closing at the end.

The id of each message is the stream version; a reader that reconnects sends it back as `Last-Event-ID` and misses nothing.
Readers sleep until a commit wakes them; at each heartbeat they also look on their own, for wake-ups that NATS lost.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from services.api import views
from services.api.auth.roles import Access
from services.api.bus import TooManyReadersError
from services.api.http import Call, RouteTable, dumps, not_found, overloaded
from services.api.metrics import STREAM_READERS
from services.api.models import StreamQuery
from services.api.redaction import redact
from services.api.store.queries import queries

routes = RouteTable("executions")

_SQL = queries("execution")
PAGE_EVENTS = 500  # events read and written at once
HEARTBEAT_SECONDS = 15.0  # a comment line at least so often, so that proxies keep the connection
WRITE_TIMEOUT_SECONDS = 30.0  # a client that reads slower loses the connection and resumes
TERMINAL_TYPES = frozenset({"playbook.completed", "playbook.failed", "execution.cancelled"})


def _resume_version(call: Call) -> int:
    header = call.request.headers.get("Last-Event-ID", "")
    return int(header) if header.isascii() and header.isdigit() and len(header) <= 18 else call.query.after_version


@routes.add(
    "GET",
    "/api/executions/{execution_id}/events/stream",
    "Follow an execution's events (SSE)",
    role=Access.VIEWER,
    query=StreamQuery,
    headers=(("Last-Event-ID", "resume after this stream version; wins over `after_version`"),),
    errors=(404, 503),
    media_type="text/event-stream",
)
async def stream(call: Call) -> web.StreamResponse:
    """Send what is in the log, then what comes, until the terminal event."""
    execution_id = call.path_id("execution_id")
    row = await call.context.database.fetchrow(_SQL["stream_header"], execution_id)
    if row is None:
        raise not_found(f"Execution {execution_id} not found")
    STREAM_READERS.inc()
    try:
        async with call.context.bus.reading(execution_id) as woken:
            response = web.StreamResponse(
                headers={
                    "Content-Type": "text/event-stream; charset=utf-8",
                    "Cache-Control": "no-cache",
                    "X-Accel-Buffering": "no",
                }
            )
            await response.prepare(call.request)
            await _follow(call, response, execution_id, woken, over=row["status"] in views.TERMINAL)
            return response
    except TooManyReadersError:
        raise overloaded(
            "too_many_streams", "too many event streams are open; poll or try again", retry_after_seconds=5
        ) from None


async def _follow(
    call: Call, response: web.StreamResponse, execution_id: int, woken: asyncio.Event, *, over: bool
) -> None:
    """Send pages until the terminal event; `over` says that the execution had ended before the stream was opened."""
    version = _resume_version(call)
    while not call.context.stopping.is_set():
        woken.clear()
        version, ended, sent = await _send_page(call, response, execution_id, version)
        if ended or (over and not sent):
            await response.write_eof()
            return
        if not sent and not await _wait(woken):
            await _write(response, b": keep-alive\n\n")


async def _wait(woken: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(HEARTBEAT_SECONDS):
            await woken.wait()
    except TimeoutError:
        return False
    return True


async def _send_page(
    call: Call, response: web.StreamResponse, execution_id: int, version: int
) -> tuple[int, bool, bool]:
    rows = await call.context.database.fetch(_SQL["stream"], execution_id, version, PAGE_EVENTS)
    ended = False
    parts: list[bytes] = []
    for row in rows:
        version = row["stream_version"]
        ended = ended or row["event_type"] in TERMINAL_TYPES
        document = redact(views.envelope(row))
        parts.append(b"id: %d\nevent: %s\ndata: %s\n\n" % (version, str(row["event_type"]).encode(), dumps(document)))
    if parts:
        await _write(response, b"".join(parts))
    return version, ended, bool(parts)


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(WRITE_TIMEOUT_SECONDS):
        await response.write(data)
