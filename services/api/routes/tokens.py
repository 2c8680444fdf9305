"""/api/tokens: API tokens of people, pipelines and workers. The token itself is in one answer only, that of its creation."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from aiohttp import web
from pydantic import Field, StringConstraints

from services.api.auth.roles import Access, Role
from services.api.auth.tokens import mint
from services.api.http import Call, HttpError, RouteTable, not_found, reply
from services.api.inputs import Answer, OptionalKey, path_text
from services.api.models import Lax
from services.api.store import tokens as store
from services.api.store.database import Row
from services.api.views import time_z

TTL_SECONDS_MAX = 10 * 365 * 86_400  # ten years: longer is a mistake of units
LIST_MAX = 1000

routes = RouteTable("tokens")


class TokenBody(Lax):
    """Body of `POST /api/tokens`."""

    name: Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
    role: Role
    ttl_seconds: int | None = Field(
        None, ge=1, le=TTL_SECONDS_MAX, description="it opens nothing after so long (s); null: it does not expire"
    )


class TokenQuery(Lax):
    """Query of `GET /api/tokens`."""

    name: OptionalKey = None
    all: bool = Field(False, description="also those that are revoked or expired")


class TokenShown(Answer):
    """A token without its secret."""

    token_id: str
    name: str
    role: Role
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class TokenMade(TokenShown):
    """A new token; `token` is shown this once."""

    token: str


class TokenList(Answer):
    """Answer of `GET /api/tokens`."""

    tokens: list[TokenShown]


def _document(row: Row) -> dict[str, object]:
    return {
        "token_id": row["token_id"],
        "name": row["name"],
        "role": row["role"],
        "created_at": time_z(row["created_at"]),
        "created_by": row["created_by"],
        "expires_at": time_z(row["expires_at"]),
        "last_used_at": time_z(row["last_used_at"]),
        "revoked_at": time_z(row.get("revoked_at")),
    }


@routes.add(
    "POST",
    "/api/tokens",
    "Create an API token",
    role=Access.TOKENS,
    body=TokenBody,
    response=TokenMade,
    status=201,
    errors=(409,),
)
async def create_token(call: Call) -> web.StreamResponse:
    """Answer the token; it is stored as a hash and cannot be shown again. Two tokens of one name may be active."""
    body: TokenBody = call.body
    minted = mint()
    row = await store.create(
        call.context.database,
        store.NewToken(
            token_id=minted.token_id,
            name=body.name,
            role=body.role.value,
            secret_sha256=minted.secret_sha256,
            created_by=call.actor.label,
            ttl_seconds=None if body.ttl_seconds is None else float(body.ttl_seconds),
        ),
    )
    if row is None:
        raise HttpError(
            409,
            f"'{body.name}' has {store.PER_NAME_MAX} active tokens (or there are {store.TOKENS_MAX} in all): revoke one first",
        )
    await call.context.access.book.refresh()
    return reply({**_document(row), "token": minted.text}, status=201, headers={"Cache-Control": "no-store"})


@routes.add("GET", "/api/tokens", "List API tokens", role=Access.TOKENS, query=TokenQuery, response=TokenList)
async def list_tokens(call: Call) -> web.StreamResponse:
    """Answer the newest 1000, without secrets."""
    query: TokenQuery = call.query
    rows = await store.list_tokens(call.context.database, name=query.name, include_dead=query.all, limit=LIST_MAX)
    return reply({"tokens": [_document(row) for row in rows]})


@routes.add(
    "DELETE", "/api/tokens/{token_id}", "Revoke an API token", role=Access.TOKENS, response=TokenShown, errors=(404,)
)
async def revoke_token(call: Call) -> web.StreamResponse:
    """Revoke it: at once here, on other replicas within NOETL_AUTH_REFRESH_SECONDS."""
    row = await store.revoke(call.context.database, path_text(call, "token_id"))
    if row is None:
        raise not_found("no token has this id; `playhead token list` shows them")
    await call.context.access.book.refresh()
    return reply(_document(row))
