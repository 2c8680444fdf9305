"""/api/catalog: register, list and read versions of documents. An entry never changes, so nothing here is ever stale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field, model_validator

from services.api.auth.roles import Access
from services.api.http import Call, HttpError, RouteTable, not_found, reply
from services.api.inputs import Answer, OptionalKey, Page, ShortText, Version, truncated
from services.api.models import Id, Lax
from services.api.registration import Registered, catalog_kind, register, warning_headers
from services.api.store import catalog as store
from shared.engine import limits

LIST_MAX = 1000  # entries in one answer
BATCH_MAX = 500  # documents of one batch
CAPABILITIES_MAX = 100
CONTENT_CHARS_MAX = 2 * limits.PLAYBOOK_BYTES_MAX  # base64 is a third longer than the document

routes = RouteTable("catalog")


class RegisterBody(Lax):
    """Body of `POST /api/catalog/register`."""

    content: str = Field(max_length=CONTENT_CHARS_MAX, description="the document: YAML, or base64 of it")
    resource_type: ShortText = Field("Playbook", description="kind of a document that names none")


class BatchBody(Lax):
    """Body of `POST /api/catalog/register/batch`."""

    items: list[RegisterBody] = Field(max_length=BATCH_MAX)


class ListBody(Page):
    """Body of `POST /api/catalog/list`; everything is optional."""

    resource_type: OptionalKey = None
    path: OptionalKey = None
    agent_only: bool = False
    capability: OptionalKey = None
    capabilities: Annotated[list[ShortText] | None, Field(max_length=CAPABILITIES_MAX)] = None
    limit: int = Field(LIST_MAX, ge=1, le=LIST_MAX)


class ResourceBody(Lax):
    """Body of `POST /api/catalog/resource`."""

    catalog_id: Id | None = None
    path: OptionalKey = None
    version: Version = None

    @model_validator(mode="after")
    def _one_identifier(self) -> ResourceBody:
        if self.catalog_id is None and self.path is None:
            raise ValueError("At least one identifier must be provided: catalog_id or path")
        return self


class RegisterReply(Answer):
    """Answer of `POST /api/catalog/register`; `warnings` only when there are some."""

    status: str
    message: str
    path: str
    version: int
    catalog_id: str
    kind: str


class Entry(Answer):
    """A version of a document."""

    catalog_id: str
    path: str
    version: int
    kind: str
    content: str | None
    layout: dict[str, Any] | None
    payload: dict[str, Any] | None
    meta: dict[str, Any] | None
    created_at: str


class Entries(Answer):
    """Answer of `POST /api/catalog/list`."""

    entries: list[Entry]


def entry_document(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry as every list and read shows it."""
    return {
        "catalog_id": str(row["catalog_id"]),
        "path": row["path"],
        "version": row["version"],
        "kind": row["kind"],
        "content": row["content"],
        "layout": row["layout"],
        "payload": row["payload"],
        "meta": row["meta"],
        "created_at": row["created_at"],
    }


def registered(done: Registered) -> dict[str, Any]:
    """Return the answer of a registration."""
    document: dict[str, Any] = {
        "status": "success",
        "message": f"Resource '{done.path}' version '{done.version}' registered.",
        "path": done.path,
        "version": done.version,
        "catalog_id": str(done.catalog_id),
        "kind": done.kind,
    }
    return {**document, "warnings": [str(warning) for warning in done.warnings]} if done.warnings else document


@routes.add(
    "POST",
    "/api/catalog/register",
    "Register a document",
    role=Access.OPERATOR,
    body=RegisterBody,
    response=RegisterReply,
    errors=(413,),
)
async def register_resource(call: Call) -> web.StreamResponse:
    """Check the document and store it as the next version of its path.

    A refusal has every problem under `problems` with line, column, key and message; warnings of a document that is stored come
    with the answer, in the headers `X-Playhead-Warnings` and `X-Playhead-Warnings-Count`, and in the entry's `meta.warnings`.
    """
    body: RegisterBody = call.body
    done = await register(call.context, content=body.content, resource_type=body.resource_type)
    return reply(registered(done), headers=warning_headers(done.warnings))


@routes.add(
    "POST",
    "/api/catalog/register/batch",
    "Register many documents",
    role=Access.OPERATOR,
    body=BatchBody,
    errors=(413,),
)
async def register_batch(call: Call) -> web.StreamResponse:
    """Register each document on its own: one that is refused does not keep the others out."""
    results: list[dict[str, Any]] = []
    for index, item in enumerate(call.body.items):
        try:
            done = await register(call.context, content=item.content, resource_type=item.resource_type)
        except HttpError as error:
            results.append({"index": index, "status": "failed", "error": str(error.detail), **error.more})
            continue
        results.append({"index": index, "status": "registered", "path": done.path, "version": done.version})
    count = sum(1 for result in results if result["status"] == "registered")
    return reply({"registered": count, "failed": len(results) - count, "results": results})


async def _list(call: Call, *, agents_only: bool) -> web.StreamResponse:
    body: ListBody = call.body
    capabilities = [*(body.capabilities or ()), *([body.capability] if body.capability else ())]
    chosen = store.EntryFilter(
        kind=catalog_kind(body.resource_type) if body.resource_type else None,
        path=body.path,
        agents_only=agents_only,
        capabilities=capabilities,
    )
    rows = await store.list_entries(call.context.database, chosen, limit=body.limit + 1, offset=body.offset)
    shown, headers = truncated(rows, body.limit)
    return reply({"entries": [entry_document(row) for row in shown]}, headers=headers)


@routes.add(
    "POST", "/api/catalog/list", "List documents, newest first", role=Access.VIEWER, body=ListBody, response=Entries
)
async def list_resources(call: Call) -> web.StreamResponse:
    """Answer every version that fits the filter; `X-Playhead-More` tells that there are more than `limit`."""
    return await _list(call, agents_only=call.body.agent_only)


@routes.add(
    "POST", "/api/catalog/agents/list", "List agents, newest first", role=Access.VIEWER, body=ListBody, response=Entries
)
async def list_agents(call: Call) -> web.StreamResponse:
    """Answer the entries that can act as agents."""
    return await _list(call, agents_only=True)


@routes.add(
    "POST",
    "/api/catalog/resource",
    "Read a document",
    role=Access.VIEWER,
    body=ResourceBody,
    response=Entry,
    errors=(404,),
)
async def resource(call: Call) -> web.StreamResponse:
    """Answer one version; the newest when none is named."""
    body: ResourceBody = call.body
    row = await store.entry(call.context.database, catalog_id=body.catalog_id, path=body.path, version=body.version)
    if row is None:
        raise not_found("Catalog entry not found")
    return reply(entry_document(row))
