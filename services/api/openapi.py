"""The OpenAPI document, made from the route tables, and a page that shows it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import orjson
from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services.api.auth.roles import Access
from services.api.http import RouteSpec, RouteTable

DOCUMENT: web.AppKey[Mapping[str, Any]] = web.AppKey("openapi", Mapping)

_REF = "#/components/schemas/{model}"
TEXT_IDS = ("suite_id",)  # path parameters that are no numbers in spite of their name
_PARAMETER = re.compile(r"\{(\w+)\}")
_ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["detail"],
    "properties": {
        "detail": {"description": "text, an object with `code` and `message`, or a list of places and fixes"}
    },
}


_BY_TOKEN: list[dict[str, list[str]]] = [{"token": []}, {"session": []}]
_SECURITY: dict[Access, list[dict[str, list[str]]]] = {
    Access.PUBLIC: [],
    Access.INTERNAL: [{"internal": []}],
    Access.INTERNAL_ADMIN: [{"internal": []}, *_BY_TOKEN],
}


GATE_ANSWERS = (401, 403, 429)  # of every route that asks who calls: no token, not the role, too often
EDGE_ANSWERS = (400, 503)  # of every route: the request is no HTTP or its head is too long; the database is away
PATH_ANSWERS = (404,)  # of every route with a parameter in its path: an empty one, or one with a slash, is another path
BODY_ANSWERS = (408, 413)  # of every route with a body: it does not come, or is too large


def _description(spec: RouteSpec) -> str:
    return " ".join((spec.handler.__doc__ or "").split())


def _parameters(spec: RouteSpec) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in _PARAMETER.findall(spec.path):
        schema: dict[str, Any] = {"type": "string"}
        if name.endswith("_id") and name not in TEXT_IDS:
            schema = {"type": "string", "pattern": "^[0-9]{1,19}$", "description": "a positive integer below 2^63"}
        found.append({"name": name, "in": "path", "required": True, "schema": schema})
    if spec.query is not None:
        schema = spec.query.model_json_schema()
        required = schema.get("required", [])
        for name, value in schema.get("properties", {}).items():
            found.append({"name": name, "in": "query", "required": name in required, "schema": value})
    for name, meaning in spec.headers:
        found.append(
            {"name": name, "in": "header", "required": False, "description": meaning, "schema": {"type": "string"}}
        )
    return found


def _schema_ref(
    schemas: Mapping[type[BaseModel], Mapping[str, Any]], model: type[BaseModel] | None
) -> Mapping[str, Any]:
    return {} if model is None else schemas[model]


def answers(spec: RouteSpec) -> list[int]:
    """Return every status that `spec` answers of its own, the good one first.

    Any route with a parameter may be refused as a whole (400) when its URL is over the 8190 bytes of the HTTP parser; any
    that needs the database may have to do without it (503).
    """
    errors = set(spec.errors)
    if spec.query is not None or _PARAMETER.search(spec.path):
        errors |= {400, 422}
    if spec.body is not None:
        errors.add(422)
    if spec.role not in (Access.PUBLIC, Access.DOCS):
        errors.add(503)
    if spec.internal:
        errors.add(403)
    return [spec.status, *sorted(errors - {spec.status})]


def _operation(spec: RouteSpec, schemas: Mapping[type[BaseModel], Mapping[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{spec.method.lower()}{re.sub(r'[^a-z0-9]+', '_', spec.path.lower())}",
        "summary": spec.summary,
        "description": _description(spec),
        "tags": [spec.tag],
        "responses": {
            str(spec.status): {
                "description": HTTPStatus(spec.status).phrase,
                "content": {spec.media_type: {"schema": _schema_ref(schemas, spec.response)}},
            }
        },
    }
    operation["responses"] |= {str(status): {"description": HTTPStatus(status).phrase} for status in spec.empty}
    parameters = _parameters(spec)
    if parameters:
        operation["parameters"] = parameters
    if spec.body is not None:
        operation["requestBody"] = {
            "required": spec.body_required,
            "content": {"application/json": {"schema": _schema_ref(schemas, spec.body)}},
        }
    operation["security"] = _SECURITY.get(spec.role, _BY_TOKEN)
    operation["x-playhead-role"] = spec.role.value
    if spec.elevated is not None:
        operation["x-playhead-elevated"] = {spec.elevated[0]: spec.elevated[1].value}
    gate = () if spec.internal or spec.role is Access.PUBLIC else GATE_ANSWERS
    edge = {
        *EDGE_ANSWERS,
        *(BODY_ANSWERS if spec.body else ()),
        *(PATH_ANSWERS if _PARAMETER.search(spec.path) else ()),
    }
    for status in sorted({*answers(spec)[1:], *gate, *edge}):
        content: dict[str, Any] = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        if status == HTTPStatus.BAD_REQUEST:
            content["text/plain"] = {"schema": {"type": "string", "description": "the HTTP server itself refuses it"}}
        operation["responses"][str(status)] = {"description": HTTPStatus(status).phrase, "content": content}
    return operation


def openapi_document(tables: Iterable[RouteTable]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of `tables`."""
    specs = [spec for table in tables for spec in table.specs]
    models = {model for spec in specs for model in (spec.body, spec.response) if model is not None}
    ordered = sorted(models, key=lambda model: (model.__module__, model.__qualname__))
    mapping, definitions = models_json_schema([(model, "validation") for model in ordered], ref_template=_REF)
    schemas = {model: mapping[(model, "validation")] for model in ordered}
    paths: dict[str, dict[str, Any]] = {}
    for spec in specs:
        paths.setdefault(spec.path, {})[spec.method.lower()] = _operation(spec, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Playhead",
            "version": version("playhead"),
            "description": "Control plane for event-sourced playbooks, wire-compatible with the NoETL server.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {**definitions.get("$defs", {}), "Error": _ERROR_SCHEMA},
            "securitySchemes": {
                "internal": {"type": "http", "scheme": "bearer", "description": "NOETL_INTERNAL_API_TOKEN"},
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "token or JWT with the role in `x-playhead-role`; NOETL_AUTH_MODE=off asks for none",
                },
                "session": {"type": "apiKey", "in": "header", "name": "X-Session-Token", "description": "the same"},
            },
        },
    }


_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h2{margin-top:2.5rem;border-bottom:1px solid #d0d7de}
details{border:1px solid #d0d7de;border-radius:6px;margin:.4rem 0;padding:.4rem .8rem}
summary{cursor:pointer}
code,pre{font:13px/1.45 ui-monospace,monospace}
pre{background:#f6f8fa;padding:.6rem;overflow:auto;max-height:24rem}
.m{display:inline-block;min-width:4.2rem;font-weight:600}
@media (prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}pre{background:#161b22}
h2,details{border-color:#30363d}a{color:#58a6ff}}
"""


def _resolved(schema: Any, schemas: Mapping[str, Any], seen: tuple[str, ...] = ()) -> Any:
    """Return `schema` with its references replaced, once per way down."""
    if isinstance(schema, dict):
        ref = schema.get("$ref")
        if isinstance(ref, str):
            name = ref.rpartition("/")[2]
            return {"$ref": ref} if name in seen else _resolved(schemas.get(name, {}), schemas, (*seen, name))
        return {key: _resolved(value, schemas, seen) for key, value in schema.items() if key != "title"}
    if isinstance(schema, list):
        return [_resolved(item, schemas, seen) for item in schema]
    return schema


def _block(title: str, schema: Any, schemas: Mapping[str, Any]) -> str:
    if not schema:
        return ""
    text = orjson.dumps(_resolved(schema, schemas), option=orjson.OPT_INDENT_2).decode()
    return f"<p>{escape(title)}</p><pre>{escape(text)}</pre>"


def _section(method: str, path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    parts = [f"<p>{escape(operation['description'])}</p>"]
    parts += [
        f"<p><code>{escape(item['name'])}</code> in {item['in']}{', required' if item['required'] else ''}</p>"
        for item in operation.get("parameters", ())
    ]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    parts.append(_block("Request body", body, schemas))
    for status, response in operation["responses"].items():
        for media, content in response.get("content", {}).items():
            shown = content["schema"] if status < "300" else {}
            parts.append(f"<p>{escape(status)} {escape(response['description'])} <code>{escape(media)}</code></p>")
            parts.append(_block("", shown, schemas).replace("<p></p>", ""))
    role = operation["x-playhead-role"]
    gate = f" 🔒 {escape(role)}" if operation.get("security") else ""
    head = f"<span class=m>{method.upper()}</span><code>{escape(path)}</code> {escape(operation['summary'])}{gate}"
    return f"<details><summary>{head}</summary>{''.join(parts)}</details>"


def docs_page(document: Mapping[str, Any]) -> str:
    """Return the document as one HTML page, grouped by tag."""
    schemas = document["components"]["schemas"]
    groups: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            groups.setdefault(operation["tags"][0], []).append(_section(method, path, operation, schemas))
    info = document["info"]
    body = "".join(f"<h2 id={escape(tag)}>{escape(tag)}</h2>{''.join(items)}" for tag, items in groups.items())
    links = " · ".join(f'<a href="#{escape(tag)}">{escape(tag)}</a>' for tag in groups)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style>"
        f"<h1>{escape(info['title'])} API {escape(info['version'])}</h1><p>{escape(info['description'])}</p>"
        f"<p>Machine-readable: <a href='/openapi.json'>/openapi.json</a>, <a href='/asyncapi.json'>/asyncapi.json</a></p>"
        f"<p>{links}</p>{body}</html>"
    )
