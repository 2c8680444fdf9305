"""/api/runtime/*: components that announce themselves, what this server offers, and where an execution is sharded."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import AliasChoices, Field

from services.api.auth.roles import Access
from services.api.http import Call, HttpError, RouteTable, reply
from services.api.inputs import Answer, Key, ShortText
from services.api.models import Lax
from services.api.routes.health import VERSION
from services.api.routes.runtime import PoolReply, RegisterBody, register_component, unknown_component
from services.api.store import runtime as store
from shared.wire.shard import shard_for
from shared.wire.types import parse_id

SHARDS_MAX = 1024  # the Rust server's practical maximum

routes = RouteTable("workers")

Kind = Literal["worker_pool", "server_api", "broker"]  # the CHECK of the column


class ComponentBody(RegisterBody):
    """Body of `POST /api/runtime/register`."""

    kind: Annotated[Kind, Field(validation_alias=AliasChoices("kind", "component_type"))] = "worker_pool"  # type: ignore[assignment]


class ComponentHeartbeat(Lax):
    """Body of `POST /api/runtime/heartbeat`."""

    name: Key
    kind: Annotated[Kind, Field(validation_alias=AliasChoices("kind", "component_type"))] = "worker_pool"


class ShardQuery(Lax):
    """Query of `GET /api/runtime/shard-info`; texts, because the answer to a bad one is the Rust server's."""

    execution_id: ShortText
    shard_count: int


class ShardInfo(Answer):
    """Answer of `GET /api/runtime/shard-info`."""

    execution_id: int
    shard_count: int
    shard_index: int
    source: str
    hash_function: str
    seed: int
    server_config: dict[str, int]


class Contract(Answer):
    """Answer of `GET /api/runtime/contract`."""

    status: str
    service: str
    version: str
    api_base: str
    openapi: str
    asyncapi: str
    capabilities: list[str]


@routes.add(
    "POST", "/api/runtime/register", "Enter a component", role=Access.WORKER, body=ComponentBody, response=PoolReply
)
async def register(call: Call) -> web.StreamResponse:
    """Insert or overwrite a worker pool, a server or a broker by its name; it is alive as of now."""
    return reply(await register_component(call, call.body, kind=call.body.kind))


@routes.add(
    "POST",
    "/api/runtime/heartbeat",
    "Tell that a component lives",
    role=Access.WORKER,
    body=ComponentHeartbeat,
    response=PoolReply,
    errors=(404,),
)
async def heartbeat(call: Call) -> web.StreamResponse:
    """Mark the component as alive; 404 tells it to register."""
    body: ComponentHeartbeat = call.body
    row = await store.heartbeat(call.context.database, body.name, kind=body.kind)
    if row is None:
        raise unknown_component(body.name)
    return reply({"status": "ok", "name": body.name, "runtime_id": str(row["runtime_id"]), "runtime": row["runtime"]})


@routes.add("GET", "/api/runtime/contract", "What this server offers", role=Access.PUBLIC, response=Contract)
async def contract(_: Call) -> web.StreamResponse:
    """Answer what `noetl context init` asks a gateway for: where the API is and what it can do."""
    return reply(
        {
            "status": "ok",
            "service": "playhead",
            "version": VERSION,
            "api_base": "/api",
            "openapi": "/openapi.json",
            "asyncapi": "/asyncapi.json",
            "capabilities": ["execute", "events.stream", "frames", "replay", "subscriptions"],
        }
    )


@routes.add(
    "GET",
    "/api/runtime/shard-info",
    "The shard of an execution",
    role=Access.VIEWER,
    query=ShardQuery,
    response=ShardInfo,
    errors=(400,),
    rust_errors=True,
)
async def shard_info(call: Call) -> web.StreamResponse:
    """Answer the shard as the gateway and the Rust server compute it: XxHash64 of the id's eight bytes, seed 0."""
    query: ShardQuery = call.query
    if query.shard_count < 1:
        raise HttpError(400, "shard_count must be >= 1")
    if query.shard_count > SHARDS_MAX:
        raise HttpError(400, f"shard_count {query.shard_count} exceeds practical maximum {SHARDS_MAX}")
    execution_id = parse_id(query.execution_id)
    if execution_id is None:
        raise HttpError(400, f'execution_id "{query.execution_id}" is not a valid i64')
    document: dict[str, Any] = {
        "execution_id": execution_id,
        "shard_count": query.shard_count,
        "shard_index": shard_for(execution_id, query.shard_count),
        "source": "noetl-server",
        "hash_function": "twox_hash::XxHash64",
        "seed": 0,
        "server_config": {"shard_index": 0, "shard_count": 1},
    }
    return reply(document)
