"""`script`: the source text of a tool that lies in the playbook, a file or at an address."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp

from services.worker.limits import HTTP_CHUNK_BYTES, HTTP_REDIRECTS_MAX
from services.worker.tools.base import ToolBox, ToolCall, ToolError
from services.worker.tools.limits import SCRIPT_MAX_BYTES

_CLOUD = {"gcs": "gs://", "gs": "gs://", "s3": "s3://", "azure": "azure://", "oci": "oci://"}


def _failed(call: ToolCall, text: str, *, retryable: bool = False) -> ToolError:
    return ToolError(call.kind, "SCRIPT", text, retryable=retryable)


def local_path(text: str, box: ToolBox) -> Path:
    """Return the file that a path, `file://` or `artifact://` means; relative ones start at `NOETL_WORKER_FILES_DIR`."""
    plain = unquote(urlsplit(text).path) if text.startswith("file://") else text
    plain = plain.replace("artifact://localfs/", "/").replace("artifact://", "")
    root = Path(box.settings.noetl_worker_files_dir) if box.settings else Path()
    return root / Path(plain).expanduser()


def _read_text(path: Path) -> str:
    with path.open("rb") as file:
        raw = file.read(SCRIPT_MAX_BYTES + 1)
    if len(raw) > SCRIPT_MAX_BYTES:
        raise ValueError(f"it is over {SCRIPT_MAX_BYTES} bytes")
    return raw.decode()


async def _from_file(uri: str, call: ToolCall, box: ToolBox) -> str:
    path = local_path(uri, box)
    try:
        return await asyncio.to_thread(_read_text, path)
    except FileNotFoundError as error:
        raise _failed(call, f"the script file {path} does not exist on this worker") from error
    except (OSError, ValueError) as error:
        reason = "it is no UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise _failed(call, f"the script file {path} cannot be read: {reason}") from error


async def _from_address(uri: str, source: Mapping[str, Any], call: ToolCall, box: ToolBox) -> str:
    endpoint = str(source.get("endpoint") or "")
    url = uri if uri.lower().startswith(("http://", "https://")) else f"{endpoint.rstrip('/')}/{uri.lstrip('/')}"
    if not url.lower().startswith(("http://", "https://")):
        raise _failed(call, "a script of type http needs a `uri` or an `endpoint` that starts with http:// or https://")
    headers = source.get("headers") or {}
    if not isinstance(headers, Mapping):
        raise _failed(call, "`script.source.headers` must be an object")
    body = bytearray()
    try:
        async with box.session.request(
            str(source.get("method") or "GET").upper(),
            url,
            headers={str(name): str(value) for name, value in headers.items()},
            timeout=aiohttp.ClientTimeout(total=call.timeout_seconds),
            max_redirects=HTTP_REDIRECTS_MAX,
        ) as response:
            async for chunk in response.content.iter_chunked(HTTP_CHUNK_BYTES):
                body += chunk
                if len(body) > SCRIPT_MAX_BYTES:
                    raise _failed(call, f"the script at {url} is over {SCRIPT_MAX_BYTES} bytes")
            status = response.status
    except (aiohttp.ClientError, ValueError) as error:
        text = f"the script at {url} cannot be read: {type(error).__name__}"
        raise _failed(call, text, retryable=isinstance(error, aiohttp.ClientError)) from error
    if status != 200:
        raise _failed(call, f"the script at {url} answered {status}", retryable=status >= 500)
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise _failed(call, f"the script at {url} is no UTF-8 text") from error


async def script_text(call: ToolCall, box: ToolBox) -> str | None:
    """Return the source that `script` names, None without one.

    `script` is text, or `{uri, source: {type: inline|file|http, code, endpoint, method, headers}}`.

    Raises:
        ToolError: it cannot be read, or comes from a store that this worker does not reach.
    """
    script = call.config.get("script")
    if script is None or script == "":
        return None
    if isinstance(script, str):
        return script
    if not isinstance(script, Mapping):
        raise _failed(call, "`script` must be text or {uri, source}")
    source = script.get("source") or {}
    if not isinstance(source, Mapping):
        source = {"type": str(source)}
    code = next((box_of[key] for box_of in (source, script) for key in ("code", "content") if box_of.get(key)), None)
    if isinstance(code, str):
        return code
    uri = str(script.get("uri") or script.get("path") or "")
    kind = str(source.get("type") or _type_of(uri)).lower()
    if kind in _CLOUD:
        text = f"scripts from {kind} are not read by this worker; use source type http with a signed address, or file"
        raise _failed(call, text)
    if not uri and not source.get("endpoint"):
        raise _failed(call, "`script` needs `uri`, or `source.code`")
    if kind in ("http", "https"):
        return await _from_address(uri, source, call, box)
    if kind == "file":
        return await _from_file(uri, call, box)
    raise _failed(call, f"script source type '{kind}' is not known; use inline, file or http")


def _type_of(uri: str) -> str:
    scheme = uri.partition("://")[0].lower() if "://" in uri else "file"
    return next((kind for kind, start in _CLOUD.items() if uri.startswith(start)), scheme)
