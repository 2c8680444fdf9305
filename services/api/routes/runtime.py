"""/api/worker/pool/* and /api/pool/status: who works, and how busy the database pool is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import AliasChoices, BeforeValidator, Field

from services.api.auth.roles import Access
from services.api.http import Call, HttpError, RouteTable, reply
from services.api.inputs import Answer, Key, OptionalKey, Page, ShortText, truncated
from services.api.models import Lax
from services.api.store import runtime as store
from services.api.views import time_offset

LIST_MAX = 1000  # pools in one answer
UNKNOWN_RETRY_SECONDS = 3  # Retry-After of an unknown pool's heartbeat, as in the original
DEFAULT_POOL = "worker-cpu"  # the original's configured pool name, meant by a heartbeat without a name

routes = RouteTable("workers")


def _text_runtime(value: object) -> object:
    """Accept the object of Rust workers beside the text of Python workers."""
    return value if isinstance(value, dict | str | None) else str(value)


class RegisterBody(Lax):
    """Body of `POST /api/worker/pool/register`; the first Rust workers called themselves `worker_id`."""

    name: Annotated[Key, Field(validation_alias=AliasChoices("name", "worker_id"))]
    kind: Literal["worker_pool"] = "worker_pool"
    runtime: Annotated[dict[str, Any] | ShortText | None, BeforeValidator(_text_runtime)] = None
    uri: Annotated[ShortText | None, Field(validation_alias=AliasChoices("uri", "base_url"))] = None
    status: ShortText = "ready"
    capacity: Annotated[int | None, Field(ge=0, le=1_000_000)] = None
    labels: dict[str, Any] | None = None
    pid: Annotated[int | None, Field(ge=0, le=2**31)] = None
    hostname: ShortText | None = None
    meta: dict[str, Any] | None = None


class HeartbeatBody(Lax):
    """Body of `POST /api/worker/pool/heartbeat`; `registration` lets a forgotten pool come back at once."""

    name: OptionalKey = None
    registration: RegisterBody | None = None


class NameBody(Lax):
    """Body of `/api/worker/pool/deregister`."""

    name: Key


class PoolQuery(Page):
    """Query of `GET /api/worker/pools`."""

    runtime: OptionalKey = None
    status: OptionalKey = None
    limit: int = Field(LIST_MAX, ge=1, le=LIST_MAX)


class PoolReply(Answer):
    """Answer of register, heartbeat and deregister."""

    status: str
    name: str
    runtime_id: str | None
    runtime: str | None
    kind: str | None = None


class Pool(Answer):
    """A worker pool."""

    name: str
    runtime: dict[str, Any]
    status: str
    capacity: int | None
    labels: dict[str, Any] | None
    heartbeat: datetime
    created_at: datetime
    updated_at: datetime


class PoolList(Answer):
    """Answer of `GET /api/worker/pools`."""

    items: list[Pool]
    count: int
    runtime: str | None
    status: str | None
    error: str | None


class PoolStatus(Answer):
    """Answer of `GET /api/pool/status`: the API's database connections."""

    pool_min: int
    pool_max: int
    pool_size: int
    pool_available: int
    requests_waiting: int
    utilization: float
    slots_available: int
    status: str


def _runtime(body: RegisterBody) -> dict[str, Any]:
    found: dict[str, Any] = {"type": None, "pid": body.pid, "hostname": body.hostname}
    if isinstance(body.runtime, Mapping):
        found |= {**body.runtime, "type": body.runtime.get("type") or body.runtime.get("kind")}
    else:
        found["type"] = body.runtime
    return found | (body.meta or {})


async def register_component(call: Call, body: RegisterBody, *, kind: str = store.WORKER_POOL) -> dict[str, Any]:
    """Insert or overwrite a component and return the answer."""
    runtime = _runtime(body)
    runtime_id = await store.register(
        call.context.database,
        store.NewPool(
            runtime_id=call.context.ids.next(),
            kind=kind,
            name=body.name,
            uri=body.uri,
            status=body.status.lower(),
            labels=body.labels,
            capacity=body.capacity,
            runtime=runtime,
        ),
    )
    name = runtime["type"]
    return {
        "status": "ok",
        "name": body.name,
        "runtime_id": str(runtime_id),
        "runtime": None if name is None else str(name),
        "kind": kind,
    }


def unknown_component(name: str) -> HttpError:
    """Return the 404 that tells a component to register."""
    return HttpError(404, {"status": "unknown", "name": name}, headers={"Retry-After": str(UNKNOWN_RETRY_SECONDS)})


@routes.add(
    "POST",
    "/api/worker/pool/register",
    "Enter a worker pool",
    role=Access.WORKER,
    body=RegisterBody,
    response=PoolReply,
)
async def register(call: Call) -> web.StreamResponse:
    """Insert or overwrite the pool; it is alive as of now. Workers repeat this as their heartbeat."""
    return reply(await register_component(call, call.body))


@routes.add(
    "POST",
    "/api/worker/pool/heartbeat",
    "Tell that a pool lives",
    role=Access.WORKER,
    body=HeartbeatBody,
    response=PoolReply,
    errors=(404,),
)
async def heartbeat(call: Call) -> web.StreamResponse:
    """Mark the pool as alive; 404 tells it to register."""
    body: HeartbeatBody = call.body
    name = body.name or (body.registration.name if body.registration else DEFAULT_POOL)
    row = await store.heartbeat(call.context.database, name)
    if row is not None:
        return reply({"status": "ok", "name": name, "runtime_id": str(row["runtime_id"]), "runtime": row["runtime"]})
    if body.registration is not None:
        return reply(await register_component(call, body.registration))
    raise unknown_component(name)


async def _deregister(call: Call) -> web.StreamResponse:
    name = call.body.name
    row = await store.deregister(call.context.database, name)
    return reply(
        {
            "status": "ok",
            "name": name,
            "runtime_id": None if row is None else str(row["runtime_id"]),
            "runtime": None if row is None else row["runtime"],
            "kind": store.WORKER_POOL,
        }
    )


@routes.add("POST", "/api/worker/pool/deregister", "Leave", role=Access.WORKER, body=NameBody, response=PoolReply)
async def deregister(call: Call) -> web.StreamResponse:
    """Mark the pool as offline: what it has claimed is free at once. An unknown pool is offline already."""
    return await _deregister(call)


@routes.add("DELETE", "/api/worker/pool/deregister", "Leave", role=Access.WORKER, body=NameBody, response=PoolReply)
async def deregister_by_delete(call: Call) -> web.StreamResponse:
    """Do the same for clients that use DELETE."""
    return await _deregister(call)


@routes.add("GET", "/api/worker/pools", "List worker pools", role=Access.VIEWER, query=PoolQuery, response=PoolList)
async def pools(call: Call) -> web.StreamResponse:
    """Answer pools by name; one without a heartbeat for long counts as offline."""
    query: PoolQuery = call.query
    rows = await store.list_pools(
        call.context.database,
        runtime=query.runtime,
        status=query.status,
        offline_after_seconds=call.context.settings.noetl_runtime_offline_seconds,
        limit=query.limit + 1,
        offset=query.offset,
    )
    shown, headers = truncated(rows, query.limit)
    items = [
        {**dict(row), **{key: time_offset(row[key]) for key in ("heartbeat", "created_at", "updated_at")}}
        for row in shown
    ]
    document = {"items": items, "count": len(items), "runtime": query.runtime, "status": query.status, "error": None}
    return reply(document, headers=headers)


@routes.add("GET", "/api/pool/status", "Load of the database pool", role=Access.VIEWER, response=PoolStatus)
async def pool_status(call: Call) -> web.StreamResponse:
    """Answer what workers read to slow down while the database is busy."""
    database = call.context.database
    used = database.size - database.idle
    free = max(0, database.size_max - used - database.waiting)
    return reply(
        {
            "pool_min": database.size_min,
            "pool_max": database.size_max,
            "pool_size": database.size,
            "pool_available": database.idle,
            "requests_waiting": database.waiting,
            "utilization": round(used / database.size_max, 3),
            "slots_available": free,
            "status": "ok",
        }
    )
