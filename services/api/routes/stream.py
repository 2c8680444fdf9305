"""GET /api/executions/{execution_id}/events/stream: the log as server-sent events, resumable, closing at the end.

| event | id | data |
|---|---|---|
| the event's type, such as `call.done` | its stream version | the envelope, as on NATS, secrets redacted |
| `end` | none | `{"status"}` of the execution: nothing will follow; do not reconnect |
| `close` | none | `{"reason", "retry_ms"}`: `shutdown` or `slow_client`; reconnect, nothing is lost |

A reader that reconnects sends the last id back as `Last-Event-ID` and misses nothing; when the log has ended there, it gets
204, which browsers take as the end. Readers sleep until a commit wakes them and cost the database nothing meanwhile.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from services.api import views
from services.api.auth.roles import Access
from services.api.bus import Reader, TooManyReadersError
from services.api.http import Call, HttpError, RouteTable, dumps, overloaded
from services.api.metrics import STREAM_READERS, STREAMS_CLOSED
from services.api.models import StreamQuery
from services.api.redaction import redact
from services.api.routes.executions import execution_header
from services.api.sse import RETRY_MS, SlowReaderError, drop, event_stream, say_goodbye, send
from services.api.store.queries import queries

routes = RouteTable("executions")

_SQL = queries("execution")
PAGE_EVENTS = 100  # events read at once; their contexts are bounded by NOETL_EVENT_INLINE_MAX_BYTES
HEARTBEAT_SECONDS = 15.0  # a comment line at least so often, so that proxies keep the connection
REFUSED_RETRY_SECONDS = 5  # Retry-After when too many streams are open
TERMINAL_TYPES = frozenset({"playbook.completed", "playbook.failed", "execution.cancelled"})


def _resume_version(call: Call) -> tuple[int, bool]:
    """Return after which version to go on, and whether the reader was here before."""
    header = call.request.headers.get("Last-Event-ID", "")
    if header.isascii() and header.isdigit() and len(header) <= 18:
        return int(header), True
    query: StreamQuery = call.query
    return query.after_version if query.since is None else query.since, False


def refused(error: TooManyReadersError) -> HttpError:
    """Return the answer to a reader too many: 429 when its client has too many, 503 when the server has."""
    if error.by_client:
        detail = {"code": "too_many_streams", "message": str(error)}
        return HttpError(429, detail, headers={"Retry-After": str(REFUSED_RETRY_SECONDS)})
    return overloaded("too_many_streams", str(error), retry_after_seconds=REFUSED_RETRY_SECONDS)


@routes.add(
    "GET",
    "/api/executions/{execution_id}/events/stream",
    "Follow an execution's events (SSE)",
    role=Access.VIEWER,
    query=StreamQuery,
    headers=(("Last-Event-ID", "resume after this stream version; wins over the query"),),
    errors=(404, 429, 503),
    empty=(204,),
    media_type="text/event-stream",
)
async def stream(call: Call) -> web.StreamResponse:
    """Send what is in the log, then what comes, until the terminal event.

    The id of a message is its stream version and the name its event type. `event: end` means that nothing will follow,
    `event: close` that the reader should reconnect. 204: the log ended before `Last-Event-ID`.
    """
    execution_id = call.path_id("execution_id")
    row = await execution_header(call, execution_id)
    version, again = _resume_version(call)
    over = row["status"] in views.TERMINAL
    if over and again and version >= row["stream_version"]:
        return web.Response(status=204)
    try:
        async with call.context.bus.reading(execution_id, client=call.client) as reader:
            STREAM_READERS.inc()
            reader.version = version
            response = await event_stream(call.request)
            try:
                await _Following(call, response, reader).run(over=over)
            except SlowReaderError:
                await drop(call.request, response)
            return response
    except TooManyReadersError as error:
        raise refused(error) from None


class _Following:
    """One reader at work."""

    def __init__(self, call: Call, response: web.StreamResponse, reader: Reader) -> None:
        self._call = call
        self._response = response
        self._reader = reader

    async def run(self, *, over: bool) -> None:
        """Send pages until the end; `over` says that the execution had ended before the stream was opened."""
        stopping = self._call.context.stopping
        while not stopping.is_set():
            self._reader.clear()
            ended, sent = await self._send_page()
            if ended or (over and not sent):
                await self._say_end()
                return
            while not sent and not await self._woken():
                await send(self._response, b": keep-alive\n\n")
        await say_goodbye(self._response, "shutdown", retry_ms=RETRY_MS // 2)

    async def _woken(self) -> bool:
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await self._reader.wait()
        except TimeoutError:
            return False
        return True

    async def _send_page(self) -> tuple[bool, bool]:
        """Send the next events; return whether the terminal one was among them, and whether there were any."""
        reader = self._reader
        rows = await self._call.context.database.fetch(_SQL["stream"], reader.execution_id, reader.version, PAGE_EVENTS)
        ended = False
        for row in rows:
            ended = ended or row["event_type"] in TERMINAL_TYPES
            name = "".join(str(row["event_type"]).splitlines())
            head = f"id: {row['stream_version']}\nevent: {name}\ndata: ".encode()
            await send(self._response, head + dumps(redact(views.envelope(row))) + b"\n\n")
            reader.version = row["stream_version"]
        return ended, bool(rows)

    async def _say_end(self) -> None:
        call = self._call
        row = await call.context.database.fetchrow(_SQL["stream_header"], self._reader.execution_id)
        status = None if row is None else row["status"]
        STREAMS_CLOSED.labels(reason="end").inc()
        await send(self._response, b"event: end\ndata: %s\n\n" % dumps({"status": status}))
        await self._response.write_eof()
