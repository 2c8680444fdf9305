"""/api/result: tool outputs too large for an event, stored by reference."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import orjson
from aiohttp import web
from pydantic import AfterValidator, Field

from services.api import references
from services.api.auth.roles import Access
from services.api.http import Call, HttpError, RouteTable, dumps, not_found, reply
from services.api.inputs import Answer, Key, ShortText, path_text
from services.api.models import Lax
from services.api.store import results as store
from services.api.store.queries import queries
from services.api.views import time_offset

RESULT_BODY_BYTES_MAX = 64 * 1024 * 1024 + 65_536  # a worker's largest output and its wrapping; the Rust server's limit
TTL_DAYS_MAX = 3650
SCOPES = ("step", "execution", "workflow", "permanent")
TIERS = ("memory", "kv", "disk", "object", "s3", "gcs", "db", "duckdb", "eventlog")

routes = RouteTable("results")

_EXECUTION = queries("execution")
_TTL = re.compile(r"(\d{1,9})\s*([smhd]?)")
_UNIT_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def _ttl_text(value: str | None) -> str | None:
    ttl_seconds(value)
    return value


def ttl_seconds(value: str | None) -> float | None:
    """Return a time to live such as `30m`, `1h`, `1d` in seconds; None for `forever` and when there is none.

    Raises:
        ValueError: it is none of these, or over `TTL_DAYS_MAX` days.
    """
    if value is None or value in ("", "forever"):
        return None
    match = _TTL.fullmatch(value.strip().lower())
    seconds = int(match[1]) * _UNIT_SECONDS[match[2]] if match else 0
    if not 0 < seconds <= TTL_DAYS_MAX * 86_400:
        raise ValueError(f'ttl must look like "30m", "1h", "1d" or "forever", {TTL_DAYS_MAX} days at most')
    return float(seconds)


class PutBody(Lax):
    """Body of `PUT /api/result/{execution_id}`."""

    name: Key
    data: Any
    scope: ShortText = "execution"
    store: ShortText | None = Field(None, description="accepted for compatibility; everything is stored in Postgres")
    ttl: Annotated[ShortText | None, AfterValidator(_ttl_text)] = Field(
        None, description='"30m", "1h", "1d", "forever"'
    )
    source_step: ShortText | None = None


class Stored(Answer):
    """Answer of `PUT /api/result/{execution_id}`."""

    ref: str
    store: str
    scope: str
    expires_at: str | None
    bytes: int
    sha256: str


class ResolveQuery(Lax):
    """Query of `GET /api/result/resolve`."""

    ref: str = Field(max_length=8192)


class StepQuery(Lax):
    """Query of `GET /api/result/{execution_id}/{step_name}`."""

    resolve: bool = True


class DeleteQuery(Lax):
    """Query of `DELETE /api/result/{execution_id}`."""

    scope: Literal["execution", "workflow"] = "execution"


def _json_text(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/json")


@routes.add(
    "PUT",
    "/api/result/{execution_id}",
    "Store a result",
    role=Access.WORKER,
    body=PutBody,
    response=Stored,
    errors=(400, 404, 413),
    body_bytes_max=RESULT_BODY_BYTES_MAX,
)
async def put_result(call: Call) -> web.StreamResponse:
    """Store any JSON and answer its reference. It is kept until its `ttl` ends; without one, for ever."""
    execution_id = call.path_id("execution_id")
    body: PutBody = call.body
    if body.scope not in SCOPES:
        raise HttpError(400, f"Invalid scope: {body.scope}. Use: {', '.join(SCOPES)}")
    if body.store is not None and body.store not in TIERS:
        raise HttpError(400, f"Invalid store tier: {body.store}")
    if body.scope == "step" and not body.source_step:
        raise HttpError(400, "source_step is required for results of scope step")
    if await call.context.database.fetchrow(_EXECUTION["header"], execution_id) is None:
        raise not_found(f"Execution {execution_id} not found")
    result = store.NewResult(
        result_id=call.context.ids.next(),
        execution_id=execution_id,
        name=body.name,
        scope=body.scope,
        source_step=body.source_step,
        data=dumps(body.data),
        ttl_seconds=ttl_seconds(body.ttl),
    )
    expires_at = await store.save(call.context.database, result)
    return reply(
        {
            "ref": store.reference(execution_id=execution_id, name=body.name, result_id=result.result_id),
            "store": "db",
            "scope": body.scope,
            "expires_at": time_offset(expires_at),
            "bytes": len(result.data),
            "sha256": result.sha256,
        }
    )


@routes.add(
    "GET",
    "/api/result/resolve",
    "Read a result by reference",
    role=Access.VIEWER,
    query=ResolveQuery,
    errors=(404, 413),
)
async def resolve(call: Call) -> web.StreamResponse:
    """Answer the stored JSON; text that is no reference is echoed, as in the original."""
    ref = call.query.ref
    if not ref.startswith("noetl://"):
        return reply(ref)
    try:
        text = await references.resolve(call.context, ref)
    except references.TooLargeError as error:
        raise HttpError(413, str(error)) from error
    if text is None:
        raise not_found(f"'TempRef not found: {ref[:512]}'")
    return web.Response(body=text, content_type="application/json")


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
    execution_id, name = call.path_id("execution_id"), path_text(call, "step_name")
    row = await store.newest_of_step(call.context.database, execution_id, name)
    if row is None:
        raise not_found(f"Result not found for step: {name}")
    if call.query.resolve:
        return _json_text(row["data"])
    return reply(
        {
            "ref": store.reference(execution_id=execution_id, name=row["name"], result_id=row["result_id"]),
            "store": "db",
            "scope": row["scope"],
            "name": row["name"],
            "expires_at": time_offset(row["expires_at"]),
            "bytes": row["bytes"],
            "sha256": row["sha256"],
            "preview": _preview(orjson.loads(row["data"])),
            "extracted": None,
            "correlation": None,
        }
    )


def _preview(data: Any) -> Any:
    """Return the shape of `data`: scalars as they are, lists and objects as their sizes."""
    if not isinstance(data, dict):
        return f"[{len(data)} items]" if isinstance(data, list) else data
    return {
        key: f"[{len(value)} items]" if isinstance(value, list | dict) else value
        for key, value in list(data.items())[:20]
    }


@routes.add(
    "DELETE", "/api/result/{execution_id}", "Delete an execution's results", role=Access.RUNNER, query=DeleteQuery
)
async def delete_results(call: Call) -> web.StreamResponse:
    """Delete the results of one scope; permanent ones stay."""
    execution_id = call.path_id("execution_id")
    scope = call.query.scope
    deleted = await store.delete_scope(call.context.database, execution_id, scope=scope)
    return reply({"execution_id": str(execution_id), "deleted": deleted, "scope": scope})


@routes.add("DELETE", "/api/result/{execution_id}/step/{step_name}", "Delete a step's results", role=Access.RUNNER)
async def delete_step_results(call: Call) -> web.StreamResponse:
    """Delete the results of scope step that one step stored."""
    execution_id, name = call.path_id("execution_id"), path_text(call, "step_name")
    deleted = await store.delete_scope(call.context.database, execution_id, scope="step", source_step=name)
    return reply({"execution_id": str(execution_id), "deleted": deleted, "scope": "step"})
