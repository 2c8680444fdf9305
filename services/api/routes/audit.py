"""/api/internal/audit and /api/internal/secret-audit: who changed what, and who read which secret."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from aiohttp import web
from pydantic import AfterValidator, Field

from services.api.auth.roles import Access
from services.api.http import Call, RouteTable, reply
from services.api.inputs import Answer, OptionalKey
from services.api.models import Id, Lax
from services.api.store import audit as store
from services.api.views import time_z

routes = RouteTable("audit")


def _aware(value: datetime) -> datetime:
    if not 1970 <= value.year <= 2200:
        raise ValueError("must lie between 1970 and 2200")
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


Moment = Annotated[datetime, AfterValidator(_aware)]
AuditId = Annotated[int, Field(ge=1, lt=2**63)]


class PeriodQuery(Lax):
    """A period, and paging by the id of the last row seen."""

    execution_id: Id | None = None
    start: Moment | None = Field(None, alias="from", description="ISO 8601; without a zone: UTC")
    end: Moment | None = Field(None, alias="to", description="rows before it")
    before: AuditId | None = Field(
        None, description="only rows with smaller `audit_id`: the last one of the page before"
    )

    @property
    def period(self) -> store.Period:
        """The rows meant."""
        return store.Period(start=self.start, end=self.end, before=self.before)


class AuditQuery(PeriodQuery):
    """Query of `GET /api/internal/audit`."""

    actor: OptionalKey = None
    route: Annotated[OptionalKey, Field(description="a route, or its beginning")] = None
    limit: int = Field(100, ge=1, le=1000)


class SecretQuery(PeriodQuery):
    """Query of `GET /api/internal/secret-audit`."""

    credential: OptionalKey = None
    limit: int = Field(100, ge=1, le=10_000)


class Rows(Answer):
    """Rows newest first."""

    rows: list[dict[str, Any]]


@routes.add(
    "GET", "/api/internal/audit", "Who changed what", role=Access.INTERNAL_ADMIN, query=AuditQuery, response=Rows
)
async def audit(call: Call) -> web.StreamResponse:
    """Answer writes newest first; rows of the worker protocol count `calls` of one kind in a minute."""
    query: AuditQuery = call.query
    await call.context.access.audit.flush()
    rows = await store.list_rows(
        call.context.database,
        actor=query.actor,
        route=query.route,
        execution_id=query.execution_id,
        period=query.period,
        limit=query.limit,
    )
    return reply({"rows": [{**row, "occurred_at": time_z(row["occurred_at"])} for row in rows]})


@routes.add(
    "GET",
    "/api/internal/secret-audit",
    "Who read which secret",
    role=Access.INTERNAL_ADMIN,
    query=SecretQuery,
    response=Rows,
)
async def secret_audit(call: Call) -> web.StreamResponse:
    """Answer accesses to credentials and keychain entries, newest first."""
    query: SecretQuery = call.query
    rows = await store.list_accesses(
        call.context.database,
        credential=query.credential,
        execution_id=query.execution_id,
        period=query.period,
        limit=query.limit,
    )
    regions = {"server_region": None, "broker_region": None}  # fields of the original; there is one region here
    return reply({"rows": [{**row, "occurred_at": time_z(row["occurred_at"]), **regions} for row in rows]})
