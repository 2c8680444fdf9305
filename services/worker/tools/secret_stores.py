"""Where secrets lie: credentials of the API, chosen variables of the worker's environment, and secret stores over HTTP."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson

from services.worker.tools.base import ToolBox, ToolCall, ToolError, environment_value
from services.worker.tools.credentials import Credential, named
from services.worker.tools.limits import SECRET_MAX_BYTES, SECRET_REQUEST_SECONDS
from services.worker.tools.oauth import Tokens, is_client_credentials

_GCP = "https://secretmanager.googleapis.com"
_ALIASES = {
    **dict.fromkeys(("gcp", "google", "secret_manager", "gcp_secret_manager"), "gcp"),
    **dict.fromkeys(("azure", "azure_key_vault", "keyvault"), "azure"),
    **dict.fromkeys(("vault", "hashicorp"), "vault"),
    **dict.fromkeys(("aws", "aws_secrets_manager"), "aws"),
    **dict.fromkeys(("env", "environment"), "env"),
    **dict.fromkeys(("credential", "credentials", "noetl", "database", ""), "credential"),
    **dict.fromkeys(("k8s", "kubernetes"), "k8s"),
}


def _failed(call: ToolCall, text: str, *, code: str = "SECRET", retryable: bool = False) -> ToolError:
    return ToolError(call.kind, code, text, retryable=retryable)


def _first(fields: Mapping[str, Any], *keys: str) -> str | None:
    return next((str(fields[key]) for key in keys if fields.get(key) not in (None, "")), None)


async def _get(call: ToolCall, box: ToolBox, url: str, headers: Mapping[str, str], what: str) -> Any:
    timeout = aiohttp.ClientTimeout(total=SECRET_REQUEST_SECONDS)
    try:
        async with box.session.get(url, headers=headers, timeout=timeout, allow_redirects=False) as response:
            raw = await response.content.read(SECRET_MAX_BYTES)
            status = response.status
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise _failed(call, f"{what} cannot be read: {type(error).__name__}", retryable=True) from error
    if status == 404:
        raise _failed(call, f"{what} does not exist", code="SECRET_NOT_FOUND")
    if status != 200:
        raise _failed(call, f"{what} cannot be read: the store answered {status}", retryable=status >= 500)
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _failed(call, f"{what} cannot be read: the answer is no JSON") from error


async def _token(auth: Credential | None, call: ToolCall, box: ToolBox, provider: str) -> str:
    if auth is not None:
        token = _first(auth.fields, "token", "access_token", "vault_token", "bearer_token")
        if token is None and is_client_credentials(auth.fields):
            token = (await (box.tokens or Tokens(box.session)).get(auth.fields, call.kind)).access_token
            call.secrets.add(token)
        if token is not None:
            return token
    text = f"provider {provider} is not configured: `auth` needs a credential with `token`, or with client_id and token_url"
    raise _failed(call, text, code="NOT_CONFIGURED")


def _address(auth: Credential | None, call: ToolCall, provider: str, *keys: str) -> str:
    address = _first(auth.fields, *keys) if auth is not None else None
    if address is None or not address.lower().startswith(("http://", "https://")):
        text = (
            f"provider {provider} is not configured: its credential needs `{keys[0]}`, an http:// or https:// address"
        )
        raise _failed(call, text, code="NOT_CONFIGURED")
    return address.rstrip("/")


async def _vault(path: str, auth: Credential | None, call: ToolCall, box: ToolBox) -> dict[str, Any]:
    address = _address(auth, call, "vault", "address", "vault_addr", "url", "endpoint")
    headers = {"X-Vault-Token": await _token(auth, call, box, "vault")}
    answer = await _get(call, box, f"{address}/v1/{quote(path.strip('/'))}", headers, f"secret '{path}'")
    data = answer.get("data") if isinstance(answer, dict) else None
    if isinstance(data, dict) and isinstance(data.get("data"), dict):
        data = data["data"]
    return data if isinstance(data, dict) else {"value": data}


async def _gcp(path: str, auth: Credential | None, call: ToolCall, box: ToolBox) -> dict[str, Any]:
    token = await _token(auth, call, box, "gcp")
    fields = auth.fields if auth is not None else {}
    project = _first(fields, "project_id", "project") or str(call.config.get("project") or "")
    name = path if path.startswith("projects/") else f"projects/{project}/secrets/{path}"
    name = name if "/versions/" in name else f"{name}/versions/latest"
    base = _first(fields, "endpoint") or _GCP
    headers = {"Authorization": f"Bearer {token}"}
    answer = await _get(call, box, f"{base.rstrip('/')}/v1/{quote(name)}:access", headers, f"secret '{path}'")
    try:
        return _parsed(base64.b64decode(answer["payload"]["data"], validate=True).decode())
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise _failed(call, f"secret '{path}' cannot be read: the answer has no payload") from error


async def _azure(path: str, auth: Credential | None, call: ToolCall, box: ToolBox) -> dict[str, Any]:
    address = _address(auth, call, "azure", "vault_url", "endpoint")
    headers = {"Authorization": f"Bearer {await _token(auth, call, box, 'azure')}"}
    url = f"{address}/secrets/{quote(path)}?api-version=7.4"
    answer = await _get(call, box, url, headers, f"secret '{path}'")
    return _parsed(str(answer.get("value", "")) if isinstance(answer, dict) else "")


def _env(path: str, call: ToolCall, box: ToolBox) -> dict[str, Any]:
    allowed = box.settings.noetl_keychain_env_vars if box.settings else ""
    if path not in {name.strip() for name in allowed.split(",") if name.strip()}:
        text = f"variable '{path}' is not one of NOETL_KEYCHAIN_ENV_VARS, which lists what playbooks may read"
        raise _failed(call, text, code="NOT_CONFIGURED")
    value = environment_value(path)
    if value is None:
        raise _failed(call, f"variable '{path}' is not set in the worker's environment", code="SECRET_NOT_FOUND")
    return _parsed(value)


def _parsed(text: str) -> dict[str, Any]:
    """Return a secret's members: of a JSON object its own, of other text `value`."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    return found if isinstance(found, dict) else {"value": text}


async def read_secret(
    provider: str, path: str, auth: Credential | None, call: ToolCall, box: ToolBox
) -> dict[str, Any]:
    """Return the members of a secret.

    Args:
        provider: credential, env, vault, gcp or azure.
        path: its name there.
        auth: how to log in to the store.
        call: for whose tool; it learns what must not be shown.
        box: what tools share.

    Raises:
        ToolError: the provider is not in this worker or not configured, or the secret cannot be had.
    """
    kind = _ALIASES.get(provider.lower())
    if kind == "credential":
        return dict((await named(path, call, box)).fields)
    if kind == "env":
        return _env(path, call, box)
    readers = {"vault": _vault, "gcp": _gcp, "azure": _azure}
    if kind not in readers:
        text = f"secrets of provider '{provider}' are not in this worker; use credential, env, vault, gcp or azure"
        raise _failed(call, text, code="NOT_AVAILABLE")
    return await readers[kind](path, auth, call, box)
