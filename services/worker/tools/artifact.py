"""`artifact` and `result_fetch`: stored results by reference, and files."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from services.worker.jsontext import encoded as json_bytes
from services.worker.limits import ERROR_DETAIL_MAX_CHARS
from services.worker.tools.base import ToolBox, ToolCall, ToolError, is_true, part
from services.worker.tools.script_source import local_path
from shared.platform.errors import ApiRefusedError, ApiUnavailableError

_REFERENCE_KEYS = ("result_ref", "ref", "_ref", "reference")
_GZIP = b"\x1f\x8b"
_CLOUD = ("gs://", "s3://", "azure://", "abfs://", "oci://")


def _given(call: ToolCall, *keys: str) -> Any:
    """Return the first of `keys` in the tool's own keys, its `input`, `args`, or the step's input."""
    for source in (call.config, call.config.get("input"), call.config.get("args"), call.input):
        if isinstance(source, Mapping):
            for key in keys:
                if source.get(key) not in (None, ""):
                    return source[key]
    return None


def _locator(reference: Any) -> str | None:
    if isinstance(reference, str):
        return reference.strip() or None
    if isinstance(reference, Mapping):
        for key in ("_ref", "ref", "locator", "uri", "reference"):
            found = _locator(reference.get(key))
            if found is not None:
                return found
    return None


def _shown(data: Any) -> Any:
    """Return data as a tool's output: an object as it is, anything else below `data`; what calls itself an error too."""
    if isinstance(data, dict) and str(data.get("status", "")).lower() not in ("error", "failed"):
        return data
    return {"status": "success", "data": data}


async def _stored(locator: str, call: ToolCall, box: ToolBox) -> Any:
    try:
        found = await part(box.api, call.kind, "an API").stored_result(locator)
    except (ApiUnavailableError, ApiRefusedError) as error:
        text = f"the stored result cannot be read: {str(error)[:ERROR_DETAIL_MAX_CHARS]}"
        raise ToolError(call.kind, "RESULT_STORE", text, retryable=isinstance(error, ApiUnavailableError)) from error
    if found is None:
        raise ToolError(
            call.kind, "REFERENCE_NOT_AVAILABLE", f"the stored result {locator} does not exist or has expired"
        )
    data, size = found
    if size > box.result_max_bytes:
        text = f"the stored result has {size} bytes; at most {box.result_max_bytes} are allowed here"
        raise ToolError(call.kind, "RESULT_TOO_LARGE", text)
    return data


async def fetch(call: ToolCall, box: ToolBox) -> Any:
    """Return the stored result that `ref` names.

    Raises:
        ToolError: no reference is given, or its data is gone, too large, or cannot be read.
    """
    reference = _given(call, *_REFERENCE_KEYS)
    locator = _locator(reference)
    if locator is None:
        raise ToolError(
            call.kind, "BAD_CONFIG", f"a {call.kind} tool needs `ref`, a reference like noetl://execution/..."
        )
    if not locator.startswith("noetl://"):
        text = f"{locator[:200]!r} is no reference; one begins with noetl://execution/ (was the result small and sent inline?)"
        raise ToolError(call.kind, "BAD_CONFIG", text)
    return _shown(await _stored(locator, call, box))


def _unpacked(raw: bytes, limit: int) -> bytes:
    """Return gzip content unpacked, other content as it is.

    Raises:
        ValueError: it is broken, or over `limit` bytes.
    """
    if not raw.startswith(_GZIP):
        return raw
    unpacker = zlib.decompressobj(wbits=31)
    try:
        body = unpacker.decompress(raw, limit + 1)
    except zlib.error as error:
        raise ValueError(f"it is no gzip file: {error}") from error
    if len(body) > limit:
        raise ValueError(f"it unpacks to over {limit} bytes")
    return body


def _read(path: Path, limit: int) -> tuple[bytes, int]:
    """Return a file's content unpacked, and its size (bytes); one that was packed may have `.gz` behind its name."""
    packed = path.with_name(f"{path.name}.gz")
    with (packed if not path.exists() and packed.exists() else path).open("rb") as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise ValueError(f"it is over {limit} bytes")
    return _unpacked(raw, limit), len(raw)


def _parsed(body: bytes) -> Any:
    """Return content as JSON when it is some, else text, else base64."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return body.decode()
    except UnicodeDecodeError:
        return base64.b64encode(body).decode()


async def _from_file(uri: str, call: ToolCall, box: ToolBox) -> Any:
    path = local_path(uri, box)
    try:
        body, size = await asyncio.to_thread(_read, path, box.result_max_bytes)
    except FileNotFoundError as error:
        raise ToolError(call.kind, "NOT_FOUND", f"the file {path} does not exist on this worker") from error
    except (OSError, ValueError) as error:
        raise ToolError(call.kind, "FILE", f"the file {path} cannot be read: {error}") from error
    return {"status": "success", "data": _parsed(body), "uri": uri, "size_bytes": size, "compressed": size != len(body)}


def _no_cloud(uri: str, kind: str) -> None:
    if uri.lower().startswith(_CLOUD):
        text = f"{uri.split('://')[0]}:// is not in this worker; use a file, or an http tool with a signed address"
        raise ToolError(kind, "NOT_AVAILABLE", text)


def _content(data: Any) -> bytes:
    if isinstance(data, str):
        return data.encode()
    return json_bytes(data)


def _write(path: Path, content: bytes) -> None:
    """Write so that a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".artifact-", delete=False) as file:
        file.write(content)
    os.replace(file.name, path)  # noqa: PTH105 - the name of an open file


async def _put(call: ToolCall, box: ToolBox) -> dict[str, Any]:
    data = _given(call, "data", "content", "value")
    if data is None:
        raise ToolError(call.kind, "BAD_CONFIG", "`action: put` needs `data`")
    content, compressed = _content(data), is_true(_given(call, "compress"))
    uri = _given(call, "uri", "path")
    digest = hashlib.sha256(content).hexdigest()
    shown = {"status": "success", "size_bytes": len(content), "sha256": digest, "compressed": compressed}
    if uri is None:
        encoded = content if not isinstance(data, str) else orjson.dumps(data)
        name = str(_given(call, "name") or call.step or "artifact")
        try:
            reference = await part(box.api, call.kind, "an API").put_result(call.execution, name, encoded)
        except (ApiUnavailableError, ApiRefusedError) as error:
            text = f"the artifact cannot be stored: {str(error)[:ERROR_DETAIL_MAX_CHARS]}"
            raise ToolError(
                call.kind, "RESULT_STORE", text, retryable=isinstance(error, ApiUnavailableError)
            ) from error
        return {**shown, "compressed": False, "uri": reference["locator"], "result_ref": reference["locator"]}
    _no_cloud(str(uri), call.kind)
    path = local_path(str(uri), box)
    try:
        packed = await asyncio.to_thread(gzip.compress, content) if compressed else content
        await asyncio.to_thread(_write, path, packed)
    except (OSError, ValueError) as error:
        raise ToolError(call.kind, "FILE", f"the file {path} cannot be written: {error}") from error
    return {**shown, "uri": f"file://{path.resolve()}", "path": str(path), "stored_bytes": len(packed)}


async def run(call: ToolCall, box: ToolBox) -> Any:
    """`action: get` returns a stored result or a file as `data`, `put` stores `data` and returns where.

    Raises:
        ToolError: it is missing, too large, or lies where this worker does not reach.
    """
    action = str(_given(call, "action") or "get").lower()
    if action == "put":
        return await _put(call, box)
    if action != "get":
        raise ToolError(call.kind, "BAD_CONFIG", f"`action` must be get or put, not '{action}'")
    reference = _locator(_given(call, *_REFERENCE_KEYS))
    uri = reference or _locator(_given(call, "uri", "path"))
    if uri is None:
        raise ToolError(call.kind, "BAD_CONFIG", "`action: get` needs `result_ref`, `uri` or `path`")
    if uri.startswith("noetl://"):
        return {"status": "success", "data": await _stored(uri, call, box), "uri": uri, "source": "result_store"}
    _no_cloud(uri, call.kind)
    return await _from_file(uri, call, box)
