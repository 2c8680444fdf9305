"""/api/credentials: named secrets. Data is never shown but with `include_data=true`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from aiohttp import web
from pydantic import AliasChoices, BeforeValidator, Field, StringConstraints

from services.api.auth.roles import Access
from services.api.http import Call, RouteTable, not_found, reply
from services.api.inputs import Answer, Key, OptionalKey, Page, ShortText, Text, path_text, truncated
from services.api.models import Id, Lax
from services.api.secrets_at_rest import seal, unseal
from services.api.store import credentials as store
from services.api.store import keychain
from services.api.views import time_offset

LIST_MAX = 1000  # credentials in one answer
TAGS_MAX = 100
CACHE_SECONDS = 3600.0  # a copy in the keychain is used for an hour, as in the original

routes = RouteTable("credentials")


def _split_tags(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class CredentialBody(Lax):
    """Body of `POST /api/credentials`."""

    name: Annotated[Key, StringConstraints(strip_whitespace=True, min_length=1)]
    type: Annotated[Key, Field(validation_alias=AliasChoices("type", "credential_type"))] = "generic"
    data: dict[str, Any]
    meta: dict[str, Any] | None = None
    tags: Annotated[
        list[ShortText] | None, BeforeValidator(_split_tags), Field(max_length=TAGS_MAX, description="a list or a,b,c")
    ] = None
    description: Text | None = None


class CredentialQuery(Page):
    """Query of `GET /api/credentials`."""

    type: OptionalKey = None
    q: Annotated[OptionalKey, Field(description="part of the name or description")] = None
    limit: int = Field(LIST_MAX, ge=1, le=LIST_MAX)


class ReadQuery(Lax):
    """Query of `GET /api/credentials/{identifier}`."""

    include_data: bool = False
    catalog_id: Id | None = None
    execution_id: Id | None = None
    parent_execution_id: Id | None = None


class Credential(Answer):
    """A credential; `data` is null unless asked for."""

    id: str
    name: str
    meta: dict[str, Any] | None
    tags: list[str]
    description: str | None
    created_at: datetime
    updated_at: datetime
    data: dict[str, Any] | None
    type: str


class CredentialList(Answer):
    """Answer of `GET /api/credentials`."""

    items: list[Credential]
    filter: dict[str, str | None]


class CredentialDeleted(Answer):
    """Answer of `DELETE /api/credentials/{identifier}`."""

    message: str
    id: str
    name: str


def _document(row: Mapping[str, Any], data: object = None) -> dict[str, Any]:
    return {
        "id": str(row["id"]),
        "name": row["name"],
        "meta": row["meta"],
        "tags": row["tags"] or [],  # null breaks the Rust worker (api_contract.md section 8, no. 12)
        "description": row["description"],
        "created_at": time_offset(row["created_at"]),
        "updated_at": time_offset(row["updated_at"]),
        "data": data,
        "type": row["type"],
    }


@routes.add(
    "POST",
    "/api/credentials",
    "Create or replace a credential",
    role=Access.OPERATOR,
    body=CredentialBody,
    response=Credential,
    errors=(503,),
)
async def save_credential(call: Call) -> web.StreamResponse:
    """Store a credential, encrypted; the answer never has its data."""
    body: CredentialBody = call.body
    row = await store.save(
        call.context.database,
        store.NewCredential(
            credential_id=call.context.ids.next(),
            name=body.name,
            type=body.type,
            data_encrypted=seal(call.context.cipher, body.data, table=store.TABLE, row=body.name),
            meta=body.meta,
            tags=body.tags,
            description=body.description,
        ),
    )
    return reply(_document(row))


@routes.add(
    "GET", "/api/credentials", "List credentials", role=Access.VIEWER, query=CredentialQuery, response=CredentialList
)
async def list_credentials(call: Call) -> web.StreamResponse:
    """Answer credentials by name, without data."""
    query: CredentialQuery = call.query
    rows = await store.list_credentials(
        call.context.database, type_name=query.type, text=query.q, limit=query.limit + 1, offset=query.offset
    )
    shown, headers = truncated(rows, query.limit)
    answer = {"items": [_document(row) for row in shown], "filter": {"type": query.type, "q": query.q}}
    return reply(answer, headers=headers)


async def _cache(call: Call, row: Mapping[str, Any], data: object) -> None:
    """Keep a copy in the keychain, where `{{ keychain.<name> }}` finds it; without a key nothing is kept."""
    query: ReadQuery = call.query
    context = call.context
    if not context.cipher.can_encrypt:
        return
    catalog_id = query.catalog_id
    if catalog_id is None and query.execution_id is not None:
        catalog_id = await keychain.catalog_of_execution(context.database, query.execution_id)
    if catalog_id is None:
        return
    scope = "global" if query.execution_id is None else "local"
    key = keychain.cache_key(name=row["name"], catalog_id=catalog_id, scope_type=scope, execution_id=query.execution_id)
    await keychain.cache_credential(
        context.database,
        keychain.CredentialCopy(
            cache_key=key,
            keychain_name=row["name"],
            catalog_id=catalog_id,
            credential_type=row["type"],
            scope_type=scope,
            data_encrypted=seal(context.cipher, data, table=keychain.TABLE, row=key),
            ttl_seconds=CACHE_SECONDS,
            execution_id=query.execution_id,
            updated_at=row["updated_at"],
        ),
    )


@routes.add(
    "GET",
    "/api/credentials/{identifier}",
    "Read a credential by id or name",
    role=Access.VIEWER,
    elevated=("include_data", Access.WORKER),
    query=ReadQuery,
    response=Credential,
    errors=(404, 503),
)
async def get_credential(call: Call) -> web.StreamResponse:
    """Answer a credential; with `include_data` also its secret."""
    query: ReadQuery = call.query
    row = await store.find(call.context.database, path_text(call, "identifier"))
    if row is None:
        raise not_found("Credential not found")
    if not query.include_data:
        return reply(_document(row))
    data = unseal(call.context.cipher, row["data_encrypted"], table=store.TABLE, row=row["name"])
    await _cache(call, row, data)
    return reply(_document(row, data), headers={"Cache-Control": "no-store"})


@routes.add(
    "DELETE",
    "/api/credentials/{identifier}",
    "Delete a credential",
    role=Access.OPERATOR,
    response=CredentialDeleted,
    errors=(404,),
)
async def delete_credential(call: Call) -> web.StreamResponse:
    """Delete a credential by id or name."""
    row = await store.delete(call.context.database, path_text(call, "identifier"))
    if row is None:
        raise not_found("Credential not found")
    return reply({"message": "Credential deleted successfully", "id": str(row["id"]), "name": row["name"]})
