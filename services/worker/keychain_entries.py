"""Keychain entries: read from the API, renewed before they expire, and made from the playbook's `keychain` when there are none.

Secrets are fetched here, in the worker, and handed to the API only to be kept encrypted; the control plane never renders them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

import aiohttp
import orjson
import yaml

from services.worker.limits import (
    CLAIM_ATTEMPTS_MAX,
    KEYCHAIN_ANSWER_MAX_BYTES,
    KEYCHAIN_RENEW_BEFORE_SECONDS,
    KEYCHAIN_REQUEST_SECONDS,
    KEYCHAIN_TTL_SECONDS,
    KEYCHAIN_WAIT_SECONDS,
    KEYCHAINS_CACHED_MAX,
)
from services.worker.tools.base import ToolError
from shared.platform.errors import ApiRefusedError, ApiUnavailableError

log = logging.getLogger(__name__)

Render = Callable[[Any], Awaitable[Any]]  # evaluates the templates of a definition, keychain entries included
_CREDENTIAL_KINDS = frozenset({"credential", "credential_ref", "google_oauth", "google_service_account", "google"})
_SECRET_KINDS = frozenset({"secrets", "secret", "secret_manager"})
_TOKEN_TYPES = {"oauth2": "oauth2_client_credentials", "bearer": "bearer"}
_OWN_KEYS = frozenset(
    {"name", "kind", "type", "scope", "auto_renew", "ttl_seconds", "data", "map", "desc", "description"}
)


class AsksApi(Protocol):
    """The API, as `services.worker.api.WorkerApi`."""

    async def ask(
        self, method: str, path: str, body: object = None, *, seconds: float = ..., attempts: int = ...
    ) -> Any:
        """Make one call."""


class GetsSecrets(Protocol):
    """What reads secrets that are kept elsewhere."""

    async def credential(self, name: str) -> Mapping[str, Any]:
        """Return the fields of a credential."""

    async def secret(self, provider: str, name: str, auth: Any) -> Any:
        """Return a secret of another store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose entry it is: the playbook's version, and the execution for local ones."""

    catalog_id: int
    execution_id: int


@dataclass(slots=True)
class _Known:
    """The definitions of a playbook, which never change, and a lock per entry: one command makes or renews it for all."""

    definitions: Mapping[str, Mapping[str, Any]] | None = None
    making: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))


def _error(text: str, *, retryable: bool = False) -> ToolError:
    return ToolError("worker", "KEYCHAIN", text, retryable=retryable)


class KeychainEntries:
    """The entries that commands of this worker ask for."""

    def __init__(self, api: AsksApi, session: aiohttp.ClientSession) -> None:
        self._api = api
        self._session = session
        self._known: OrderedDict[int, _Known] = OrderedDict()

    async def fields(self, owner: Owner, name: str, render: Render, secrets: GetsSecrets) -> Mapping[str, Any]:
        """Return the fields of an entry.

        Raises:
            ToolError: there is none, or it cannot be read, made or renewed.
        """
        try:
            entry = await self._stored(owner, name)
            if entry is not None and not _is_due(entry):
                return _data(entry)
            async with asyncio.timeout(KEYCHAIN_WAIT_SECONDS), self._of(owner.catalog_id).making[name]:
                entry = await self._stored(owner, name)  # another command may have been faster
                if entry is not None and not _is_due(entry):
                    return _data(entry)
                definition = await self._definition(owner.catalog_id, name)
                return await self._made(owner, name, entry, definition, render, secrets)
        except (ApiUnavailableError, ApiRefusedError) as error:
            raise _error(f"the keychain cannot be read: {error}", retryable=True) from error
        except TimeoutError as error:
            raise _error(f"keychain entry '{name}' took over {KEYCHAIN_WAIT_SECONDS:g} s", retryable=True) from error

    async def _stored(self, owner: Owner, name: str) -> Mapping[str, Any] | None:
        """Return what the API knows of an entry, the global one before the execution's own."""
        path = f"/api/keychain/{owner.catalog_id}/{quote(name, safe='')}"
        for query in ("?scope_type=global", f"?scope_type=local&execution_id={owner.execution_id}"):
            answer = await self._api.ask("GET", path + query, attempts=CLAIM_ATTEMPTS_MAX)
            if isinstance(answer, Mapping) and answer.get("status") in ("success", "expired"):
                return answer
        return None

    def _of(self, catalog_id: int) -> _Known:
        known = self._known.setdefault(catalog_id, _Known())
        self._known.move_to_end(catalog_id)
        while len(self._known) > KEYCHAINS_CACHED_MAX:
            self._known.popitem(last=False)
        return known

    async def _definition(self, catalog_id: int, name: str) -> Mapping[str, Any] | None:
        known = self._of(catalog_id)
        if known.definitions is None:
            answer = await self._api.ask("POST", "/api/catalog/resource", {"catalog_id": catalog_id})
            known.definitions = await asyncio.to_thread(_definitions, answer)  # a megabyte of YAML takes a second
        return known.definitions.get(name)

    async def _made(
        self,
        owner: Owner,
        name: str,
        entry: Mapping[str, Any] | None,
        definition: Mapping[str, Any] | None,
        render: Render,
        secrets: GetsSecrets,
    ) -> Mapping[str, Any]:
        """Renew an entry, or make it from its definition, and have the API keep it."""
        renewal = entry.get("renew_config") if entry is not None else None
        try:
            if isinstance(renewal, Mapping) and renewal.get("endpoint"):
                data = await self._token(name, renewal)
                definition = {"kind": "oauth2", "auto_renew": True, "scope": entry and entry.get("scope_type")}
            elif definition is not None:
                renewal, data = await self._from(name, definition, render, secrets)
            else:
                raise _error(
                    f"keychain entry '{name}' does not exist or has expired; define it in the playbook's `keychain`, "
                    "or POST it to /api/keychain"
                )
        except ToolError:
            if entry is not None and entry.get("status") == "success":  # it still holds for a while
                log.warning("keychain entry not renewed", extra={"keychain": name, "execution_id": owner.execution_id})
                return _data(entry)
            raise
        await self._keep(owner, name, definition, data, renewal)
        return data

    async def _from(
        self, name: str, definition: Mapping[str, Any], render: Render, secrets: GetsSecrets
    ) -> tuple[Mapping[str, Any] | None, Mapping[str, Any]]:
        """Return how to renew it, if it can be, and the fields of a defined entry."""
        kind = str(definition.get("kind") or definition.get("type") or "static").lower()
        if kind == "oauth2":
            keys = ("endpoint", "method", "headers", "data", "json", "params", "token_field", "ttl_field")
            request = await render({key: definition[key] for key in keys if definition.get(key) is not None})
            return request, await self._token(name, request)
        if kind in _SECRET_KINDS:
            return None, await _from_secrets(name, definition, render, secrets)
        if kind in _CREDENTIAL_KINDS:
            given = next((definition[key] for key in ("credential", "ref", "auth") if definition.get(key)), name)
            data = await secrets.credential(str(await render(given)))
            return None, _mapped(data, definition.get("map"))
        if kind == "bearer":
            token = await render(definition.get("token"))
            return None, {"token": token, "access_token": token, "token_type": "Bearer"}
        if kind == "static":
            given = definition.get("data") or definition.get("map")
            if not isinstance(given, Mapping):
                given = {key: value for key, value in definition.items() if key not in _OWN_KEYS}
            return None, await render(dict(given))
        raise _error(f"keychain entry '{name}': kind '{kind}' is not supported by this worker")

    async def _token(self, name: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask a token endpoint and return its answer."""
        endpoint = str(request.get("endpoint") or "")
        if not endpoint.startswith(("http://", "https://")):
            raise _error(f"keychain entry '{name}' needs `endpoint`, starting with http:// or https://")
        headers = {str(key): str(value) for key, value in _mapping(request.get("headers")).items()}
        parts: dict[str, Any] = {"params": _mapping(request.get("params")) or None}
        if request.get("json") is not None:
            parts["json"] = request["json"]
        elif isinstance(request.get("data"), str):
            parts["data"] = request["data"]
        elif request.get("data"):
            parts["data"] = {str(key): str(value) for key, value in _mapping(request["data"]).items()}
        timeout = aiohttp.ClientTimeout(total=KEYCHAIN_REQUEST_SECONDS)
        method = str(request.get("method") or "POST").upper()
        try:
            async with self._session.request(method, endpoint, headers=headers, timeout=timeout, **parts) as response:
                raw = await response.content.readexactly(KEYCHAIN_ANSWER_MAX_BYTES)
        except asyncio.IncompleteReadError as ended:  # the usual end: all of a short answer
            raw = ended.partial
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            text = f"keychain entry '{name}': the token endpoint does not answer: {type(error).__name__}"
            raise _error(text, retryable=True) from error
        try:
            answer = orjson.loads(raw) if response.status < 300 else None
        except orjson.JSONDecodeError:
            answer = None
        if not isinstance(answer, Mapping):
            text = f"keychain entry '{name}': the token endpoint answered {response.status} without a JSON object"
            raise _error(text, retryable=response.status >= 500)
        inner = answer.get("data")
        wanted = str(request.get("token_field") or "access_token")
        return inner if wanted not in answer and isinstance(inner, Mapping) else answer

    async def _keep(
        self,
        owner: Owner,
        name: str,
        definition: Mapping[str, Any],
        data: Mapping[str, Any],
        renewal: Mapping[str, Any] | None,
    ) -> None:
        """Have the API keep an entry until it expires; the command goes on without that."""
        kind = str(definition.get("kind") or definition.get("type") or "static").lower()
        scope = str(definition.get("scope") or "global").lower()
        scope = scope if scope in KEYCHAIN_TTL_SECONDS else "global"
        ttl = _ttl(definition.get("ttl_seconds")) or _ttl(
            data.get(str((renewal or {}).get("ttl_field") or "expires_in"))
        )
        body = {
            "token_data": data,
            "credential_type": _TOKEN_TYPES.get(kind, kind),
            "cache_type": "token" if kind in _TOKEN_TYPES else "secret",
            "scope_type": scope,
            "execution_id": owner.execution_id if scope != "global" else None,
            "ttl_seconds": ttl or KEYCHAIN_TTL_SECONDS[scope],
            "auto_renew": bool(definition.get("auto_renew")) and renewal is not None,
            "renew_config": renewal if definition.get("auto_renew") else None,
        }
        fields = {"keychain": name, "execution_id": owner.execution_id}
        try:
            await self._api.ask("POST", f"/api/keychain/{owner.catalog_id}/{quote(name, safe='')}", body)
        except (ApiUnavailableError, ApiRefusedError) as error:
            log.warning("keychain entry not kept", extra={**fields, "error": str(error)})


def _is_due(entry: Mapping[str, Any]) -> bool:
    """Whether an entry has expired, or soon will and can be renewed."""
    if entry.get("status") != "success":
        return True
    left = entry.get("ttl_seconds")
    ends_soon = isinstance(left, int | float) and left < KEYCHAIN_RENEW_BEFORE_SECONDS
    return ends_soon and bool(entry.get("auto_renew")) and isinstance(entry.get("renew_config"), Mapping)


def _data(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    return _mapping(entry.get("token_data"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _ttl(value: Any) -> int:
    try:
        return max(int(float(value)), 0)
    except (TypeError, ValueError, OverflowError):
        return 0


def _definitions(answer: Any) -> Mapping[str, Mapping[str, Any]]:
    """Return the keychain of a playbook by name; none when its text cannot be read."""
    content = answer.get("content") if isinstance(answer, Mapping) else None
    try:
        document = yaml.safe_load(content) if isinstance(content, str) else content
    except yaml.YAMLError:
        document = None
    listed = document.get("keychain") if isinstance(document, Mapping) else None
    items = [item for item in listed if isinstance(item, Mapping)] if isinstance(listed, list) else []
    return {str(item.get("name")): item for item in items if item.get("name")}


def _mapped(data: Mapping[str, Any], wanted: Any) -> Mapping[str, Any]:
    """Return the fields that `map: {name: field}` names, all without one."""
    if not isinstance(wanted, Mapping):
        return data
    return {str(name): data.get(str(field)) for name, field in wanted.items()}


async def _from_secrets(
    name: str, definition: Mapping[str, Any], render: Render, secrets: GetsSecrets
) -> Mapping[str, Any]:
    wanted = await render(dict(_mapping(definition.get("map"))))
    if not wanted:
        raise _error(f"keychain entry '{name}' needs `map`: {{field: name of the secret}}")
    provider, auth = str(definition.get("provider") or "gcp"), await render(definition.get("auth"))
    return {str(key): await secrets.secret(provider, str(secret), auth) for key, secret in wanted.items()}
