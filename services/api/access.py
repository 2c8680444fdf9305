"""What stands between a request and its handler: the gate, the rate limits, the audit trail. Built from the settings."""

from __future__ import annotations

import math
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from pydantic import SecretStr

from services.api.audit import AuditTrail, audit_row
from services.api.auth.actor import NOBODY, Actor
from services.api.auth.gate import Gate, GateOptions, require
from services.api.auth.oidc import OidcVerifier, oidc_options
from services.api.auth.roles import Access, Role
from services.api.auth.tokens import TokenBook
from services.api.http import HttpError
from services.api.origins import Origins, origins_of
from services.api.rate_limit import RateLimiter
from shared.platform.addresses import is_loopback
from shared.platform.errors import PlayheadError

if TYPE_CHECKING:
    from aiohttp import web
    from pydantic import BaseModel

    from services.api.auth.gate import JwtVerifier
    from services.api.http import RouteSpec
    from services.api.store.database import Database
    from shared.platform.settings import ApiSettings

ADMIN_TOKEN_CHARS_MIN = 32
REFUSALS = frozenset({401, 403, 429})
_PUBLIC = {"docs": Access.DOCS, "metrics": Access.METRICS}


class AccessSettingsError(PlayheadError):
    """The settings about who may call cannot be used; the text names the setting and the fix."""


def check_mode(settings: ApiSettings) -> None:
    """Refuse to serve the network without asking who calls, unless that was said twice.

    Raises:
        AccessSettingsError: `NOETL_AUTH_MODE=off` on an address that others can reach.
    """
    if (
        settings.noetl_auth_mode == "off"
        and not settings.noetl_auth_off_confirmed
        and not is_loopback(settings.noetl_host)
    ):
        raise AccessSettingsError(
            f"NOETL_HOST={settings.noetl_host} can be reached from outside and NOETL_AUTH_MODE=off lets anybody call: set "
            "NOETL_AUTH_MODE=token (see docs/security.md), or NOETL_HOST=127.0.0.1, or say it twice with "
            "NOETL_AUTH_OFF_CONFIRMED=true"
        )


def _secret(given: SecretStr) -> tuple[bytes, ...]:
    text = given.get_secret_value().strip()
    return (text.encode(),) if text else ()


def _admin_tokens(settings: ApiSettings) -> tuple[bytes, ...]:
    token = settings.noetl_admin_token.get_secret_value().strip()
    if not token and settings.noetl_admin_token_file:
        try:
            token = Path(settings.noetl_admin_token_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise AccessSettingsError(f"NOETL_ADMIN_TOKEN_FILE cannot be read: {type(error).__name__}") from error
    if token and len(token) < ADMIN_TOKEN_CHARS_MIN:
        raise AccessSettingsError(
            f"NOETL_ADMIN_TOKEN has {len(token)} characters instead of {ADMIN_TOKEN_CHARS_MIN} or more: "
            "take the output of `openssl rand -hex 32`"
        )
    return (token.encode(),) if token else ()


def gate_options(settings: ApiSettings) -> GateOptions:
    """Return what the gate is told.

    Raises:
        AccessSettingsError: a setting cannot be used.
    """
    public = {Access.PUBLIC}
    for word in filter(None, (part.strip() for part in settings.noetl_auth_public.split(","))):
        if word not in _PUBLIC and word != "none":
            raise AccessSettingsError(f"NOETL_AUTH_PUBLIC has {word!r}; it may have docs and metrics, or none")
        if word in _PUBLIC:
            public.add(_PUBLIC[word])
    internal = _secret(settings.noetl_internal_api_token)
    return GateOptions(
        mode=settings.noetl_auth_mode,
        internal_tokens=internal + _secret(settings.noetl_internal_api_token_previous) if internal else (),
        admin_tokens=_admin_tokens(settings),
        public=frozenset(public),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessControl:
    """The gate, the limits and the trail of one API process."""

    gate: Gate
    book: TokenBook
    audit: AuditTrail
    people: RateLimiter
    workers: RateLimiter
    origins: Origins
    body_bytes_clients: int

    async def admit(self, request: web.Request, spec: RouteSpec) -> Actor:
        """Return who calls, when they may and not too often.

        Raises:
            HttpError: 401, 403, 429 with Retry-After, or 503.
        """
        try:
            actor = await self.gate.admit(request, spec.role)
        except HttpError:
            self._limit(request, NOBODY)
            raise
        if not spec.internal and spec.role is not Access.PUBLIC:
            self._limit(request, actor)
        return actor

    def _limit(self, request: web.Request, actor: Actor) -> None:
        limiter = self.workers if Role.WORKER in actor.roles and actor.kind != "anonymous" else self.people
        wait = limiter.take(actor.client(request.remote), time.monotonic())
        if wait > 0:
            seconds = math.ceil(wait)
            detail = {"code": "rate_limited", "message": f"too many requests; try again in {seconds} s"}
            raise HttpError(429, detail, headers={"Retry-After": str(seconds)})

    def body_bytes_max(self, actor: Actor) -> int | None:
        """Return how large a body of `actor` may be; None: what the server allows, for those who bring results of steps."""
        return None if actor.may(Access.WORKER) else self.body_bytes_clients

    def check_elevated(self, actor: Actor, spec: RouteSpec, query: BaseModel | None) -> None:
        """Ask for more when the query switches on what needs more.

        Raises:
            HttpError: 403 naming the role.
        """
        if spec.elevated is not None and getattr(query, spec.elevated[0], False):
            require(actor, spec.elevated[1], f"{spec.elevated[0]}=true")

    def note(self, request: web.Request, spec: RouteSpec, actor: Actor, status: int) -> None:
        """Enter a write into the audit trail; reads are not entered."""
        if spec.method == "GET" or spec.role is Access.VIEWER:
            return
        if spec.role in (Access.WORKER, Access.INTERNAL) or status in REFUSALS:
            self.audit.count((actor.label, actor.role, spec.method, spec.path, status, request.remote))
            return
        self.audit.record(
            audit_row(
                actor=actor.label,
                role=actor.role,
                method=spec.method,
                route=spec.path,
                parameters=dict(request.match_info),
                status=status,
                address=request.remote,
            )
        )


async def open_access(settings: ApiSettings, database: Database, stack: AsyncExitStack) -> AccessControl:
    """Return the access control that `settings` ask for; `stack` closes what it opens.

    Raises:
        AccessSettingsError: a setting cannot be used.
    """
    check_mode(settings)
    try:
        origins = origins_of(settings)
    except ValueError as error:
        raise AccessSettingsError(str(error)) from error
    book = TokenBook(database)
    await book.refresh()
    return AccessControl(
        gate=Gate(gate_options(settings), book, await _jwt(settings, stack)),
        book=book,
        audit=AuditTrail(database),
        people=RateLimiter(
            per_second=settings.noetl_rate_limit_per_second, burst_seconds=settings.noetl_rate_limit_burst_seconds
        ),
        workers=RateLimiter(
            per_second=settings.noetl_rate_limit_worker_per_second,
            burst_seconds=settings.noetl_rate_limit_burst_seconds,
        ),
        origins=origins,
        body_bytes_clients=min(settings.noetl_max_body_bytes_clients, settings.noetl_max_body_bytes),
    )


async def _jwt(settings: ApiSettings, stack: AsyncExitStack) -> JwtVerifier | None:
    if settings.noetl_auth_mode != "oidc":
        return None
    try:
        options = oidc_options(settings)
    except ValueError as error:
        raise AccessSettingsError(str(error)) from error
    session = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
    return OidcVerifier(options, session)
