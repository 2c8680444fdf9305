"""Read requests for servers that nobody recorded: the ids come from their own lists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from services.dev.parity.recordings import Request
from services.dev.parity.server import Server

COMMANDS_PER_EXECUTION = 3
_JSON = {"Content-Type": "application/json"}

# Requests that need no ids: the fixed routes, and what is wrong with a request.
FIXED = (
    "/health",
    "/api/health",
    "/api/executions",
    "/api/executions?page=1&page_size=3",
    "/api/executions?page=2&page_size=10",
    "/api/executions?page=0",
    "/api/executions?page=9999",
    "/api/executions?page=x",
    "/api/executions/",
    "/api/executions/1",
    "/api/executions/1/status",
    "/api/executions/1/events",
    "/api/executions/1/cancellation-check",
    "/api/executions/abc",
    "/api/executions/abc/status",
    "/api/commands/1",
    "/api/commands/abc",
    "/api/credentials",
    "/api/credentials?q=local",
    "/api/credentials?type=postgres",
    "/api/credentials/none_such",
    "/api/vars/abc",
    "/api/worker/pools",
    "/api/worker/pools?status=zzz",
    "/api/pool/status",
    "/api/keychain/abc/none",
    "/api/result/resolve",
    "/api/result/resolve?ref=zzz",
    "/api/replay/state",
    "/api/replay/state?execution_id=1",
    "/api/dashboard/stats",
    "/api/dashboard/widgets",
    "/api/db/validate",
    "/api/nope",
)
_PER_EXECUTION = (
    "/api/executions/{id}",
    "/api/executions/{id}?include_events=false",
    "/api/executions/{id}?page=2&page_size=10",
    "/api/executions/{id}?page_size=9",
    "/api/executions/{id}?event_type=call.done",
    "/api/executions/{id}/status",
    "/api/executions/{id}/status?full=true",
    "/api/executions/{id}/events",
    "/api/executions/{id}/events?page=2&page_size=10",
    "/api/executions/{id}/events?page=999",
    "/api/executions/{id}/cancellation-check",
    "/api/vars/{id}",
    "/api/replay/state?execution_id={id}",
)
_READING_POSTS = ("/api/catalog/list", "/api/catalog/agents/list", "/api/catalog/resource", "/api/context/render")


def reads_only(request: Request) -> bool:
    """Whether a request changes nothing: GET, HEAD, OPTIONS, and the POSTs that only ask."""
    path = request.path.partition("?")[0]
    return request.is_read or (request.method == "POST" and (path in _READING_POSTS or path.endswith("/analyze")))


@dataclass(slots=True)
class Found:
    """What a server has, some of each."""

    executions: list[str] = field(default_factory=list)
    commands: list[int] = field(default_factory=list)
    documents: list[tuple[str, int, str]] = field(default_factory=list)  # path, version, catalog id
    credentials: list[str] = field(default_factory=list)


async def discover(server: Server, *, limit: int) -> Found:
    """Ask for at most `limit` executions, documents and credentials each.

    Raises:
        ServerError: the server does not answer.
    """
    found = Found()
    listed = await server.json("GET", f"/api/executions?page=1&page_size={limit}")
    found.executions = [str(item["execution_id"]) for item in _objects(listed, "execution_id")][:limit]
    for execution in found.executions:
        answer = await server.json("GET", f"/api/executions/{execution}/events?event_type=command.issued&page_size=10")
        events = answer.get("events") if isinstance(answer, dict) else None
        found.commands += [item["event_id"] for item in _objects(events, "event_id")][:COMMANDS_PER_EXECUTION]
    answer = await server.json("POST", "/api/catalog/list", {})
    entries = answer.get("entries") if isinstance(answer, dict) else None
    found.documents = [
        (str(item["path"]), int(item.get("version") or 1), str(item.get("catalog_id")))
        for item in _objects(entries, "path")
    ][:limit]
    answer = await server.json("GET", "/api/credentials")
    items = answer.get("items") if isinstance(answer, dict) else None
    found.credentials = [str(item["name"]) for item in _objects(items, "name")][:limit]
    return found


def _objects(value: object, key: str) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict) and item.get(key))


def requests_for(found: Found) -> list[Request]:
    """Return read requests about what was found, and the fixed ones."""
    paths = [*FIXED]
    for execution in found.executions:
        paths += [template.format(id=execution) for template in _PER_EXECUTION]
    paths += [f"/api/commands/{event}" for event in found.commands]
    paths += [f"/api/credentials/{quote(name, safe='')}" for name in found.credentials]
    paths += [f"/api/catalog/{quote(path)}/ui_schema" for path in dict.fromkeys(path for path, _, _ in found.documents)]
    made = [Request(name=f"{number:04d}", method="GET", path=path) for number, path in enumerate(paths)]
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/api/catalog/list", {"resource_type": "zzz"}),
        ("/api/catalog/agents/list", {}),
        ("/api/catalog/resource", {}),
        ("/api/catalog/resource", {"path": "none/such"}),
    ]
    for path, version, catalog_id in found.documents:
        bodies += [
            ("/api/catalog/list", {"path": path}),
            ("/api/catalog/resource", {"path": path, "version": version}),
            ("/api/catalog/resource", {"catalog_id": catalog_id}),
        ]
    return made + [
        Request(name=f"{number:04d}", method="POST", path=path, headers=_JSON, body=json.dumps(body))
        for number, (path, body) in enumerate(bodies, start=len(made))
    ]
