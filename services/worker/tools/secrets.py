"""`secrets`: brings a secret into the keychain of the execution, from where templates read it. It is never in the output."""

from __future__ import annotations

import re
from typing import Any

from services.worker.limits import ERROR_DETAIL_MAX_CHARS
from services.worker.redaction import secret_texts
from services.worker.tools.base import ToolBox, ToolCall, ToolError, part
from services.worker.tools.credentials import resolved
from services.worker.tools.limits import KEYCHAIN_ATTEMPTS_MAX, SECRET_REQUEST_SECONDS, SECRET_TTL_SECONDS
from services.worker.tools.secret_stores import read_secret
from shared.platform.errors import ApiRefusedError, ApiUnavailableError
from shared.wire.types import parse_id


async def run(call: ToolCall, box: ToolBox) -> dict[str, Any]:
    """Store the secret as keychain entry `keychain` (without it: named as the secret) for this execution, and say so.

    A later step reads it as `{{ keychain.<entry>.<field> }}`.

    Raises:
        ToolError: the secret cannot be had, has no such `field`, or the API does not store it.
    """
    config = call.config
    provider = str(config.get("provider") or ("credential" if config.get("credential") else "")).lower()
    path = next(
        (str(config[key]) for key in ("secret", "secret_name", "secret_id", "path", "credential") if config.get(key)),
        None,
    )
    if path is None:
        raise ToolError(
            call.kind, "BAD_CONFIG", "a secrets tool needs `secret`, or `credential` with a credential's name"
        )
    auth = await resolved(config.get("auth"), call, box)
    data = await read_secret(provider, path, auth, call, box)
    field = config.get("field")
    if field:
        if str(field) not in data:
            raise ToolError(call.kind, "SECRET_NOT_FOUND", f"secret '{path}' has no field '{field}'")
        data = {str(field): data[str(field)], "value": data[str(field)]}
    call.secrets.update(secret_texts(data))
    entry = re.sub(r"\W", "_", str(config.get("keychain") or config.get("as") or path.rstrip("/").rsplit("/", 1)[-1]))
    await _store(entry, data, call, box)
    return {
        "status": "success",
        "provider": provider or "credential",
        "keychain": entry,
        "fields": sorted(data),
        "ttl_seconds": SECRET_TTL_SECONDS,
    }


async def _store(entry: str, data: dict[str, Any], call: ToolCall, box: ToolBox) -> None:
    catalog_id = parse_id(call.context.get("catalog_id"))
    if catalog_id is None or not call.execution:
        raise ToolError(
            call.kind, "BAD_CONTEXT", "the command has no catalog_id and execution_id; a keychain belongs to them"
        )
    body = {
        "token_data": data,
        "credential_type": "secret",
        "cache_type": "secret",
        "scope_type": "local",
        "execution_id": call.execution,
        "ttl_seconds": SECRET_TTL_SECONDS,
    }
    api = part(box.api, call.kind, "an API")
    path = f"/api/keychain/{catalog_id}/{entry}"
    try:
        await api.ask("POST", path, body, seconds=SECRET_REQUEST_SECONDS, attempts=KEYCHAIN_ATTEMPTS_MAX)
    except (ApiUnavailableError, ApiRefusedError) as error:
        text = f"the keychain does not take the secret: {str(error)[:ERROR_DETAIL_MAX_CHARS]}"
        raise ToolError(call.kind, "KEYCHAIN", text, retryable=isinstance(error, ApiUnavailableError)) from error
