"""`auth` of an http tool: what a credential adds to the request."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from services.worker.tools.base import ToolBox, ToolCall, ToolError
from services.worker.tools.credentials import Credential, credential_of
from services.worker.tools.oauth import Tokens, is_client_credentials

KIND = "http"
_BEARER = frozenset(
    {
        "bearer",
        "bearer_token",
        "token",
        "access_token",
        "oauth",
        "oauth2",
        "httpbearerauth",
        "oauth2_client_credentials",
    }
    | {"oauth2_token", "client_credentials", "http_bearer"}
)
_BASIC = frozenset({"basic", "httpbasicauth", "http_basic", "basic_auth"})
_API_KEY = frozenset({"api_key", "apikey", "api-key"})
_HEADERS = frozenset({"header", "headers", "custom", "custom_header"})
_TOKEN_KEYS = ("token", "access_token", "bearer_token", "bearer", "value", "key")
_KEY_KEYS = ("api_key", "key", "value", "token")
_KEY_HEADER = "X-API-Key"


def _first(fields: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    return next((str(fields[key]) for key in keys if fields.get(key) not in (None, "")), None)


def _type(credential: Credential) -> str:
    """Return the way to authenticate: what the type says, else what the members look like."""
    kind, fields = credential.type, credential.fields
    for known, name in ((_BEARER, "bearer"), (_BASIC, "basic"), (_API_KEY, "api_key"), (_HEADERS, "header")):
        if kind in known:
            return name
    if kind in ("none", "noauth"):
        return "none"
    if kind.startswith(("gcp", "google", "aws", "azure")) and not _first(fields, ("token", "access_token")):
        text = f"auth type '{kind}' is not in this worker; fetch the token in a step before and use type bearer"
        raise ToolError(KIND, "BAD_CONFIG", text)
    if _first(fields, ("token", "access_token", "bearer_token")) or is_client_credentials(fields):
        return "bearer"
    if fields.get("username") and "password" in fields:
        return "basic"
    if fields.get("api_key"):
        return "api_key"
    if isinstance(fields.get("headers"), Mapping):
        return "header"
    text = f"auth type '{kind}' is not known; use bearer, basic, api_key, header or oauth2_client_credentials"
    raise ToolError(KIND, "BAD_CONFIG", text)


def _missing(what: str, credential: Credential) -> ToolError:
    where = f"credential '{credential.name}'" if credential.name else "`auth`"
    return ToolError(KIND, "BAD_CREDENTIAL", f"{where} has no {what}")


async def _bearer(credential: Credential, call: ToolCall, box: ToolBox) -> str:
    token = _first(credential.fields, _TOKEN_KEYS)
    if token is None and is_client_credentials(credential.fields):
        tokens = box.tokens or Tokens(box.session)
        token = (await tokens.get(credential.fields, KIND)).access_token
        call.secrets.add(token)
    if token is None:
        raise _missing("`token`", credential)
    return f"Bearer {token}"


def _custom(credential: Credential) -> dict[str, str]:
    fields = credential.fields
    given = fields.get("headers")
    if isinstance(given, Mapping):
        return {str(name): str(value) for name, value in given.items()}
    name, value = _first(fields, ("name", "header", "header_name")), _first(fields, ("value", "token", "key"))
    if name is None or value is None:
        raise _missing("`name` and `value` of the header", credential)
    return {name: value}


async def authorization(call: ToolCall, box: ToolBox) -> tuple[dict[str, str], dict[str, str]]:
    """Return the headers and query parameters that `auth` means; both empty without it.

    Raises:
        ToolError: the credential cannot be had, lacks a member, or is of a type that is not known.
    """
    credential = await credential_of(call, box)
    if credential is None:
        return {}, {}
    kind, fields = _type(credential), credential.fields
    if kind == "none":
        return {}, {}
    if kind == "bearer":
        return {"Authorization": await _bearer(credential, call, box)}, {}
    if kind == "basic":
        user, password = _first(fields, ("username", "user")), _first(fields, ("password", "pass")) or ""
        if user is None:
            raise _missing("`username`", credential)
        encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
        call.secrets.add(encoded)
        return {"Authorization": f"Basic {encoded}"}, {}
    if kind == "header":
        return _custom(credential), {}
    value = _first(fields, _KEY_KEYS)
    if value is None:
        raise _missing("`api_key`", credential)
    if str(fields.get("in") or fields.get("location") or "").lower() == "query":
        return {}, {_first(fields, ("param", "name")) or "api_key": value}
    return {_first(fields, ("header", "header_name", "name")) or _KEY_HEADER: value}, {}
