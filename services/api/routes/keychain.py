"""/api/keychain: tokens and cached secrets of a catalog entry. Reads always answer 200; `status` says what was found."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BeforeValidator, Field, field_validator, model_validator

from services.api.auth.roles import Access
from services.api.http import Call, RouteTable, not_found, reply, unprocessable
from services.api.inputs import Answer, Deleted, Key, path_text
from services.api.models import Id, Lax
from services.api.secret_access import opened, record
from services.api.secrets_at_rest import seal, unseal
from services.api.store import keychain as store
from services.api.views import time_z

LIST_MAX = 1000  # entries in one answer
TTL_SECONDS = {"local": 3600, "global": 86_400, "shared": 86_400}  # the original's defaults
TTL_SECONDS_MAX = 10 * 365 * 86_400  # ten years: longer is a mistake of units

routes = RouteTable("keychain")

# The schema knows three scopes; a playbook also calls the first two by what they belong to.
_SCOPE_NAMES = {"execution": "local", "catalog": "global"}


def _scope(value: object) -> object:
    return _SCOPE_NAMES.get(value, value) if isinstance(value, str) else value


Scope = Annotated[
    Literal["local", "global", "shared"],
    BeforeValidator(_scope),
    Field(description="`execution` is another name of local, `catalog` of global"),
]


class KeychainQuery(Lax):
    """Which entry of a name is meant."""

    execution_id: Id | None = None
    scope_type: Scope = "global"


class KeychainBody(Lax):
    """Body of `POST /api/keychain/{catalog_id}/{keychain_name}`; clients of the Rust server call the secret `data`."""

    token_data: dict[str, Any]
    credential_type: Key
    cache_type: Literal["secret", "token"] = "token"
    scope_type: Scope = "global"
    execution_id: Id | None = None
    parent_execution_id: Id | None = None
    ttl_seconds: int | None = Field(None, ge=1, le=TTL_SECONDS_MAX)
    expires_at: datetime | None = Field(None, description="wins over `ttl_seconds`; without a zone: UTC")
    auto_renew: bool = False
    renew_config: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_rust(cls, data: object) -> object:
        """Take the Rust server's names too: `data`, `expires_in`, and everything a secret, as it writes."""
        if not isinstance(data, dict) or "token_data" in data or "data" not in data:
            return data
        known = {"token_data": data["data"], "credential_type": "secret", "cache_type": "secret"}
        known["ttl_seconds"] = data.get("expires_in")
        return known | {key: value for key, value in data.items() if value is not None}

    @field_validator("expires_at")
    @classmethod
    def _aware(cls, value: datetime | None) -> datetime | None:
        if value is None:
            return None
        if not 1970 <= value.year <= 2200:
            raise ValueError("must lie between 1970 and 2200")
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value


class KeychainEntry(Answer):
    """Answer of `GET /api/keychain/{catalog_id}/{keychain_name}`."""

    status: Literal["success", "not_found", "expired"]
    keychain_name: str
    catalog_id: int
    cache_key: str
    token_data: dict[str, Any] | None
    credential_type: str | None
    cache_type: str | None
    scope_type: str | None
    expires_at: datetime | None
    ttl_seconds: float | None
    accessed_at: datetime | None
    access_count: int | None
    auto_renew: bool
    renew_config: dict[str, Any] | None
    expired: bool


class KeychainSaved(Answer):
    """Answer of `POST /api/keychain/{catalog_id}/{keychain_name}`."""

    status: str
    message: str
    keychain_name: str
    catalog_id: int
    cache_key: str
    expires_at: datetime
    ttl_seconds: int
    auto_renew: bool


class KeychainDeleted(Deleted):
    """Answer of `DELETE /api/keychain/{catalog_id}/{keychain_name}`."""

    keychain_name: str
    catalog_id: int


class KeychainList(Answer):
    """Answer of `GET /api/keychain/catalog/{catalog_id}`."""

    status: str
    catalog_id: int
    entries: list[dict[str, Any]]
    count: int


def _key(call: Call, *, scope_type: str, execution_id: int | None, source: str) -> tuple[int, str, str]:
    """Return catalog id, name and cache key of the request."""
    catalog_id, name = call.path_id("catalog_id"), path_text(call, "keychain_name")
    if scope_type != "global" and execution_id is None:
        raise unprocessable([source, "execution_id"], f"execution_id is required for scope_type '{scope_type}'")
    key = store.cache_key(name=name, catalog_id=catalog_id, scope_type=scope_type, execution_id=execution_id)
    return catalog_id, name, key


def _absent(*, name: str, catalog_id: int, key: str) -> dict[str, Any]:
    return {
        "status": "not_found",
        "keychain_name": name,
        "catalog_id": catalog_id,
        "cache_key": key,
        "token_data": None,
        "credential_type": None,
        "cache_type": None,
        "scope_type": None,
        "expires_at": None,
        "ttl_seconds": None,
        "accessed_at": None,
        "access_count": None,
        "auto_renew": False,
        "renew_config": None,
        "expired": False,
    }


async def _found(call: Call, row: Mapping[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    query: KeychainQuery = call.query
    cipher, key = call.context.cipher, document["cache_key"]
    expired = row["ttl_seconds"] <= 0
    if expired and not row["auto_renew"]:
        return document
    renew = row["renew_config"]
    if isinstance(renew, str):
        renew = unseal(cipher, renew, table=store.RENEW_TABLE, row=key)
    token = None
    if expired:
        notes = "expired: renewal settings only"
        await record(call, key, "keychain_read", execution_id=query.execution_id, notes=notes)
    else:
        token = await opened(
            call,
            row["data_encrypted"],
            table=store.TABLE,
            row=key,
            operation="keychain_read",
            execution_id=query.execution_id,
        )
    return {
        **document,
        "status": "expired" if expired else "success",
        "token_data": token,
        "credential_type": row["credential_type"],
        "cache_type": row["cache_type"],
        "scope_type": row["scope_type"],
        "expires_at": time_z(row["expires_at"]),
        "ttl_seconds": round(row["ttl_seconds"], 6),
        "accessed_at": time_z(row["accessed_at"]),
        "access_count": row["access_count"],
        "auto_renew": row["auto_renew"],
        "renew_config": renew,
        "expired": expired,
    }


@routes.add(
    "GET",
    "/api/keychain/catalog/{catalog_id}",
    "List keychain entries, without secrets",
    role=Access.VIEWER,
    response=KeychainList,
)
async def list_keychain(call: Call) -> web.StreamResponse:
    """Answer the entries of a catalog entry."""
    catalog_id = call.path_id("catalog_id")
    rows = await store.list_entries(call.context.database, catalog_id, limit=LIST_MAX)
    entries = [
        {
            **row,
            "expires_at": time_z(row["expires_at"]),
            "accessed_at": time_z(row["accessed_at"]),
            "created_at": time_z(row["created_at"]),
        }
        for row in rows
    ]
    return reply({"status": "success", "catalog_id": catalog_id, "entries": entries, "count": len(entries)})


@routes.add(
    "GET",
    "/api/keychain/{catalog_id}/{keychain_name}",
    "Read a keychain entry",
    role=Access.WORKER,
    query=KeychainQuery,
    response=KeychainEntry,
    errors=(503,),
)
async def get_keychain(call: Call) -> web.StreamResponse:
    """Answer the entry; `expired` only for entries that renew, other expired ones are `not_found`."""
    query: KeychainQuery = call.query
    catalog_id, name, key = _key(call, scope_type=query.scope_type, execution_id=query.execution_id, source="query")
    row = await store.read(call.context.database, key)
    document = _absent(name=name, catalog_id=catalog_id, key=key)
    answer = document if row is None else await _found(call, row, document)
    return reply(answer, headers={"Cache-Control": "no-store"})


@routes.add(
    "POST",
    "/api/keychain/{catalog_id}/{keychain_name}",
    "Store a keychain entry",
    role=Access.WORKER,
    body=KeychainBody,
    response=KeychainSaved,
    errors=(404, 503),
)
async def save_keychain(call: Call) -> web.StreamResponse:
    """Store or replace an entry, encrypted; its renewal settings too, as they hold client secrets."""
    body: KeychainBody = call.body
    cipher = call.context.cipher
    catalog_id, name, key = _key(call, scope_type=body.scope_type, execution_id=body.execution_id, source="body")
    renew = body.renew_config
    row = await store.save(
        call.context.database,
        store.NewKeychainEntry(
            cache_key=key,
            keychain_name=name,
            catalog_id=catalog_id,
            credential_type=body.credential_type,
            cache_type=body.cache_type,
            scope_type=body.scope_type,
            data_encrypted=seal(cipher, body.token_data, table=store.TABLE, row=key),
            ttl_seconds=float(body.ttl_seconds or TTL_SECONDS[body.scope_type]),
            expires_at=body.expires_at,
            execution_id=body.execution_id,
            parent_execution_id=body.parent_execution_id,
            auto_renew=body.auto_renew,
            renew_config_encrypted=None if renew is None else seal(cipher, renew, table=store.RENEW_TABLE, row=key),
        ),
    )
    if row is None:
        raise not_found(f"Catalog entry not found: {catalog_id}")
    await record(
        call,
        key,
        "keychain_write",
        execution_id=body.execution_id,
        parent_execution_id=body.parent_execution_id,
        key_id=cipher.current,
    )
    ttl_seconds = round(row["ttl_seconds"])
    return reply(
        {
            "status": "success",
            "message": f"Keychain entry cached successfully with {ttl_seconds}s TTL",
            "keychain_name": name,
            "catalog_id": catalog_id,
            "cache_key": key,
            "expires_at": time_z(row["expires_at"]),
            "ttl_seconds": ttl_seconds,
            "auto_renew": body.auto_renew,
        }
    )


@routes.add(
    "DELETE",
    "/api/keychain/{catalog_id}/{keychain_name}",
    "Delete a keychain entry",
    role=Access.WORKER,
    query=KeychainQuery,
    response=KeychainDeleted,
)
async def delete_keychain(call: Call) -> web.StreamResponse:
    """Delete an entry; the answer is the same when there was none."""
    query: KeychainQuery = call.query
    catalog_id, name, key = _key(call, scope_type=query.scope_type, execution_id=query.execution_id, source="query")
    await store.delete(call.context.database, key)
    await record(call, key, "keychain_delete", execution_id=query.execution_id)
    return reply(
        {
            "status": "success",
            "message": "Keychain entry deleted successfully",
            "keychain_name": name,
            "catalog_id": catalog_id,
        }
    )
