"""/openapi.json, /docs, /asyncapi.json and the playbook schema: the contracts, made from the code that serves them."""

from __future__ import annotations

from aiohttp import web

from services.api.auth.roles import Access
from services.api.http import Call, RouteTable, reply
from services.api.openapi import DOCUMENT, docs_page
from shared.engine.schema import playbook_schema
from shared.messaging.asyncapi import asyncapi_document

routes = RouteTable("documents")
_SCHEMA = playbook_schema()


@routes.add("GET", "/openapi.json", "The HTTP contract (OpenAPI 3.1)", role=Access.DOCS)
async def openapi(call: Call) -> web.StreamResponse:
    """Answer the document of every public and internal route."""
    return reply(call.request.app[DOCUMENT])


@routes.add("GET", "/docs", "The HTTP contract, to read", role=Access.DOCS, media_type="text/html")
async def docs(call: Call) -> web.StreamResponse:
    """Answer one self-contained page: no script, nothing from elsewhere."""
    return web.Response(text=docs_page(call.request.app[DOCUMENT]), content_type="text/html")


@routes.add("GET", "/asyncapi.json", "Subjects and messages on NATS (AsyncAPI 3.0)", role=Access.DOCS)
async def asyncapi(_: Call) -> web.StreamResponse:
    """Answer the document of what goes over NATS."""
    return reply(asyncapi_document())


@routes.add("GET", "/schema/playbook.json", "JSON Schema of the playbook language, for editors", role=Access.DOCS)
async def schema(_: Call) -> web.StreamResponse:
    """Answer what `playhead schema` prints."""
    return reply(_SCHEMA)
