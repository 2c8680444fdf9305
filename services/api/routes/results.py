"""/api/result: tool outputs too large for an event, stored by reference."""

from __future__ import annotations

from typing import Annotated, Any

from aiohttp import web
from pydantic import AfterValidator, Field

from services.api import stored_results as stored
from services.api.auth.roles import Access
from services.api.http import Call, RouteTable, not_found, reply
from services.api.inputs import Key, Page, ShortText, path_text
from services.api.models import Lax

routes = RouteTable("results")


def _ttl_text(value: str | None) -> str | None:
    stored.ttl_seconds(value)
    return value


class PutBody(Lax):
    """Body of `PUT /api/result/{execution_id}`."""

    name: Key
    data: Any
    scope: ShortText | None = Field("execution", description="step, execution, workflow or permanent")
    store: ShortText | None = Field(None, description="accepted for compatibility; everything is stored in Postgres")
    ttl: Annotated[ShortText | None, AfterValidator(_ttl_text)] = Field(
        None, description='"30m", "1h", "1d", "forever"'
    )
    source_step: ShortText | None = None
    correlation: dict[str, Any] | None = None
    extracted: dict[str, Any] | None = None
    compress: bool = Field(False, description="accepted for compatibility; Postgres compresses")


class ResolveQuery(Lax):
    """Query of `GET /api/result/resolve`."""

    ref: str = Field(max_length=8192)


class StepQuery(Lax):
    """Query of `GET /api/result/{execution_id}/{step_name}`."""

    resolve: bool = True


class CleanQuery(Lax):
    """Query of `DELETE /api/result/{execution_id}`."""

    scope: ShortText = Field("execution", description="execution or workflow")


class LookupQuery(Lax):
    """Query of `GET /api/results/lookup`."""

    result_ref: str = Field(max_length=8192)


@routes.add(
    "PUT",
    "/api/result/{execution_id}",
    "Store a result",
    role=Access.WORKER,
    body=PutBody,
    response=stored.Stored,
    errors=(400, 404, 413),
    body_bytes_max=stored.RESULT_BODY_BYTES_MAX,
)
async def put_result(call: Call) -> web.StreamResponse:
    """Store any JSON and answer its reference. It is kept until its `ttl` ends; without one, for ever."""
    body: PutBody = call.body
    wanted = stored.Put(
        name=body.name,
        data=body.data,
        scope=body.scope,
        store=body.store,
        source_step=body.source_step,
        ttl_seconds=stored.ttl_seconds(body.ttl),
        correlation=body.correlation,
        extracted=body.extracted,
    )
    return reply(await stored.put(call, wanted))


@routes.add(
    "GET",
    "/api/result/resolve",
    "Read a result by reference",
    role=Access.VIEWER,
    query=ResolveQuery,
    errors=(404, 413),
)
async def resolve(call: Call) -> web.StreamResponse:
    """Answer the stored JSON, also of the original's worker; text that is no reference is echoed, as in the original."""
    return await stored.resolved(call, call.query.ref)


@routes.add("GET", "/api/result/stats", "Count results", role=Access.VIEWER, response=stored.StoreStats)
async def result_stats(call: Call) -> web.StreamResponse:
    """Answer how many results there are by scope, and how many this process has deleted."""
    return reply(await stored.stats_document(call.context))


@routes.add(
    "GET", "/api/results/lookup", "Where a reference points", role=Access.VIEWER, query=LookupQuery, errors=(404,)
)
async def lookup(call: Call) -> web.StreamResponse:
    """Answer the uri of a reference; the `artifact` tool of the original asks for it."""
    reference = call.query.result_ref
    document = await stored.data_behind(call.context, reference)
    if document is None:
        raise not_found(f"'TempRef not found: {reference[:512]}'")
    return reply({"result_ref": reference, "logical_uri": reference, "store": "db"})


@routes.add(
    "GET", "/api/result/{execution_id}/list", "List results", role=Access.VIEWER, query=Page, response=stored.StoredList
)
async def list_results(call: Call) -> web.StreamResponse:
    """Answer the references of an execution; the header X-Playhead-More tells of more."""
    document, more = await stored.list_document(call, offset=call.query.offset)
    return reply(document, headers={"X-Playhead-More": "true"} if more else None)


@routes.add(
    "GET",
    "/api/result/{execution_id}/{step_name}",
    "Newest result of a step",
    role=Access.VIEWER,
    query=StepQuery,
    errors=(404,),
)
async def step_result(call: Call) -> web.StreamResponse:
    """Answer the data, or with `resolve=false` what is known about it."""
    name = path_text(call, "step_name")
    return await stored.newest(call, name, resolve=call.query.resolve, missing=f"Result not found for step: {name}")


@routes.add(
    "DELETE",
    "/api/result/{execution_id}",
    "Delete an execution's results",
    role=Access.RUNNER,
    query=CleanQuery,
    response=stored.Cleaned,
    errors=(400,),
)
async def delete_results(call: Call) -> web.StreamResponse:
    """Delete the results of one scope; permanent ones stay."""
    return reply(await stored.clean(call, scope=call.query.scope))


@routes.add(
    "DELETE",
    "/api/result/{execution_id}/step/{step_name}",
    "Delete a step's results",
    role=Access.RUNNER,
    response=stored.Cleaned,
)
async def delete_step_results(call: Call) -> web.StreamResponse:
    """Delete the results of scope step that one step stored."""
    return reply(await stored.clean(call, scope="step", step=path_text(call, "step_name")))
