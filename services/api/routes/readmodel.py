"""/api/ehdb: executions and events without their payloads, as the CLI's `ehdb query` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from aiohttp import web
from pydantic import BaseModel, Field

from services.api import views
from services.api.auth.roles import Access
from services.api.http import Call, HttpError, RouteTable, reply
from services.api.inputs import Offset, OptionalKey
from services.api.models import Id, Lax
from services.api.routes.executions import execution_header
from services.api.store.queries import queries
from services.api.views import time_z
from shared.wire.types import ID_MAX

routes = RouteTable("read model")

_SQL = queries("readmodel")
ROWS_MAX = 1000

ENDPOINTS = (
    ("/api/ehdb/executions", "List executions (read-model)."),
    ("/api/ehdb/executions/{execution_id}", "Execution derived-state read-model."),
    ("/api/ehdb/executions/{execution_id}/events", "Event read-model scoped to one execution."),
)


class ListQuery(Lax):
    """Filters and paging of `GET /api/ehdb/executions`."""

    status: OptionalKey = None
    path: OptionalKey = None
    catalog_id: Id | None = None
    limit: int = Field(50, ge=1, le=ROWS_MAX)
    offset: Offset = 0


class EventsQuery(Lax):
    """Paging of events: those after an event id."""

    after: int = Field(0, ge=0, le=ID_MAX)
    limit: int = Field(100, ge=1, le=ROWS_MAX)


class State(BaseModel):
    """What is derived from an execution's log."""

    execution_id: str
    catalog_id: str
    path: str | None
    status: str
    terminal: bool
    current_node: str | None
    parent_execution_id: str | None
    event_count: int
    started_at: datetime | None
    completed_at: datetime | None


class ListReply(BaseModel):
    """Answer of `GET /api/ehdb/executions`."""

    action: str
    tier: str
    limit: int
    offset: int
    returned: int
    executions: list[State]


class StateReply(BaseModel):
    """Answer of `GET /api/ehdb/executions/{execution_id}`."""

    action: str
    tier: str
    execution_id: str
    exists: bool
    state: State | None


class EventsReply(BaseModel):
    """Answer of `GET /api/ehdb/executions/{execution_id}/events`; `next_cursor` is the next `after`."""

    action: str
    tier: str
    execution_id: str
    exists: bool
    limit: int
    returned: int
    next_cursor: str | None
    events: list[dict[str, Any]]


def _state(row: Mapping[str, Any], *, node: str | None, count: int) -> dict[str, Any]:
    parent = row["parent_execution_id"]
    return {
        "execution_id": str(row["execution_id"]),
        "catalog_id": str(row["catalog_id"]),
        "path": row["path"],
        "status": row["status"],
        "terminal": row["status"] in views.TERMINAL,
        "current_node": node,
        "parent_execution_id": None if parent is None else str(parent),
        "event_count": count,
        "started_at": time_z(row["start_time"]),
        "completed_at": time_z(row["end_time"]),
    }


@routes.add("GET", "/api/ehdb", "What can be read here", role=Access.VIEWER)
async def index(_: Call) -> web.StreamResponse:
    """Answer the routes of this group."""
    endpoints = [
        {"method": "GET", "path": path, "tier": "projection", "serves": "direct", "desc": text}
        for path, text in ENDPOINTS
    ]
    document = {"action": "ehdb.index", "service": "ehdb-query-interface", "read_only": True, "control_plane": True}
    return reply({**document, "endpoints": endpoints, "tiers": {"projection": "served-direct"}})


@routes.add(
    "GET", "/api/ehdb/executions", "List executions without payloads", role=Access.VIEWER, query=ListQuery,
    response=ListReply,
)  # fmt: skip
async def executions(call: Call) -> web.StreamResponse:
    """Answer newest first; `current_node` is told of one execution only."""
    query: ListQuery = call.query
    status = query.status.upper() if query.status else None
    rows = await call.context.database.fetch(
        _SQL["executions"], status, query.path, query.catalog_id, query.limit, query.offset
    )
    found = [_state(row, node=None, count=row["event_count"]) for row in rows]
    document = {"action": "ehdb.executions.list", "tier": "projection", "limit": query.limit, "offset": query.offset}
    return reply({**document, "returned": len(found), "executions": found})


@routes.add(
    "GET", "/api/ehdb/executions/{execution_id}", "State of an execution", role=Access.VIEWER, response=StateReply
)
async def state(call: Call) -> web.StreamResponse:
    """Answer the state; one that is unknown does not exist, which is no error here."""
    execution_id = call.path_id("execution_id")
    document = {"action": "ehdb.execution.state", "tier": "projection", "execution_id": str(execution_id)}
    try:
        row = await execution_header(call, execution_id)
    except HttpError as error:
        if error.status != 404:
            raise
        return reply({**document, "exists": False, "state": None})
    database = call.context.database
    node = await database.fetchval(_SQL["current_node"], execution_id)
    count = await database.fetchval(_SQL["event_count"], execution_id)
    return reply({**document, "exists": True, "state": _state(row, node=node, count=count)})


@routes.add(
    "GET",
    "/api/ehdb/executions/{execution_id}/events",
    "Events of an execution without payloads",
    role=Access.VIEWER,
    query=EventsQuery,
    response=EventsReply,
)
async def events(call: Call) -> web.StreamResponse:
    """Answer oldest first, after an event id."""
    execution_id = call.path_id("execution_id")
    query: EventsQuery = call.query
    rows = await call.context.database.fetch(_SQL["events"], execution_id, query.after, query.limit)
    found = [
        {
            "event_id": str(row["event_id"]),
            "execution_id": str(execution_id),
            "event_type": row["event_type"],
            "node_name": row["node_name"],
            "status": row["status"],
            "created_at": time_z(row["created_at"]),
        }
        for row in rows
    ]
    return reply(
        {
            "action": "ehdb.execution.events",
            "tier": "projection",
            "execution_id": str(execution_id),
            "exists": bool(found),
            "limit": query.limit,
            "returned": len(found),
            "next_cursor": found[-1]["event_id"] if len(found) == query.limit else None,
            "events": found,
        }
    )
