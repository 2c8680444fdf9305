"""`http`: one request; its answer is data when the status is 2xx and an error otherwise."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson

from services.worker.jsontext import encoded as json_bytes
from services.worker.limits import HTTP_CHUNK_BYTES, HTTP_REDIRECTS_MAX
from services.worker.tools.base import ToolBox, ToolCall, ToolError
from services.worker.tools.http_auth import authorization

KIND = "http"
_RETRYABLE_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})
_TEXTUAL = (
    "text/",
    "application/xml",
    "application/javascript",
    "application/x-www-form-urlencoded",
    "application/yaml",
)
_SPLIT_KEYS = frozenset({"query", "body"})


@dataclass(slots=True)
class _Request:
    method: str
    url: str
    headers: dict[str, str]
    params: dict[str, str | list[str]] = field(default_factory=dict)
    body: bytes | None = None


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (Mapping, list)):
        return json_bytes(value).decode()
    return str(value)


def _params(given: object, *, key: str) -> dict[str, str | list[str]]:
    if given in (None, ""):
        return {}
    if not isinstance(given, Mapping):
        raise ToolError(KIND, "BAD_CONFIG", f"`{key}` must be an object")
    return {
        str(name): [_text(item) for item in value] if isinstance(value, list) else _text(value)
        for name, value in given.items()
        if value is not None
    }


def _add_body(request: _Request, content: object, *, form: bool = False) -> None:
    """Encode `content`: an object as JSON or, with `form` or that Content-Type, as a form; text as it is."""
    kind = next((value for name, value in request.headers.items() if name.lower() == "content-type"), "")
    if form or ("x-www-form-urlencoded" in kind and isinstance(content, Mapping)):
        request.body = urlencode(_params(content, key="form"), doseq=True).encode()
        kind_new = "application/x-www-form-urlencoded"
    elif isinstance(content, str):
        request.body, kind_new = content.encode(), "text/plain; charset=utf-8"
    else:
        request.body, kind_new = json_bytes(content), "application/json"
    if not kind:
        request.headers["Content-Type"] = kind_new


def _request(config: Mapping[str, Any]) -> _Request:
    url = config.get("url") or config.get("endpoint")
    if not isinstance(url, str) or not url.lower().startswith(("http://", "https://")):
        raise ToolError(KIND, "BAD_CONFIG", "an http tool needs `url`, starting with http:// or https://")
    headers = config.get("headers") or {}
    if not isinstance(headers, Mapping):
        raise ToolError(KIND, "BAD_CONFIG", "`headers` must be an object")
    request = _Request(
        method=str(config.get("method") or "GET").upper(),
        url=url,
        headers={str(name): _text(value) for name, value in headers.items() if value is not None},
        params=_params(config.get("params"), key="params"),
    )
    if config.get("json") is not None:
        _add_body(request, config["json"])
        return request
    if config.get("form") is not None:
        _add_body(request, config["form"], form=True)
        return request
    content: Any = next((config[key] for key in ("payload", "body", "data") if config.get(key) is not None), None)
    split = config.get("data")
    if content is split and isinstance(split, Mapping) and split and set(split) <= _SPLIT_KEYS:
        request.params |= _params(split.get("query"), key="data.query")
        content = split.get("body")
    if content is None:
        return request
    if request.method in _BODILESS and isinstance(content, Mapping):
        request.params |= _params(content, key="data")
    else:
        _add_body(request, content)
    return request


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(HTTP_CHUNK_BYTES):
        body += chunk
        if len(body) > limit:
            raise ToolError(KIND, "RESULT_TOO_LARGE", f"the response is over {limit} bytes")
    return bytes(body)


def _parsed(response: aiohttp.ClientResponse, body: bytes, wanted: str) -> Any:
    """Return the body as `response_type` wants it: json, text, binary (base64), or what it is."""
    if wanted == "binary":
        return base64.b64encode(body).decode()
    if wanted == "text":
        return body.decode(response.charset or "utf-8", errors="replace")
    if wanted == "json" and 200 <= response.status < 300:
        try:
            return orjson.loads(body) if body else None
        except orjson.JSONDecodeError as error:
            raise ToolError(KIND, "BAD_RESPONSE", f"the response is no JSON: {error}") from error
    return _data(response, body)


def _data(response: aiohttp.ClientResponse, body: bytes) -> Any:
    """Return the body: parsed when it is JSON, text, or base64 when it is neither."""
    kind = response.content_type.lower()
    if "json" in kind and body:
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            pass
    try:
        return body.decode(response.charset or "utf-8")
    except (UnicodeDecodeError, LookupError):
        textual = kind.startswith(_TEXTUAL) or "json" in kind
        return body.decode(errors="replace") if textual else base64.b64encode(body).decode()


def _at_home(secrets: Mapping[str, str]) -> aiohttp.ClientMiddlewareType:
    """Return what takes the headers of a credential off a request that was redirected to another server."""
    home: list[object] = []  # origins, the first being the one that the credential is for

    async def middleware(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        home.append(request.url.origin())
        if request.url.origin() != home[0]:
            for name in secrets:
                request.headers.popall(name, None)
        return await handler(request)

    return middleware


def _is_true(value: object) -> bool:
    return value is None or not (value is False or str(value).lower() in ("false", "0", "no"))


async def run(call: ToolCall, box: ToolBox) -> dict[str, Any]:
    """Send the request and return `{status_code, headers, url, elapsed, data, body}`; `elapsed` in seconds.

    `data` and `body` are the same: each line of workers has one of them. Headers written into the tool win over `auth`'s.

    Raises:
        ToolError: no answer, or a status that is not 2xx (`HTTP_<status>`; `data` has the answer).
    """
    request = _request(call.config)
    headers, params = await authorization(call, box)
    request.headers = {**headers, **request.headers}
    request.params |= params
    verify = call.config.get("verify", call.config.get("verify_ssl"))
    began = time.monotonic()
    try:
        async with box.session.request(
            request.method,
            request.url,
            headers=request.headers,
            params=request.params or None,
            data=request.body,
            ssl=_is_true(verify),
            allow_redirects=_is_true(call.config.get("follow_redirects")),
            max_redirects=HTTP_REDIRECTS_MAX,
            middlewares=(_at_home(headers),) if headers else None,
            timeout=aiohttp.ClientTimeout(total=call.timeout_seconds),
        ) as response:
            body = await _read(response, box.result_max_bytes)
    except (aiohttp.ClientError, ValueError) as error:
        retryable = not isinstance(error, (aiohttp.InvalidURL, ValueError))
        text = f"{request.method} failed: {type(error).__name__}: {error}"
        raise ToolError(KIND, "CONNECTION" if retryable else "BAD_CONFIG", text, retryable=retryable) from error
    data = _parsed(response, body, str(call.config.get("response_type") or "").lower())
    output = {
        "status_code": response.status,
        "headers": {str(name): ", ".join(response.headers.getall(name)) for name in response.headers},
        "url": str(response.url),
        "elapsed": round(time.monotonic() - began, 6),
        "data": data,
        "body": data,
    }
    if not 200 <= response.status < 300:
        text = f"HTTP {response.status} {response.reason or ''}".strip()
        raise ToolError(
            KIND, f"HTTP_{response.status}", text, retryable=response.status in _RETRYABLE_STATUS, data=output
        )
    return output
