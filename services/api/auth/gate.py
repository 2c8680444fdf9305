"""The gate in front of every route: who calls, and whether the route's role allows it.

`NOETL_AUTH_MODE=off` asks nobody, as the original; `token` asks for an API token; `oidc` for a JWT or an API token. The gate of
`/api/internal/*` is the original's, with its texts, in every mode. It runs before the body is read.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from services.api.auth.actor import BOOTSTRAP, EVERYBODY, NOBODY, SERVICE, Actor
from services.api.auth.roles import ALLOWED, Access, is_internal
from services.api.http import HttpError

if TYPE_CHECKING:
    from aiohttp import web

    from services.api.auth.tokens import TokenBook

TOKEN_PARAMETERS = frozenset({"access_token", "api_key", "session_token", "token"})
HOW_TO_SEND = "send it as `Authorization: Bearer <token>` or `X-Session-Token`"
INTERNAL_UNSET = (
    "Internal API not configured: NOETL_INTERNAL_API_TOKEN env var unset on the server.  Set it to the system worker "
    "pool's ServiceAccount token before calling /api/internal/* endpoints."
)


class JwtVerifier(Protocol):
    """Tells who a JWT belongs to."""

    async def verify(self, text: str) -> Actor:
        """Return its holder.

        Raises:
            HttpError: 401 when it is not valid, 503 when the keys cannot be fetched.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOptions:
    """What the gate is told: tokens from the settings, and what is open to everybody."""

    mode: str  # 'off', 'token', 'oidc'
    internal_tokens: tuple[bytes, ...]  # two during a rotation
    admin_tokens: tuple[bytes, ...]
    public: frozenset[Access] = frozenset({Access.PUBLIC, Access.DOCS, Access.METRICS})


def unauthorized(detail: str, *, error: str | None = None) -> HttpError:
    """Return a 401; `error` is the code of RFC 6750 section 3.1."""
    challenge = 'Bearer realm="playhead"' + (f', error="{error}"' if error else "")
    return HttpError(401, detail, headers={"WWW-Authenticate": challenge})


def _is_one_of(text: str, known: tuple[bytes, ...]) -> bool:
    """Compare with every known token, in constant time."""
    given, found = text.encode("utf-8", "surrogateescape"), False
    for token in known:
        found |= hmac.compare_digest(given, token)
    return found


def _bearer(request: web.BaseRequest) -> str | None:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return given.strip() or None if scheme.lower() == "bearer" else None


def presented(request: web.BaseRequest) -> str | None:
    """Return the token of a request: `Authorization: Bearer`, else `X-Session-Token`, as the gateway sends it."""
    return _bearer(request) or request.headers.get("X-Session-Token", "").strip() or None


def require(actor: Actor, access: Access, what: str = "this route") -> None:
    """Let `actor` pass when it has a role for `access`.

    Raises:
        HttpError: 403 naming the roles.
    """
    if not actor.may(access):
        needed = " or ".join(sorted(ALLOWED[access]))
        raise HttpError(403, f"{what} needs the role {needed}; {actor.label} has {actor.role or 'none'}")


class Gate:
    """Decides who passes."""

    def __init__(self, options: GateOptions, book: TokenBook, jwt: JwtVerifier | None = None) -> None:
        self._options = options
        self._book = book
        self._jwt = jwt

    @property
    def is_off(self) -> bool:
        """Whether nobody is asked."""
        return self._options.mode == "off"

    async def admit(self, request: web.BaseRequest, access: Access) -> Actor:
        """Return who calls, when they may.

        Raises:
            HttpError: 401 without a valid token, 403 without the role, 503 when that cannot be found out.
        """
        if is_internal(access):
            return await self._admit_internal(request, access)
        if access in self._options.public:
            return NOBODY
        if self.is_off and access is not Access.TOKENS:
            return EVERYBODY
        if not TOKEN_PARAMETERS.isdisjoint(request.query):
            raise unauthorized(
                f"a token in the URL is refused, it would end up in logs: {HOW_TO_SEND}", error="invalid_request"
            )
        text = presented(request)
        if text is None:
            raise unauthorized(f"a token is required: {HOW_TO_SEND}")
        actor = await self.identify(text)
        require(actor, access)
        return actor

    async def identify(self, text: str) -> Actor:
        """Return the holder of a token.

        Raises:
            HttpError: 401 when nobody is known by it.
        """
        options = self._options
        actor = await self._book.find(text)
        if actor is not None:
            return actor
        if _is_one_of(text, options.admin_tokens):
            return BOOTSTRAP
        if _is_one_of(text, options.internal_tokens):
            return SERVICE
        if self._jwt is not None and text.count(".") == 2:
            return await self._jwt.verify(text)
        raise unauthorized("the token is not valid: unknown, expired or revoked", error="invalid_token")

    async def _admit_internal(self, request: web.BaseRequest, access: Access) -> Actor:
        """Let the holder of the internal token pass; texts and statuses are the original's, never 401."""
        known = self._options.internal_tokens
        given = _bearer(request)
        if given is not None and known and _is_one_of(given, known):
            return SERVICE
        if access is Access.INTERNAL_ADMIN and (text := presented(request)) is not None:
            actor = await self._admin(text)
            if actor is not None:
                return actor
        if not known:
            raise HttpError(503, INTERNAL_UNSET)
        if not request.headers.get("Authorization"):
            raise HttpError(403, "Internal API requires Authorization header with Bearer token.")
        if given is None:
            raise HttpError(403, "Internal API requires 'Bearer <token>' Authorization scheme.")
        raise HttpError(403, "Invalid service-account token for /api/internal/*.")

    async def _admin(self, text: str) -> Actor | None:
        try:
            actor = await self.identify(text)
        except HttpError:
            return None
        return actor if actor.may(Access.INTERNAL_ADMIN) else None
