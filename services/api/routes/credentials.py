"""/api/credentials: named secrets. Data is never shown but with `include_data=true`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from aiohttp import web
from pydantic import AliasChoices, BeforeValidator, Field, StringConstraints

from services.api.auth.roles import Access
from services.api.http import Call, HttpError, RouteTable, dumps, not_found, reply
from services.api.inputs import Answer, Key, OptionalKey, Page, ShortText, Text, path_text, truncated
from services.api.models import Id, Lax
from services.api.sealing import public_key, seal_for
from services.api.secret_access import opened, record
from services.api.secrets_at_rest import seal
from services.api.store import credentials as store
from services.api.store import keychain, runtime
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
        Annotated[list[ShortText], Field(max_length=TAGS_MAX)] | None,
        BeforeValidator(_split_tags),
        Field(description="a list or a,b,c"),
    ] = None
    description: Text | None = None


class CredentialQuery(Page):
    """Query of `GET /api/credentials`."""

    type: OptionalKey = None
    q: Annotated[OptionalKey, Field(description="part of the name or description")] = None
    limit: int = Field(LIST_MAX, ge=1, le=LIST_MAX)


class ExecutionQuery(Lax):
    """For whom a credential is read."""

    execution_id: Id | None = None
    parent_execution_id: Id | None = None

    def who(self) -> dict[str, Any]:
        """Return what the record of the access says of it."""
        return {"execution_id": self.execution_id, "parent_execution_id": self.parent_execution_id}


class ReadQuery(ExecutionQuery):
    """Query of `GET /api/credentials/{identifier}`."""

    include_data: bool = False
    catalog_id: Id | None = None


class SealedQuery(ExecutionQuery):
    """Query of `GET /api/credentials/{identifier}/sealed`."""

    worker_id: Key = Field(description="name under which the worker registered its public key")

    def who(self) -> dict[str, Any]:
        """As its base, with the worker."""
        return {**super().who(), "worker_id": self.worker_id}


class Sealed(Answer):
    """A sealed credential."""

    alg: str
    v: int
    eph_pub: str = Field(description="base64 of 32 bytes")
    ciphertext: str = Field(description="base64, the last 16 bytes are the tag")


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


def credential_document(row: Mapping[str, Any], data: object = None) -> dict[str, Any]:
    """Return a credential as its readers want it; `data` only when they may see it."""
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
    await record(call, body.name, "write", key_id=call.context.cipher.current)
    return reply(credential_document(row))


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
    answer = {"items": [credential_document(row) for row in shown], "filter": {"type": query.type, "q": query.q}}
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
    row = await _find(call, query if query.include_data else None, "read")
    if not query.include_data:
        return reply(credential_document(row))
    data = await _data(call, row, query, "read")
    await _cache(call, row, data)
    return reply(credential_document(row, data), headers={"Cache-Control": "no-store"})


async def _find(call: Call, query: ExecutionQuery | None, operation: str) -> Mapping[str, Any]:
    """Return the credential of the path; with `query` a failure is recorded as an access."""
    identifier = path_text(call, "identifier")
    row = await store.find(call.context.database, identifier)
    if row is None:
        if query is not None:
            await record(call, identifier, operation, "not_found", **query.who())
        raise not_found("Credential not found")
    return row


async def _data(call: Call, row: Mapping[str, Any], query: ExecutionQuery, operation: str) -> Any:
    return await opened(
        call, row["data_encrypted"], table=store.TABLE, row=row["name"], operation=operation, **query.who()
    )


@routes.add(
    "GET",
    "/api/credentials/{identifier}/sealed",
    "Read a credential, sealed for one worker",
    role=Access.WORKER,
    query=SealedQuery,
    response=Sealed,
    errors=(400, 404, 503),
)
async def get_sealed(call: Call) -> web.StreamResponse:
    """Answer the credential with its data, encrypted to the public key that the worker registered."""
    query: SealedQuery = call.query
    worker = await runtime.public_key(call.context.database, query.worker_id)
    if worker is None:
        raise not_found(f"worker '{query.worker_id[:64]}' is not registered")
    row = await _find(call, query, "sealed")
    try:
        recipient = public_key(worker["public_key"])
        data = await _data(call, row, query, "sealed")
        answer = seal_for(recipient, dumps(credential_document(row, data)))
    except ValueError as error:
        raise HttpError(
            400, f"worker '{query.worker_id[:64]}': {error}; it must register `runtime.worker_public_key`"
        ) from error
    return reply(answer, headers={"Cache-Control": "no-store"})


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
    await record(call, row["name"], "delete")
    return reply({"message": "Credential deleted successfully", "id": str(row["id"]), "name": row["name"]})
