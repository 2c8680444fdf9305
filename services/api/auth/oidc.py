"""JWTs of an OpenID Connect issuer: signature by its published keys, issuer, audience, times, and the roles in a claim.

Keys are fetched once and kept; a key id that is not known makes them be fetched again, at most every `REFETCH_SECONDS`, so
nobody can make this server flood the issuer. A verified token is remembered by its hash while it is valid, a minute at most.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import jwt
import orjson

from services.api.auth.actor import Actor
from services.api.auth.gate import unauthorized
from services.api.auth.roles import Role
from services.api.http import HttpError
from shared.platform.addresses import is_loopback

if TYPE_CHECKING:
    from shared.platform.settings import ApiSettings

log = logging.getLogger(__name__)

ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})  # asymmetric ones only: a public key must never verify an HMAC
REFETCH_SECONDS = 10.0  # between fetches because of an unknown key id
FETCH_TIMEOUT_SECONDS = 5.0
KEYS_BYTES_MAX = 256 * 1024
KEYS_MAX = 64
JWT_CHARS_MAX = 16 * 1024
REMEMBERED_MAX = 10_000
REMEMBERED_SECONDS = 60.0
CLAIM_DEPTH_MAX = 5
NAME_CHARS_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcOptions:
    """What a JWT must have, and what its claims mean."""

    issuer: str
    audience: str
    jwks_url: str
    algorithms: tuple[str, ...]
    leeway_seconds: float
    keys_seconds: float
    name_claim: str
    role_claim: tuple[str, ...]
    role_map: Mapping[str, Role]


def _role_map(text: str) -> dict[str, Role]:
    found: dict[str, Role] = {}
    for part in filter(None, (item.strip() for item in text.split(","))):
        value, separator, role = part.rpartition("=")
        if not separator or role.strip() not in set(Role):
            raise ValueError(f"NOETL_OIDC_ROLE_MAP: {part!r} is not `value=role` with one of {', '.join(Role)}")
        found[value.strip()] = Role(role.strip())
    return found


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        raise ValueError("NOETL_OIDC_JWKS_URL must be an https URL (http only on loopback)")


def oidc_options(settings: ApiSettings) -> OidcOptions:
    """Return the options in `settings`.

    Raises:
        ValueError: one is missing or wrong; the text names it.
    """
    required = {
        "NOETL_OIDC_ISSUER": settings.noetl_oidc_issuer,
        "NOETL_OIDC_AUDIENCE": settings.noetl_oidc_audience,
        "NOETL_OIDC_JWKS_URL": settings.noetl_oidc_jwks_url,
    }
    missing = [name for name, value in required.items() if not value]
    if missing:
        raise ValueError(f"NOETL_AUTH_MODE=oidc needs {', '.join(missing)}")
    _check_url(settings.noetl_oidc_jwks_url)
    algorithms = tuple(filter(None, (item.strip() for item in settings.noetl_oidc_algorithms.split(","))))
    if not algorithms or not ALGORITHMS.issuperset(algorithms):
        raise ValueError(f"NOETL_OIDC_ALGORITHMS may have {', '.join(sorted(ALGORITHMS))}")
    return OidcOptions(
        issuer=settings.noetl_oidc_issuer,
        audience=settings.noetl_oidc_audience,
        jwks_url=settings.noetl_oidc_jwks_url,
        algorithms=algorithms,
        leeway_seconds=settings.noetl_oidc_leeway_seconds,
        keys_seconds=settings.noetl_oidc_keys_seconds,
        name_claim=settings.noetl_oidc_name_claim,
        role_claim=tuple(settings.noetl_oidc_role_claim.split(".")),
        role_map=_role_map(settings.noetl_oidc_role_map),
    )


def roles_of(claims: Mapping[str, Any], options: OidcOptions) -> frozenset[Role]:
    """Return the roles that the role claim maps to; a claim that is text holds roles with spaces between."""
    value: Any = claims
    for key in options.role_claim[:CLAIM_DEPTH_MAX]:
        value = value.get(key) if isinstance(value, Mapping) else None
    words = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    return frozenset(options.role_map[word] for word in words if isinstance(word, str) and word in options.role_map)


class _Keys:
    """The issuer's published keys by key id, bounded in size, number and fetches."""

    def __init__(self, options: OidcOptions, session: aiohttp.ClientSession) -> None:
        self._options = options
        self._session = session
        self._keys: dict[str, jwt.PyJWK] = {}
        self._tried_at = float("-inf")
        self._fetching = asyncio.Lock()

    async def find(self, key_id: str) -> jwt.PyJWK | None:
        """Return a key; None when the issuer has none of this id.

        Raises:
            HttpError: 503 when there is no key at all because the issuer cannot be reached.
        """
        tried_at = self._tried_at
        age = time.monotonic() - tried_at
        if age >= self._options.keys_seconds or (key_id not in self._keys and age >= REFETCH_SECONDS):
            async with self._fetching:
                if self._tried_at == tried_at:  # else somebody has just done it
                    self._tried_at = time.monotonic()
                    await self._fetch()
        if not self._keys:
            raise HttpError(
                503,
                {"code": "issuer_unavailable", "message": "the issuer's keys cannot be fetched; try again"},
                headers={"Retry-After": str(round(REFETCH_SECONDS))},
            )
        return self._keys.get(key_id)

    async def _fetch(self) -> None:
        """Fetch the keys; when that fails the known ones stay."""
        try:
            self._keys = await self._download()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            log.warning("the issuer's keys cannot be fetched", extra={"error": type(error).__name__})

    async def _download(self) -> dict[str, jwt.PyJWK]:
        timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT_SECONDS)
        async with self._session.get(self._options.jwks_url, timeout=timeout, allow_redirects=False) as response:
            if response.status != 200:
                raise ValueError(f"status {response.status}")
            raw = await response.content.read(KEYS_BYTES_MAX + 1)
        if len(raw) > KEYS_BYTES_MAX:
            raise ValueError("the key set is too large")
        document = orjson.loads(raw)
        listed = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(listed, list):
            raise ValueError("no key set")
        found: dict[str, jwt.PyJWK] = {}
        for item in listed[:KEYS_MAX]:
            try:
                key = jwt.PyJWK.from_dict(item)
            except (jwt.PyJWTError, AttributeError, TypeError, ValueError):
                continue  # of a kind this program does not know
            if key.key_id and key.algorithm_name in self._options.algorithms and item.get("use", "sig") == "sig":
                found[key.key_id] = key
        return found


class OidcVerifier:
    """Tells who a JWT belongs to."""

    def __init__(self, options: OidcOptions, session: aiohttp.ClientSession) -> None:
        self._options = options
        self._keys = _Keys(options, session)
        self._remembered: OrderedDict[bytes, tuple[Actor, float]] = OrderedDict()  # hash: holder, until unix time

    async def verify(self, text: str) -> Actor:
        """Return the holder of a JWT.

        Raises:
            HttpError: 401 when it is not valid, 503 when the issuer's keys cannot be fetched.
        """
        if len(text) > JWT_CHARS_MAX:
            raise _invalid("it is too long")
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
        known = self._remembered.get(digest)
        if known is not None and time.time() < known[1]:
            return known[0]
        claims = await self._claims(text)
        name = claims.get(self._options.name_claim)
        if not isinstance(name, str) or not name:
            raise _invalid(f"its claim {self._options.name_claim} names nobody")
        shown = "".join(character if character.isprintable() else "?" for character in name[:NAME_CHARS_MAX])
        actor = Actor(kind="oidc", name=shown, roles=roles_of(claims, self._options))
        until = min(time.time() + REMEMBERED_SECONDS, float(claims["exp"]) + self._options.leeway_seconds)
        self._remembered[digest] = (actor, until)
        if len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return actor

    async def _claims(self, text: str) -> dict[str, Any]:
        options = self._options
        try:
            header = jwt.get_unverified_header(text)
        except (jwt.PyJWTError, ValueError) as error:
            raise _invalid("it cannot be read") from error
        key_id, algorithm = header.get("kid"), header.get("alg")
        if algorithm not in options.algorithms:
            raise _invalid(f"it must be signed with {' or '.join(options.algorithms)}")
        key = await self._keys.find(key_id) if isinstance(key_id, str) else None
        if key is None or key.algorithm_name != algorithm:
            raise _invalid("its key is none of the issuer's")
        try:
            claims: dict[str, Any] = jwt.decode(
                text,
                key,
                algorithms=[key.algorithm_name],
                audience=options.audience,
                issuer=options.issuer,
                leeway=options.leeway_seconds,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise _invalid(_REASONS.get(type(error), "its signature or claims are wrong")) from error
        return claims


_REASONS: dict[type[Exception], str] = {
    jwt.ExpiredSignatureError: "it has expired",
    jwt.ImmatureSignatureError: "it is not valid yet",
    jwt.InvalidAudienceError: "its audience is another",
    jwt.InvalidIssuerError: "its issuer is another",
}


def _invalid(reason: str) -> HttpError:
    return unauthorized(f"the JWT is not valid: {reason}", error="invalid_token")
