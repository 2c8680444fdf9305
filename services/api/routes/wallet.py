"""/api/internal/wallet/*: the keys that protect stored secrets."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from pydantic import Field

from services.api.auth.roles import Access
from services.api.http import Call, RouteTable, reply
from services.api.inputs import Answer
from services.api.models import Lax

routes = RouteTable("wallet")


class RotateBody(Lax):
    """Body of `POST /api/internal/wallet/rotate-kek`."""

    batch_size: int = Field(100, ge=1, le=1000, description="rows per transaction")
    max_batches: int = Field(1000, ge=1, le=1000, description="transactions per table at most")


class KeyStatus(Answer):
    """How many stored values each key protects, per table."""

    credential: dict[str, int]
    keychain: dict[str, int]
    current: str | None = Field(description="id of the key that is written with")
    keys: list[str]
    problems: list[str]


class RotateReply(Answer):
    """What happened to the rows of each table; `more`: call again."""

    credential: dict[str, Any]
    keychain: dict[str, Any]
    more: bool


@routes.add(
    "GET",
    "/api/internal/wallet/key-status",
    "What each key protects",
    role=Access.INTERNAL_ADMIN,
    response=KeyStatus,
)
async def key_status(call: Call) -> web.StreamResponse:
    """Answer counts by key id; `plain` and `original...` are forms of the original, `v1:` our own earlier one."""
    return reply(await call.context.wallet.status())


@routes.add(
    "POST",
    "/api/internal/wallet/rotate-kek",
    "Encrypt everything with the first key",
    role=Access.INTERNAL_ADMIN,
    body=RotateBody,
    response=RotateReply,
)
async def rotate(call: Call) -> web.StreamResponse:
    """Work in small transactions beside the traffic; what cannot be read is counted as failed and left as it is."""
    body: RotateBody = call.body
    return reply(await call.context.wallet.rotate(batch_size=body.batch_size, max_batches=body.max_batches))
