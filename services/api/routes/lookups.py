"""GET /api/events/{event_id}: one event, and the complete output in it, by the event's own id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from services.api.auth.roles import Access
from services.api.http import Call, RouteTable, not_found, reply
from services.api.inputs import Answer
from services.api.redaction import redact
from services.api.store.database import Row
from services.api.store.queries import queries
from services.api.stored_results import data_behind
from services.api.views import log_event

routes = RouteTable("events")

_SQL = queries("replay")


class EventResult(Answer):
    """Answer of `GET /api/events/{event_id}/result`."""

    execution_id: str
    event_id: int
    event_type: str | None
    node_name: str | None
    status: str | None
    result: Any


async def _event(call: Call) -> Row:
    event_id = call.path_id("event_id")
    row = await call.context.database.fetchrow(_SQL["event"], event_id)
    if row is None:
        raise not_found(f"event not found: {event_id}")
    return row


@routes.add("GET", "/api/events/{event_id}", "Show an event", role=Access.VIEWER, errors=(404,))
async def show_event(call: Call) -> web.StreamResponse:
    """Answer the event as the list of an execution's events shows it."""
    row = await _event(call)
    return reply(log_event({**dict(row), "execution_id_text": str(row["execution_id"])}))


@routes.add(
    "GET",
    "/api/events/{event_id}/result",
    "The output in an event",
    role=Access.VIEWER,
    response=EventResult,
    errors=(404, 413),
)
async def event_result(call: Call) -> web.StreamResponse:
    """Answer the complete output of a tool, also when it is stored by reference; without one, the event's result."""
    row = await _event(call)
    document = {
        "execution_id": str(row["execution_id"]),
        "event_id": row["event_id"],
        "event_type": row["event_type"],
        "node_name": row["node_name"],
        "status": row["status"],
        "result": redact(await _output(call, row)),
    }
    return reply(document)


async def _output(call: Call, row: Row) -> Any:
    context, result = row["context"], row["result"]
    if isinstance(context, Mapping) and "response" in context:
        return context["response"]
    reference = result.get("reference") if isinstance(result, Mapping) else None
    if isinstance(reference, Mapping):
        uri = reference.get("ref") or reference.get("locator")
        found = await data_behind(call.context, uri) if isinstance(uri, str) else None
        if found is not None:
            return orjson.loads(found)
    return result
