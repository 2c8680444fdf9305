"""GET /api/replay/state: an execution as its log tells it, now or at any point before. Reads only."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from aiohttp import web
from pydantic import AfterValidator, BeforeValidator, Field

from services.api.auth.roles import Access
from services.api.http import Call, HttpError, RouteTable, reply
from services.api.inputs import Answer, ShortText
from services.api.models import Id, Lax
from services.api.redaction import redact
from services.api.replay import fold
from services.api.store.queries import queries

EVENTS_MAX = 100_000  # of one replay, as in the original

routes = RouteTable("replay")

_SQL = queries("replay")


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


def _aware(value: datetime) -> datetime:
    if not 1970 <= value.year <= 2200:
        raise ValueError("must lie between 1970 and 2200")
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


class ReplayQuery(Lax):
    """Query of `GET /api/replay/state`."""

    execution_id: Id
    tenant_id: ShortText = "default"
    organization_id: ShortText = "default"
    as_of_event_id: Annotated[Id | None, BeforeValidator(_empty_is_none)] = Field(
        None, description="fold up to this event"
    )
    as_of_position: Annotated[int | None, BeforeValidator(_empty_is_none)] = Field(
        None, ge=0, le=EVENTS_MAX, description="fold so many events"
    )
    as_of_time: Annotated[Annotated[datetime, AfterValidator(_aware)] | None, BeforeValidator(_empty_is_none)] = Field(
        None, description="fold what had happened by then; without a zone: UTC"
    )
    projection: ShortText = Field("all", description="a name that the answer repeats; every surface is always folded")
    limit: int = Field(
        10_000, ge=1, le=EVENTS_MAX, description="events at most; the header X-Playhead-More tells of more"
    )
    resolve_payloads: bool = Field(False, description="only false is offered: read references with /api/result/resolve")


class ReplayState(Answer):
    """Answer of `GET /api/replay/state`."""

    tenant_id: str
    organization_id: str
    execution_id: int
    projection: str
    upcaster_registry_digest: str
    event_count: int
    last_event_id: int | None
    last_event_type: str | None
    execution: dict[str, Any]
    stages: dict[str, Any]
    frames: dict[str, Any]
    commands: dict[str, Any]
    business_objects: dict[str, Any]
    loops: dict[str, Any]
    checksum_algorithm: str
    checksum: str
    projection_checksums: dict[str, str]


@routes.add(
    "GET",
    "/api/replay/state",
    "Fold an execution's log",
    role=Access.VIEWER,
    query=ReplayQuery,
    response=ReplayState,
    errors=(400,),
)
async def replay_state(call: Call) -> web.StreamResponse:
    """Answer the state and its checksums: the same log gives the same checksums, on every replica and in every release."""
    query: ReplayQuery = call.query
    cutoffs = (query.as_of_event_id, query.as_of_position, query.as_of_time)
    if sum(value is not None for value in cutoffs) > 1:
        raise HttpError(400, "Use only one replay cutoff: as_of_event_id, as_of_position, or as_of_time")
    if query.resolve_payloads:
        raise HttpError(400, "resolve_payloads is not offered; read each reference with GET /api/result/resolve")
    limit = query.limit if query.as_of_position is None else min(query.limit, query.as_of_position)
    rows = await call.context.database.fetch(
        _SQL["events"],
        query.execution_id,
        query.tenant_id,
        query.organization_id,
        query.as_of_event_id,
        query.as_of_time,
        limit + 1,
    )
    state = fold(
        rows[:limit],
        tenant_id=query.tenant_id,
        organization_id=query.organization_id,
        execution_id=query.execution_id,
        projection=query.projection,
    )
    cut = query.as_of_position is None and len(rows) > limit
    return reply(redact(state), headers={"X-Playhead-More": "true"} if cut else None)
