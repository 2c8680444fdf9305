"""Access tokens of Google Cloud without its libraries: a signed assertion, a refresh token, or the metadata server.

Only the configured endpoints are asked, whatever a credential says, so that a credential cannot make us call others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import jwt
import orjson
from cryptography.exceptions import UnsupportedAlgorithm

from services.api.http import HttpError, overloaded
from services.api.outbound import outbound

DEFAULT_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
ASSERTION_SECONDS = 3600  # the longest that Google takes
GRANT_ASSERTION = "urn:ietf:params:oauth:grant-type:jwt-bearer"
REQUEST_SECONDS = 10.0
ANSWER_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Where tokens come from."""

    token_url: str
    metadata_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """A token and the time until which it is good."""

    token: str
    expires_at: datetime
    scopes: tuple[str, ...]


def _text(info: Mapping[str, Any], key: str) -> str:
    value = info.get(key)
    if not isinstance(value, str) or not value:
        raise HttpError(422, f"credentials_info.{key} is required for type '{info.get('type')}'")
    return value


def assertion(info: Mapping[str, Any], scopes: Sequence[str], *, audience: str, now: int) -> str:
    """Return the signed JWT (RS256) of a service account.

    Raises:
        HttpError: 422 when the key or the address is missing or wrong; nothing of the key is shown.
    """
    claims = {
        "iss": _text(info, "client_email"),
        "scope": " ".join(scopes),
        "aud": audience,
        "iat": now,
        "exp": now + ASSERTION_SECONDS,
    }
    key = _text(info, "private_key")
    headers = {"kid": info["private_key_id"]} if isinstance(info.get("private_key_id"), str) else None
    try:
        return jwt.encode(claims, key, algorithm="RS256", headers=headers)
    except (ValueError, TypeError, jwt.PyJWTError, UnsupportedAlgorithm) as error:
        raise HttpError(422, "credentials_info.private_key is no RSA key in PEM form") from error


def _unavailable(message: str) -> HttpError:
    return overloaded("google_unavailable", message)


async def _ask(method: str, url: str, **options: Any) -> dict[str, Any]:
    with outbound("google"):
        return await _asked(method, url, **options)


async def _asked(method: str, url: str, **options: Any) -> dict[str, Any]:
    try:
        async with (
            asyncio.timeout(REQUEST_SECONDS),
            aiohttp.ClientSession() as session,
            session.request(method, url, allow_redirects=False, **options) as response,
        ):
            data = await response.content.read(ANSWER_BYTES_MAX)
            status = response.status
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise _unavailable(f"the token endpoint cannot be reached: {type(error).__name__}") from error
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise _unavailable(f"the token endpoint answered {status} without JSON")
    if status != 200 or not isinstance(document.get("access_token"), str):
        reason = str(document.get("error_description") or document.get("error") or "no access_token")[:500]
        text = f"the token endpoint answered {status}: {reason}"
        raise HttpError(422, text) if 400 <= status < 500 else _unavailable(text)
    return document


def _token(document: Mapping[str, Any], scopes: Sequence[str]) -> AccessToken:
    lifetime = document.get("expires_in")
    seconds = lifetime if isinstance(lifetime, int) and 0 < lifetime <= 86_400 else ASSERTION_SECONDS
    return AccessToken(
        token=document["access_token"],
        expires_at=datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds),
        scopes=tuple(scopes),
    )


async def token_of_info(info: Mapping[str, Any], scopes: Sequence[str], endpoints: Endpoints) -> AccessToken:
    """Return a token for a service account's key or a user's refresh token.

    Raises:
        HttpError: 422 when `info` is neither, lacks a field or is refused; 503 when the endpoint is away.
    """
    kind = info.get("type")
    if kind == "service_account":
        signed = assertion(info, scopes, audience=endpoints.token_url, now=int(time.time()))
        form = {"grant_type": GRANT_ASSERTION, "assertion": signed}
    elif kind == "authorized_user":
        form = {key: _text(info, key) for key in ("client_id", "client_secret", "refresh_token")}
        form["grant_type"] = "refresh_token"
    else:
        raise HttpError(422, "credentials_info.type must be 'service_account' or 'authorized_user'")
    return _token(await _ask("POST", endpoints.token_url, data=form), scopes)


async def token_of_metadata(scopes: Sequence[str], endpoints: Endpoints) -> AccessToken:
    """Return a token of the machine's own service account.

    Raises:
        HttpError: 503 when there is no metadata server, 422 when it refuses.
    """
    headers = {"Metadata-Flavor": "Google"}
    document = await _ask("GET", endpoints.metadata_url, params={"scopes": ",".join(scopes)}, headers=headers)
    return _token(document, scopes)
