"""What no honest client sends: each is answered with a 4xx, and the API still serves."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from services.api import http
from services.api.json_body import DEPTH_MAX
from tests.e2e.playbooks import LINEAR
from tests.support.api import RunningApi


@pytest.fixture
async def hostile(api: RunningApi) -> AsyncIterator[RunningApi]:
    """An API that must still work after the test."""
    yield api
    await api.start(LINEAR)


async def post(api: RunningApi, raw: bytes, path: str = "/api/execute", **headers: str) -> tuple[int, Any]:
    """Send bytes as a JSON body."""
    sent = {"Content-Type": "application/json", **{key.replace("_", "-"): value for key, value in headers.items()}}
    async with api.session.post(api.url + path, data=raw, headers=sent) as response:
        text = await response.text()
    return response.status, json.loads(text) if text.startswith("{") else text


async def raw_answer(api: RunningApi, *parts: bytes) -> str:
    """Write bytes to the socket and return what comes back until the server closes or is silent."""
    url = urlsplit(api.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    for part in parts:
        writer.write(part)
        await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return head.decode()


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b'{"path": "x", "path": "y"}', "json_duplicate_key"),
        (b'{"path": "x", "payload": {"n": 123456789012345678901234567890}}', "json_integer_size"),
        (b'{"path": "x", "payload": {"n": NaN}}', "json_invalid"),
        (b'{"path": "\\udfff"}', "json_invalid"),
        (b'{"path": "x", "payload": ' + b'{"a":' * DEPTH_MAX + b"1" + b"}" * DEPTH_MAX + b"}", "json_too_deep"),
    ],
)
async def test_json_that_readers_would_read_differently_is_refused(hostile: RunningApi, raw: bytes, kind: str) -> None:
    status, answer = await post(hostile, raw)
    assert (status, answer["detail"][0]["type"]) == (422, kind)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_small_body_that_unpacks_to_a_large_one_is_refused(hostile: RunningApi, encoding: str) -> None:
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    bomb = pack(b'{"path": "' + b"x" * 200_000_000 + b'"}')
    assert len(bomb) < 1_000_000
    status, _ = await post(hostile, bomb, Content_Encoding=encoding)
    assert status in (400, 413)


async def test_a_packed_body_is_read(hostile: RunningApi) -> None:
    status, _ = await post(hostile, gzip.compress(b'{"path": "no/where"}'), Content_Encoding="gzip")
    assert status == 404


async def test_a_body_that_is_not_in_its_encoding_is_refused(hostile: RunningApi) -> None:
    status, _ = await post(hostile, b'{"path": "x"}', Content_Encoding="gzip")
    assert status == 400


async def test_a_body_that_does_not_come_is_given_up(hostile: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_SECONDS", 0.2)
    head = b"POST /api/execute HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    assert " 408 " in await raw_answer(hostile, head, b'{"pa')


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/execute HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
    ids=["long path", "long header", "negative length", "two lengths", "tls"],
)
async def test_what_is_no_http_is_refused(hostile: RunningApi, head: bytes) -> None:
    assert " 400 " in await raw_answer(hostile, head)


@pytest.mark.parametrize("path", ["/api/executions/%ff", "/api/vars/1/%00", "/api/catalog/%2e%2e%2f/ui_schema", "/%"])
async def test_a_path_of_odd_bytes_is_answered(hostile: RunningApi, path: str) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    status = int((await raw_answer(hostile, head)).split(" ")[1])
    assert status in (307, 400, 404, 422)


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "application/x-www-form-urlencoded", "nonsense"])
async def test_a_body_that_says_to_be_no_json_is_refused(hostile: RunningApi, kind: str) -> None:
    status, answer = await post(hostile, b'{"path": "x"}', Content_Type=kind)
    assert (status, answer["detail"][0]["loc"]) == (422, ["body"])
