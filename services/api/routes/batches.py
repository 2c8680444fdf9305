"""/api/events/batch/{request_id}: what has become of a batch of events. Storing it is synchronous; deciding is not."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from pydantic import Field

from services.api.auth.roles import Access
from services.api.bus import TooManyReadersError
from services.api.http import Call, RouteTable, dumps, not_found, reply
from services.api.inputs import Answer
from services.api.models import Lax
from services.api.routes.stream import refused
from services.api.sse import SlowReaderError, drop, event_stream, send
from services.api.store.batches import BatchState, find
from services.api.views import time_offset

WAIT_SECONDS_MAX = 300.0  # of one stream, so that it cannot be held for ever
LOOK_SECONDS = 5.0  # between two looks when no wake-up comes

routes = RouteTable("events")


class BatchStatus(Answer):
    """State of a batch request."""

    request_id: str
    execution_id: str
    state: str
    status: str
    error_code: str | None
    message: str | None
    commands_generated: int
    idempotency_key: str | None
    updated_at: str


class BatchStreamQuery(Lax):
    """Query of the stream."""

    timeout_seconds: float = Field(30.0, ge=0.0, le=WAIT_SECONDS_MAX, description="give up after so long")


def _document(request_id: str, found: BatchState) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "execution_id": str(found.execution_id),
        "state": found.state,
        "status": found.status,
        "error_code": found.error_code,
        "message": found.message,
        "commands_generated": found.commands_generated,
        "idempotency_key": found.idempotency_key,
        "updated_at": time_offset(found.updated_at),
    }


async def _found(call: Call) -> tuple[str, BatchState]:
    request_id = call.path("request_id")
    text = request_id if request_id.isascii() and request_id.isdigit() and len(request_id) <= 19 else None
    found = None if text is None else await find(call.context.database, text)
    if found is None:
        raise not_found(f"Batch request not found: {request_id[:64]}")
    return request_id, found


@routes.add(
    "GET",
    "/api/events/batch/{request_id}/status",
    "State of a batch",
    role=Access.VIEWER,
    response=BatchStatus,
    errors=(404,),
)
async def batch_status(call: Call) -> web.StreamResponse:
    """Answer `processing` until the orchestrator has decided on the batch, then `completed`."""
    return reply(_document(*await _found(call)))


@routes.add(
    "GET",
    "/api/events/batch/{request_id}/stream",
    "Follow the state of a batch (SSE)",
    role=Access.VIEWER,
    query=BatchStreamQuery,
    errors=(404, 429, 503),
    media_type="text/event-stream",
)
async def batch_stream(call: Call) -> web.StreamResponse:
    """Send an event `status` at once and at each change, until it is final, or `timeout` when time is up."""
    request_id, found = await _found(call)
    try:
        async with call.context.bus.reading(found.execution_id, client=call.client) as woken:
            response = await event_stream(call.request)
            try:
                async with asyncio.timeout(call.query.timeout_seconds):
                    await _follow(call, response, request_id, woken)
            except TimeoutError:
                await send(response, b"event: timeout\ndata: {}\n\n")
            except SlowReaderError:
                await drop(call.request, response)
                return response
            await response.write_eof()
            return response
    except TooManyReadersError as error:
        raise refused(error) from None


async def _follow(call: Call, response: web.StreamResponse, request_id: str, woken: asyncio.Event) -> None:
    shown = b""
    while not call.context.stopping.is_set():
        woken.clear()
        found = await find(call.context.database, request_id)
        if found is None:
            return
        document = dumps(_document(request_id, found))
        if document != shown:
            await send(response, b"event: status\ndata: " + document + b"\n\n")
            shown = document
        if found.is_final:
            return
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await woken.wait()
        except TimeoutError:
            continue
