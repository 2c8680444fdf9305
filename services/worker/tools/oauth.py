"""Access tokens of OAuth 2 client credentials, fetched once and reused until shortly before they end."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from services.worker.tools.base import ToolError
from services.worker.tools.limits import (
    TOKEN_EARLY_SECONDS,
    TOKEN_REQUEST_SECONDS,
    TOKEN_RESPONSE_MAX_BYTES,
    TOKEN_SECONDS_DEFAULT,
    TOKENS_CACHED_MAX,
)

_URL_KEYS = ("token_url", "token_uri", "token_endpoint", "endpoint", "url")


@dataclass(frozen=True, slots=True)
class Token:
    """What a token endpoint answered: the token, its whole answer, and how long it lives (s)."""

    access_token: str
    fields: Mapping[str, Any]
    lives_seconds: float


def is_client_credentials(fields: Mapping[str, Any]) -> bool:
    """Whether the members say how to fetch a token."""
    return bool(fields.get("client_id") and any(fields.get(key) for key in _URL_KEYS))


def _form(fields: Mapping[str, Any]) -> dict[str, str]:
    names = ("client_id", "client_secret", "scope", "audience", "resource", "refresh_token", "username", "password")
    given = {name: str(fields[name]) for name in names if fields.get(name)}
    default = "refresh_token" if "refresh_token" in given else "client_credentials"
    return {"grant_type": str(fields.get("grant_type") or default), **given}


def _failed(kind: str, text: str, *, retryable: bool = False) -> ToolError:
    return ToolError(kind, "TOKEN", text, retryable=retryable)


async def fetch_token(fields: Mapping[str, Any], session: aiohttp.ClientSession, kind: str) -> Token:
    """Ask the token endpoint that the members name.

    Raises:
        ToolError: it does not answer, refuses, or answers no token.
    """
    url = next((str(fields[key]) for key in _URL_KEYS if fields.get(key)), "")
    if not url.lower().startswith(("http://", "https://")):
        raise _failed(kind, "a token needs `token_url`, which starts with http:// or https://")
    timeout = aiohttp.ClientTimeout(total=TOKEN_REQUEST_SECONDS)
    try:
        async with session.post(url, data=_form(fields), timeout=timeout, allow_redirects=False) as response:
            body = await response.content.read(TOKEN_RESPONSE_MAX_BYTES)
            status = response.status
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise _failed(kind, f"no token from {url}: {type(error).__name__}", retryable=True) from error
    if status != 200:
        raise _failed(kind, f"no token from {url}: it answered {status}", retryable=status >= 500 or status == 429)
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    token = answer.get("access_token") if isinstance(answer, dict) else None
    if not isinstance(token, str) or not token:
        raise _failed(kind, f"no token from {url}: the answer has no `access_token`")
    seconds = answer.get("expires_in")
    lives = float(seconds) if isinstance(seconds, (int, float)) and seconds > 0 else TOKEN_SECONDS_DEFAULT
    return Token(token, answer, lives)


class Tokens:
    """Tokens by what they were asked for."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._kept: OrderedDict[tuple[tuple[str, str], ...], tuple[float, Token]] = OrderedDict()

    async def get(self, fields: Mapping[str, Any], kind: str) -> Token:
        """Return a token that lives on for a while.

        Raises:
            ToolError: see `fetch_token`.
        """
        key = tuple(sorted((str(name), str(value)) for name, value in fields.items()))
        kept = self._kept.get(key)
        if kept is not None and time.monotonic() < kept[0]:
            return kept[1]
        token = await fetch_token(fields, self._session, kind)
        self._kept[key] = (time.monotonic() + token.lives_seconds - TOKEN_EARLY_SECONDS, token)
        self._kept.move_to_end(key)
        while len(self._kept) > TOKENS_CACHED_MAX:
            self._kept.popitem(last=False)
        return token
