"""MCP: playbooks as tools over JSON-RPC, and the lifecycle and tool lists of registered MCP servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import yaml
from aiohttp import web
from pydantic import BaseModel, Field

from services.api import views
from services.api.auth.roles import Access
from services.api.discovery import fetch_tools
from services.api.http import Call, HttpError, RouteTable, not_found, reply
from services.api.inputs import Version, path_text
from services.api.models import Lax
from services.api.outbound import outbound
from services.api.playbooks import EXECUTABLE_KINDS
from services.api.redaction import redact
from services.api.registration import register
from services.api.routes.executions import execution_header
from services.api.starting import start_execution
from services.api.store import catalog as store
from services.api.store.database import Row
from services.api.store.queries import queries
from services.api.ui_schema import input_schema
from services.api.waiting import wait_for_end
from shared.engine import PlaybookError, read_document

routes = RouteTable("mcp")

_EXECUTION = queries("execution")
PROTOCOL_VERSION = "2024-11-05"
PROTOCOL_CHARS_MAX = 64
SERVER_INFO = {"name": "noetl-playbook-mcp", "version": "1.0"}
POLL_SECONDS = 1.5
TEXT_CHARS_MAX = 8000
RESERVED = ("mcp_resource", "verb")

METHOD_NOT_FOUND, INVALID_PARAMS, INVALID_REQUEST, INTERNAL_ERROR = -32601, -32602, -32600, -32603
TIMED_OUT, ACCESS_DENIED = -32011, -32020


class RpcBody(Lax):
    """A JSON-RPC 2.0 request."""

    jsonrpc: Any = None
    id: Any = None
    method: Any = None
    params: Any = None


class RpcReply(BaseModel):
    """A JSON-RPC 2.0 answer: `result` or `error`."""

    jsonrpc: str
    id: Any
    result: Any = None
    error: dict[str, Any] | None = None


class LifecycleBody(Lax):
    """Body of `POST /api/mcp/{path}/lifecycle/{verb}`; may be absent."""

    workload_overrides: dict[str, Any] | None = None
    version: Version = None


class LifecycleReply(BaseModel):
    """Answer of `POST /api/mcp/{path}/lifecycle/{verb}`."""

    status: str
    verb: str
    mcp_path: str
    mcp_version: int
    agent_path: str
    execution_id: str


class DiscoverBody(Lax):
    """Body of `POST /api/mcp/{path}/discover`; may be absent."""

    version: Version = None
    force: bool = Field(False, description="store a new version even when the tools are the same")


class DiscoverReply(BaseModel):
    """Answer of `POST /api/mcp/{path}/discover`."""

    status: str
    mcp_path: str
    mcp_version_old: int
    mcp_version_new: int | None
    strategy: str
    execution_id: str | None
    tool_count_before: int | None
    tool_count_after: int | None


class RpcError(Exception):
    """A request that is answered with a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


def _mapping(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


async def _entry(call: Call, path: str, version: int | None) -> Row:
    row = await store.entry_by_path(call.context.database, path, version)
    if row is None:
        raise not_found(f"resource not found: {path}@{version or 'latest'}")
    return row


async def _start(call: Call, path: str, workload: Mapping[str, Any]) -> int:
    entry = await call.context.playbooks.find(path=path, catalog_id=None, version=None)
    return (await start_execution(call.context, entry, payload=workload)).execution_id


# --- a playbook as a tool ---------------------------------------------------------------------------------------------


async def _tool(call: Call, path: str) -> dict[str, Any]:
    row = await _entry(call, path, None)
    kind = row["kind"]
    if kind not in EXECUTABLE_KINDS:
        raise HttpError(400, f"resource '{path}' is kind='{kind}'; playbook-as-MCP requires kind 'playbook' or 'agent'")
    metadata = _mapping(_mapping(row["payload"]).get("metadata"))
    if metadata.get("exposes_as_mcp") is False:
        text = "set it to true (or omit) to expose via MCP"
        raise HttpError(403, f"playbook '{path}' has metadata.exposes_as_mcp=false; {text}")
    name = str(metadata.get("name") or path).strip().replace("/", ".").replace(" ", "_")
    description = metadata.get("description") or (
        f"NoETL {kind} '{path}'. Invoking this tool dispatches the playbook "
        "with the supplied workload and waits for completion."
    )
    return {
        "name": name or "noetl_playbook",
        "description": description,
        "inputSchema": input_schema(row["content"] or ""),
    }


def _readable(document: Mapping[str, Any]) -> str:
    """Return what a model reads of a run: the text that its result has, else the whole as JSON."""
    result = _mapping(document["result"])
    for key in ("text", "summary", "message", "user_message", "output"):
        value = result.get(key)
        if isinstance(value, Mapping):
            value = next((value[inner] for inner in ("text", "summary", "message") if value.get(inner)), None)
        if isinstance(value, str) and value.strip():
            return value
    text = orjson.dumps(document, default=str, option=orjson.OPT_SORT_KEYS).decode()
    return text if len(text) <= TEXT_CHARS_MAX else text[:TEXT_CHARS_MAX] + "...[truncated]"


async def _call_tool(call: Call, path: str, params: Mapping[str, Any]) -> dict[str, Any]:
    tool = await _tool(call, path)
    wanted, arguments = params.get("name"), params.get("arguments")
    if wanted and wanted != tool["name"]:
        text = f"tool '{str(wanted)[:200]}' is not exposed by this endpoint; expected '{tool['name']}'"
        raise RpcError(INVALID_PARAMS, text)
    if arguments is not None and not isinstance(arguments, Mapping):
        raise RpcError(INVALID_PARAMS, "params.arguments must be an object")
    execution_id = await _start(call, path, arguments or {})
    seconds = call.context.settings.mcp_playbook_call_timeout_seconds
    terminal = await wait_for_end(
        call.context, execution_id, timeout_seconds=seconds, poll_seconds=min(POLL_SECONDS, seconds)
    )
    status = views.status_document(await execution_header(call, execution_id), full=False)
    if terminal is None:
        text = f"playbook '{path}' did not reach terminal status within {seconds:.0f}s; check execution {execution_id}"
        raise RpcError(TIMED_OUT, text, {"execution_id": str(execution_id), "status": status})
    found = await call.context.database.fetchrow(_EXECUTION["terminal_result"], execution_id)
    result = _mapping(found["result"]).get("context") if found is not None else None
    return {
        "content": [{"type": "text", "text": _readable({**status, "result": redact(result)})}],
        "isError": status["status"] != "COMPLETED",
        "_meta": {"noetl_execution_id": str(execution_id), "noetl_path": path},
    }


async def _rpc(call: Call, path: str, body: RpcBody) -> dict[str, Any]:
    params = {} if body.params is None else body.params
    if not isinstance(params, Mapping):
        raise RpcError(INVALID_PARAMS, "params must be an object")
    match body.method:
        case "initialize":
            version = str(params.get("protocolVersion") or PROTOCOL_VERSION)[:PROTOCOL_CHARS_MAX]
            capabilities = {"tools": {"listChanged": False}}
            return {"protocolVersion": version, "capabilities": capabilities, "serverInfo": SERVER_INFO}
        case "ping":
            return {}
        case "tools/list":
            return {"tools": [await _tool(call, path)]}
        case "tools/call":
            return await _call_tool(call, path, params)
    method = body.method[:200] if isinstance(body.method, str) else ""
    supported = "initialize, tools/list, tools/call, ping"
    raise RpcError(METHOD_NOT_FOUND, f"method '{method}' is not implemented; supported: {supported}")


def _code(status: int) -> int:
    if status in (401, 403):
        return ACCESS_DENIED
    return INVALID_REQUEST if status in (400, 404, 422) else INTERNAL_ERROR


@routes.add(
    "POST",
    "/api/mcp/playbook/{path}/jsonrpc",
    "A playbook as an MCP server",
    role=Access.RUNNER,
    body=RpcBody,
    response=RpcReply,
)
async def jsonrpc(call: Call) -> web.StreamResponse:
    """Answer initialize, ping, tools/list and tools/call; errors are JSON-RPC errors with status 200. A call runs the playbook
    and waits for its end."""
    path = path_text(call, "path")
    body: RpcBody = call.body
    envelope = {"jsonrpc": "2.0", "id": body.id}
    try:
        return reply({**envelope, "result": await _rpc(call, path, body)})
    except RpcError as error:
        failure: dict[str, Any] = {"code": error.code, "message": str(error)}
        return reply({**envelope, "error": {**failure, "data": error.data} if error.data else failure})
    except HttpError as error:
        message = error.detail if isinstance(error.detail, str) else _first(error.detail)
        failure = {"code": _code(error.status), "message": message, "data": {"http_status": error.status}}
        return reply({**envelope, "error": failure})


def _first(detail: object) -> str:
    """Return the text of a structured detail."""
    item = detail[0] if isinstance(detail, list) and detail else detail
    return str(item.get("msg") or item.get("message") or item) if isinstance(item, Mapping) else str(item)


# --- registered MCP servers -------------------------------------------------------------------------------------------


async def _resource(call: Call, version: int | None) -> tuple[Row, dict[str, Any]]:
    path = path_text(call, "path")
    row = await _entry(call, path, version)
    if row["kind"] != "mcp":
        raise HttpError(400, f"resource '{path}' is kind='{row['kind']}', expected 'mcp'")
    try:
        document = read_document(row["content"] or "").data
    except PlaybookError as error:
        raise HttpError(422, f"Mcp resource '{path}' has unparseable payload: {error}") from error
    return row, document


def _described(row: Row, document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "path": row["path"],
        "version": row["version"],
        "spec": _mapping(document.get("spec")),
        "metadata": _mapping(document.get("metadata")),
    }


@routes.add(
    "POST",
    "/api/mcp/{path}/lifecycle/{verb}",
    "Run the agent of a lifecycle verb",
    role=Access.OPERATOR,
    body=LifecycleBody,
    body_required=False,
    response=LifecycleReply,
    errors=(400, 404, 503),
)
async def lifecycle(call: Call) -> web.StreamResponse:
    """Start the agent that `spec.lifecycle.<verb>` of the resource names, with the resource as its workload."""
    body: LifecycleBody = call.body
    verb = path_text(call, "verb").strip().lower()
    row, document = await _resource(call, body.version)
    verbs = _mapping(_mapping(document.get("spec")).get("lifecycle"))
    agent = verbs.get(verb)
    if not isinstance(agent, str) or not agent:
        known = f"(known verbs: {sorted(map(str, verbs))})"
        raise HttpError(422, f"Mcp resource '{row['path']}' does not declare lifecycle verb '{verb}' {known}")
    overrides = body.workload_overrides or {}
    taken = sorted(key for key in overrides if key in RESERVED)
    if taken:
        raise HttpError(422, f"workload_overrides cannot override reserved fields: {taken}")
    workload = {"mcp_resource": _described(row, document), "verb": verb, **overrides}
    return reply(
        {
            "status": "started",
            "verb": verb,
            "mcp_path": row["path"],
            "mcp_version": row["version"],
            "agent_path": agent,
            "execution_id": str(await _start(call, agent, workload)),
        }
    )


@routes.add(
    "POST",
    "/api/mcp/{path}/discover",
    "Refresh the tool list of an MCP server",
    role=Access.OPERATOR,
    body=DiscoverBody,
    body_required=False,
    response=DiscoverReply,
    errors=(400, 404, 502, 503),
)
async def discover(call: Call) -> web.StreamResponse:
    """Run the agent that `spec.discovery.refresh_via` names; or read `spec.discovery.tools_list_url` and store a new version of
    the resource when the tools changed."""
    body: DiscoverBody = call.body
    row, document = await _resource(call, body.version)
    spec = _mapping(document.get("spec"))
    found = _mapping(spec.get("discovery"))
    answer: dict[str, Any] = {
        "status": "started",
        "mcp_path": row["path"],
        "mcp_version_old": row["version"],
        "mcp_version_new": None,
        "strategy": "agent",
        "execution_id": None,
        "tool_count_before": None,
        "tool_count_after": None,
    }
    if found.get("refresh_via"):
        workload = {"mcp_resource": _described(row, document), "verb": "discover", "force": body.force}
        return reply({**answer, "execution_id": str(await _start(call, str(found["refresh_via"]), workload))})
    if not found.get("tools_list_url"):
        text = "(set spec.discovery.refresh_via or spec.discovery.tools_list_url)"
        raise HttpError(422, f"Mcp resource '{row['path']}' has no discovery configured {text}")
    hosts = call.context.settings.noetl_mcp_discovery_hosts.lower().replace(",", " ").split()
    with outbound("mcp"):
        tools = await fetch_tools(str(found["tools_list_url"]), allowed_hosts=hosts)
    before = spec["tools"] if isinstance(spec.get("tools"), list) else []
    answer |= {"strategy": "direct", "tool_count_before": len(before), "tool_count_after": len(tools)}
    if body.force or _names(before) != _names(tools):
        updated = {**document, "spec": {**spec, "tools": tools}}
        text = yaml.safe_dump(updated, sort_keys=False, allow_unicode=True)
        done = await register(call.context, content=text, resource_type="mcp", path=row["path"])
        answer |= {"status": "updated", "mcp_version_new": done.version}
    return reply(answer)


def _names(tools: list[Any]) -> list[tuple[str, str]]:
    """Return what tells two tool lists apart."""
    pairs = (
        (str(item.get("name") or ""), str(item.get("title") or "")) if isinstance(item, Mapping) else (str(item), "")
        for item in tools
    )
    return sorted(pairs)
