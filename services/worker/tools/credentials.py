"""Credentials by name, read from the API, kept for a short time, and never shown."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.worker.limits import ERROR_DETAIL_MAX_CHARS
from services.worker.redaction import secret_texts
from services.worker.tools.base import ToolBox, ToolCall, ToolError, part
from services.worker.tools.limits import (
    AUTH_DEPTH_MAX,
    CREDENTIAL_ATTEMPTS_MAX,
    CREDENTIAL_CACHE_SECONDS,
    CREDENTIAL_REQUEST_SECONDS,
    CREDENTIAL_STALE_SECONDS,
    CREDENTIALS_CACHED_MAX,
)
from shared.platform.errors import ApiRefusedError, ApiUnavailableError

if TYPE_CHECKING:
    from services.worker.api import WorkerApi


_SOURCES = ("credential", "credentials", "credential_store", "catalog")  # of `{source: credential, key: name}`


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A credential's `type` and members; `name` is empty when the playbook wrote it out."""

    type: str
    fields: Mapping[str, Any]
    name: str = ""


class Credentials:
    """Reads credentials by name. Each is kept `CREDENTIAL_CACHE_SECONDS`, longer while the API does not answer."""

    def __init__(self, api: WorkerApi) -> None:
        self._api = api
        self._kept: OrderedDict[str, tuple[float, Credential]] = OrderedDict()
        self._reading = asyncio.Lock()

    async def get(self, name: str, kind: str) -> Credential:
        """Return credential `name` for a tool of `kind`.

        Raises:
            ToolError: there is none, it is unusable, or the API cannot be asked.
        """
        fresh = self._fresh(name)
        if fresh is not None:
            return fresh
        async with self._reading:  # many commands at once ask once
            return self._fresh(name) or await self._read(name, kind)

    def forget(self, name: str) -> None:
        """Have the next call read `name` again, after it was refused."""
        self._kept.pop(name, None)

    def _fresh(self, name: str) -> Credential | None:
        kept = self._kept.get(name)
        return kept[1] if kept is not None and time.monotonic() - kept[0] < CREDENTIAL_CACHE_SECONDS else None

    async def _read(self, name: str, kind: str) -> Credential:
        try:
            answer = await self._api.credential(
                name, seconds=CREDENTIAL_REQUEST_SECONDS, attempts=CREDENTIAL_ATTEMPTS_MAX
            )
        except ApiUnavailableError as error:
            kept = self._kept.get(name)
            if kept is not None and time.monotonic() - kept[0] < CREDENTIAL_STALE_SECONDS:
                return kept[1]
            text = f"credential '{name}' cannot be read: the API does not answer"
            raise ToolError(kind, "CREDENTIAL_UNAVAILABLE", text, retryable=True) from error
        except ApiRefusedError as error:
            self.forget(name)
            if error.status == 404:
                text = f"credential '{name}' does not exist; register it with POST /api/credentials"
                raise ToolError(kind, "CREDENTIAL_NOT_FOUND", text) from error
            text = f"credential '{name}' cannot be read: {str(error)[:ERROR_DETAIL_MAX_CHARS]}"
            raise ToolError(kind, "CREDENTIAL", text) from error
        credential = _credential(name, answer, kind)
        self._kept[name] = (time.monotonic(), credential)
        while len(self._kept) > CREDENTIALS_CACHED_MAX:
            self._kept.popitem(last=False)
        return credential


def _credential(name: str, answer: Any, kind: str) -> Credential:
    data = answer.get("data") if isinstance(answer, dict) else None
    if isinstance(data, dict) and isinstance(data.get("data"), dict):
        data = data["data"]
    if not isinstance(data, dict):
        raise ToolError(kind, "CREDENTIAL", f"credential '{name}' has no data that is an object")
    return Credential(type=str(answer.get("type") or "").lower(), fields=data, name=name)


async def named(name: str, call: ToolCall, box: ToolBox) -> Credential:
    """Return a credential by name; its secrets are kept out of the call's output.

    Raises:
        ToolError: see `Credentials.get`.
    """
    credential = await part(box.credentials, call.kind, "credentials").get(name, call.kind)
    call.credentials.add(name)
    call.secrets.update(secret_texts(credential.fields))
    return credential


def _by_alias(auth: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the one that matters of `{alias: {type, key: <credential>}}`, None when `auth` is no such map."""
    if not auth or not all(isinstance(value, Mapping) for value in auth.values()):
        return None
    chosen: Mapping[str, Any] = next(iter(auth.values()))
    key = chosen.get("key")
    if isinstance(key, str) and not chosen.get("credential"):
        chosen = {**{name: value for name, value in chosen.items() if name != "key"}, "credential": key}
    return chosen


async def resolved(auth: object, call: ToolCall, box: ToolBox, *, depth: int = 0) -> Credential | None:
    """Return what `auth` means: a credential's name, `{credential: name, ...}`, `{alias: {...}}` or the secret written out.

    Members beside `credential` win over the credential's own.

    Raises:
        ToolError: a named credential cannot be had, or `auth` is none of these.
    """
    if auth is None or auth == "" or auth == {}:
        return None
    if isinstance(auth, str):
        return await named(auth, call, box)
    if not isinstance(auth, Mapping) or depth >= AUTH_DEPTH_MAX:
        raise ToolError(call.kind, "BAD_CONFIG", "`auth` must be a credential's name or an object with `type`")
    if auth.get("source") in _SOURCES and isinstance(auth.get("key"), str) and not auth.get("credential"):
        auth = {
            **{key: value for key, value in auth.items() if key not in ("source", "key")},
            "credential": auth["key"],
        }
    alias = _by_alias(auth)
    if alias is not None:
        return await resolved(alias, call, box, depth=depth + 1)
    own = {key: value for key, value in auth.items() if key not in ("credential", "type") and value is not None}
    name = auth.get("credential")
    kind = str(auth.get("type") or "").lower()
    call.secrets.update(secret_texts(own))
    if name is None or name == "":
        return Credential(type=kind, fields=own)
    found = await resolved(name, call, box, depth=depth + 1)
    fields = {**found.fields, **own} if found is not None else own
    return Credential(type=kind or (found.type if found else ""), fields=fields, name=found.name if found else "")


async def credential_of(call: ToolCall, box: ToolBox) -> Credential | None:
    """Return the credential that the tool's `auth` or `credential` says; None without either.

    Raises:
        ToolError: see `resolved`.
    """
    auth = call.config.get("auth")
    return await resolved(auth if auth not in (None, "", {}) else call.config.get("credential"), call, box)
