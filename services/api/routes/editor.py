"""What the GUI's editor and run dialog need of the catalog: content, saving, checking, deleting, the form of a workload."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from pydantic import BaseModel, Field

from services.api.auth.roles import Access
from services.api.http import Call, HttpError, RouteTable, not_found, reply
from services.api.inputs import Key, Page, Version, path_text, truncated
from services.api.models import Lax
from services.api.registration import catalog_kind, check_document, decoded, register, warning_headers
from services.api.routes.catalog import (
    CONTENT_CHARS_MAX,
    LIST_MAX,
    Entries,
    Entry,
    RegisterReply,
    ResourceBody,
    entry_document,
    registered,
)
from services.api.store import catalog as store
from services.api.store.database import Row
from services.api.ui_schema import form_fields
from services.api.views import time_z

routes = RouteTable("catalog")


class ContentQuery(Lax):
    """Which playbook: a path of the catalog, or the digits of a catalog id."""

    playbook_id: Key


class ContentBody(Lax):
    """The text to save or check."""

    content: str = Field(max_length=CONTENT_CHARS_MAX, description="the document: YAML, or base64 of it")
    resource_type: Key = Field("Playbook", description="kind of a document that names none")


class ContentReply(BaseModel):
    """Answer of `GET /api/catalog/playbook/content`."""

    content: str | None
    catalog_id: str
    path: str
    version: int
    kind: str


class ValidateReply(BaseModel):
    """Answer of `POST /api/catalog/playbooks/validate`; `problems` have line, column, key and severity."""

    valid: bool
    errors: list[str]
    warnings: list[str]
    problems: list[dict[str, Any]]


class DeleteReply(BaseModel):
    """Answer of `DELETE /api/catalog/playbooks/{playbook}`."""

    status: str
    message: str
    deleted: int


class VersionQuery(Lax):
    """Which version; the newest when absent."""

    version: Version = None


class ListQuery(Page):
    """Paging of a list."""

    limit: int = Field(LIST_MAX, ge=1, le=LIST_MAX)


class FormField(BaseModel):
    """One field of a form; `children` of an object, `options` of an enum."""

    name: str
    kind: str
    default: Any
    description: str | None
    secret: bool
    credential_glob: str | None
    options: list[Any] | None
    children: list[FormField] | None


class FormReply(BaseModel):
    """Answer of `GET /api/catalog/{path}/ui_schema`."""

    path: str
    version: int
    kind: str
    title: str | None
    description_markdown: str | None
    exposed_in_ui: bool
    fields: list[FormField]
    generated_at: datetime


@routes.add(
    "GET",
    "/api/catalog/resource",
    "Read a document",
    role=Access.VIEWER,
    query=ResourceBody,
    response=Entry,
    errors=(404,),
)
async def resource(call: Call) -> web.StreamResponse:
    """As `POST /api/catalog/resource`, with the names in the query."""
    query: ResourceBody = call.query
    row = await store.entry(call.context.database, catalog_id=query.catalog_id, path=query.path, version=query.version)
    if row is None:
        raise not_found("Catalog entry not found")
    return reply(entry_document(row))


@routes.add(
    "GET",
    "/api/catalog/list/{resource_type}",
    "List documents of a kind, newest first",
    role=Access.VIEWER,
    query=ListQuery,
    response=Entries,
)
async def list_of_kind(call: Call) -> web.StreamResponse:
    """As `POST /api/catalog/list`, for old CLIs."""
    query: ListQuery = call.query
    chosen = store.EntryFilter(kind=catalog_kind(path_text(call, "resource_type")))
    rows = await store.list_entries(call.context.database, chosen, limit=query.limit + 1, offset=query.offset)
    shown, headers = truncated(rows, query.limit)
    return reply({"entries": [entry_document(row) for row in shown]}, headers=headers)


async def _entry(call: Call, reference: str) -> Row:
    row = await store.newest_of(call.context.database, reference)
    if row is None:
        raise not_found(f"Playbook '{reference}' not found")
    return row


@routes.add(
    "GET",
    "/api/catalog/playbook/content",
    "Read a playbook's text",
    role=Access.VIEWER,
    query=ContentQuery,
    response=ContentReply,
    errors=(404,),
)
async def content(call: Call) -> web.StreamResponse:
    """Answer the text of the newest version."""
    row = await _entry(call, call.query.playbook_id)
    return reply(
        {
            "content": row["content"],
            "catalog_id": str(row["catalog_id"]),
            "path": row["path"],
            "version": row["version"],
            "kind": row["kind"],
        }
    )


@routes.add(
    "PUT",
    "/api/catalog/playbook",
    "Save a playbook as a new version",
    role=Access.OPERATOR,
    query=ContentQuery,
    body=ContentBody,
    response=RegisterReply,
    errors=(404, 413),
)
@routes.add(
    "PUT",
    "/api/catalog/playbook/content",
    "Save a playbook's text as a new version",
    role=Access.OPERATOR,
    query=ContentQuery,
    body=ContentBody,
    response=RegisterReply,
    errors=(404, 413),
)
async def save(call: Call) -> web.StreamResponse:
    """Check the text and store it as the next version of the playbook, whose path it must name; earlier versions stay."""
    body: ContentBody = call.body
    row = await _entry(call, call.query.playbook_id)
    done = await register(call.context, content=body.content, resource_type=body.resource_type, path=row["path"])
    return reply(registered(done), headers=warning_headers(done.warnings))


@routes.add(
    "POST",
    "/api/catalog/playbooks/validate",
    "Check a document without storing it",
    role=Access.VIEWER,
    body=ContentBody,
    response=ValidateReply,
    errors=(413,),
)
async def validate(call: Call) -> web.StreamResponse:
    """Answer 200 whatever is found, every problem with its line and key."""
    body: ContentBody = call.body
    try:
        checked = await check_document(call.context, decoded(body.content), body.resource_type)
    except HttpError as error:
        problems = error.more.get("problems")
        unplaced = [{"message": str(error.detail), "severity": "error"}]
        return reply(_verdict(problems if isinstance(problems, list) else unplaced))
    return reply(_verdict([asdict(problem) for problem in checked.warnings]))


def _verdict(problems: list[dict[str, Any]]) -> dict[str, Any]:
    def texts(severity: str) -> list[str]:
        return [_said(problem) for problem in problems if problem.get("severity") == severity]

    errors = texts("error")
    return {"valid": not errors, "errors": errors, "warnings": texts("warning"), "problems": problems}


def _said(problem: dict[str, Any]) -> str:
    place = f"line {problem['line']}, column {problem['column']}: " if problem.get("line") else ""
    key = f"{problem['key']}: " if problem.get("key") else ""
    return f"{place}{key}{problem['message']}"


@routes.add(
    "DELETE",
    "/api/catalog/playbooks/{playbook}",
    "Delete a playbook that nothing refers to",
    role=Access.ADMIN,
    response=DeleteReply,
    errors=(404, 409),
)
async def delete(call: Call) -> web.StreamResponse:
    """Delete one entry by its catalog id, or every version of a path. One that has run is part of a history and stays: 409."""
    reference = path_text(call, "playbook")
    try:
        rows = await store.delete(call.context.database, reference)
    except store.EntryInUseError as error:
        raise HttpError(409, f"Playbook '{reference}' is used by {error}; what has run is kept") from error
    if not rows:
        raise not_found(f"Playbook '{reference}' not found")
    message = f"Deleted {len(rows)} version(s) of '{rows[0]['path']}'"
    return reply({"status": "success", "message": message, "deleted": len(rows)})


@routes.add(
    "GET",
    "/api/catalog/{path}/ui_schema",
    "The form of a workload",
    role=Access.VIEWER,
    query=VersionQuery,
    response=FormReply,
    errors=(404,),
)
async def ui_schema(call: Call) -> web.StreamResponse:
    """Answer the fields of `workload:` with their defaults, and the hints in the comments behind them."""
    path = path_text(call, "path")
    version: int | None = call.query.version
    row = await store.entry_by_path(call.context.database, path, version)
    if row is None:
        raise not_found(f"resource not found: {path}@{version or 'latest'}")
    metadata = (row["payload"] or {}).get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    return reply(
        {
            "path": row["path"],
            "version": row["version"],
            "kind": row["kind"],
            "title": metadata.get("name"),
            "description_markdown": metadata.get("description"),
            "exposed_in_ui": bool(metadata.get("exposed_in_ui", False)),
            "fields": form_fields(row["content"] or ""),
            "generated_at": time_z(datetime.now(UTC)),
        }
    )
