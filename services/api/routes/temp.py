"""/api/temp: data that steps hand on and nobody needs for long. It lies beside the results and expires by itself."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from pydantic import Field

from services.api import stored_results as stored
from services.api.auth.roles import Access
from services.api.http import Call, RouteTable, reply
from services.api.inputs import Key, Page, ShortText, path_text
from services.api.models import Lax
from services.api.routes.results import CleanQuery, ResolveQuery, StepQuery

TTL_SECONDS = {"step": 3600.0, "execution": 3600.0, "workflow": 86_400.0}  # the original's; `permanent` has none

routes = RouteTable("temp storage")


class TempBody(Lax):
    """Body of `PUT /api/temp/{execution_id}`."""

    name: Key
    data: Any
    scope: ShortText | None = Field("execution", description="step, execution, workflow or permanent")
    store: ShortText | None = Field(None, description="accepted for compatibility; everything is stored in Postgres")
    ttl_seconds: int | None = Field(None, ge=1, le=stored.TTL_SECONDS_MAX, description="without one: by scope")
    source_step: ShortText | None = None
    correlation: dict[str, Any] | None = None
    compress: bool = Field(False, description="accepted for compatibility; Postgres compresses")


@routes.add(
    "PUT",
    "/api/temp/{execution_id}",
    "Store temporary data",
    role=Access.WORKER,
    body=TempBody,
    response=stored.Stored,
    errors=(400, 404, 413),
    body_bytes_max=stored.RESULT_BODY_BYTES_MAX,
)
async def put_temp(call: Call) -> web.StreamResponse:
    """Store any JSON and answer its reference."""
    body: TempBody = call.body
    by_scope = TTL_SECONDS.get(body.scope or "execution")
    wanted = stored.Put(
        name=body.name,
        data=body.data,
        scope=body.scope,
        store=body.store,
        source_step=body.source_step,
        ttl_seconds=by_scope if body.ttl_seconds is None else float(body.ttl_seconds),
        correlation=body.correlation,
        extracted=None,
    )
    return reply(await stored.put(call, wanted))


@routes.add(
    "GET",
    "/api/temp/resolve",
    "Read temporary data by reference",
    role=Access.VIEWER,
    query=ResolveQuery,
    errors=(404, 413),
)
async def resolve_temp(call: Call) -> web.StreamResponse:
    """Answer the stored JSON; text that is no reference is echoed, as in the original."""
    return await stored.resolved(call, call.query.ref)


@routes.add("GET", "/api/temp/stats", "Count temporary data", role=Access.VIEWER, response=stored.StoreStats)
async def temp_stats(call: Call) -> web.StreamResponse:
    """Answer the same counts as /api/result/stats: both lie in one store."""
    return reply(await stored.stats_document(call.context))


@routes.add(
    "GET",
    "/api/temp/{execution_id}/list",
    "List temporary data",
    role=Access.VIEWER,
    query=Page,
    response=stored.StoredList,
)
async def list_temp(call: Call) -> web.StreamResponse:
    """Answer the references of an execution; the header X-Playhead-More tells of more."""
    document, more = await stored.list_document(call, offset=call.query.offset)
    document["refs"] = [{key: value for key, value in ref.items() if key != "extracted"} for ref in document["refs"]]
    return reply(document, headers={"X-Playhead-More": "true"} if more else None)


@routes.add(
    "GET",
    "/api/temp/{execution_id}/{name}",
    "Newest data of a name",
    role=Access.VIEWER,
    query=StepQuery,
    errors=(404,),
)
async def get_temp(call: Call) -> web.StreamResponse:
    """Answer the data, or with `resolve=false` what is known about it."""
    name = path_text(call, "name")
    return await stored.newest(call, name, resolve=call.query.resolve, missing=f"TempRef not found: {name}")


@routes.add(
    "DELETE",
    "/api/temp/{execution_id}",
    "Delete an execution's temporary data",
    role=Access.RUNNER,
    query=CleanQuery,
    response=stored.Cleaned,
    errors=(400,),
)
async def delete_temp(call: Call) -> web.StreamResponse:
    """Delete the data of one scope; permanent data stays."""
    return reply(await stored.clean(call, scope=call.query.scope))


@routes.add(
    "DELETE",
    "/api/temp/{execution_id}/step/{step_name}",
    "Delete a step's temporary data",
    role=Access.RUNNER,
    response=stored.Cleaned,
)
async def delete_step_temp(call: Call) -> web.StreamResponse:
    """Delete the data of scope step that one step stored."""
    return reply(await stored.clean(call, scope="step", step=path_text(call, "step_name")))
