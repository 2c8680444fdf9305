"""POST /api/internal/cross-region/resolve: a server of another region asks for a credential for one of its workers."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from pydantic import Field

from services.api.auth.roles import Access
from services.api.http import Call, HttpError, RouteTable, dumps, not_found, reply
from services.api.inputs import Key, ShortText
from services.api.models import Id, Lax
from services.api.routes.credentials import Sealed, credential_document
from services.api.sealing import public_key, seal_for
from services.api.secret_access import opened, record
from services.api.store import credentials as store

OPERATION = "cross_region"

routes = RouteTable("internal")


class ResolveBody(Lax):
    """Body of `POST /api/internal/cross-region/resolve`."""

    alias: Key
    worker_public_key_b64: ShortText
    worker_id: Key
    execution_id: Id | None = None
    parent_execution_id: Id | None = None
    expected_entry_region: ShortText = Field(description="where the caller believes the credential to live")
    requesting_region: ShortText = ""


@routes.add(
    "POST",
    "/api/internal/cross-region/resolve",
    "Seal a credential for a worker of another region",
    role=Access.INTERNAL,
    body=ResolveBody,
    response=Sealed,
    errors=(400, 403, 404, 503),
    rust_errors=True,
)
async def resolve(call: Call) -> web.StreamResponse:
    """Answer the credential sealed for the worker's key, when it lives in the region that the caller expects."""
    body: ResolveBody = call.body
    who: dict[str, Any] = {
        "worker_id": body.worker_id,
        "execution_id": body.execution_id,
        "parent_execution_id": body.parent_execution_id,
        "notes": f"asked from region '{body.requesting_region[:64]}'",
    }
    try:
        recipient = public_key(body.worker_public_key_b64)
    except ValueError as error:
        raise HttpError(400, f"worker_public_key_b64: {error}") from error
    row = await store.find(call.context.database, body.alias)
    if row is None:
        await record(call, body.alias, OPERATION, "not_found", **who)
        raise not_found(f"Credential alias '{body.alias}' not found")
    region = str((row["meta"] or {}).get("region") or call.context.settings.noetl_region)
    if region != body.expected_entry_region:
        await record(call, row["name"], OPERATION, "refused", **who)
        raise HttpError(403, f"credential '{body.alias}' does not live in region '{body.expected_entry_region}'")
    data = await opened(call, row["data_encrypted"], table=store.TABLE, row=row["name"], operation=OPERATION, **who)
    try:
        answer = seal_for(recipient, dumps(credential_document(row, data)))
    except ValueError as error:
        raise HttpError(400, f"worker_public_key_b64: {error}") from error
    return reply(answer, headers={"Cache-Control": "no-store"})
