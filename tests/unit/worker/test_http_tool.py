"""The http tool against a loopback server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest
import pytest_asyncio
from aiohttp import web

from services.worker.tools import ToolError
from tests.unit.worker.conftest import RESULT_MAX_BYTES, Call


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def url() -> AsyncIterator[str]:
    closing = asyncio.Event()

    async def echo(request: web.Request) -> web.Response:
        return web.json_response(
            {
                "method": request.method,
                "query": {key: request.query.getall(key) for key in request.query},
                "type": request.content_type,
                "x": request.headers.get("X-A"),
                "key": request.headers.get("X-API-Key"),
                "authorization": request.headers.get("Authorization"),
                "body": await request.text(),
            }
        )

    async def status(request: web.Request) -> web.Response:
        headers = {"Retry-After": "1"}
        return web.json_response({"why": "test"}, status=int(request.match_info["code"]), headers=headers)

    async def text(_: web.Request) -> web.Response:
        return web.Response(text="héllo")

    async def binary(_: web.Request) -> web.Response:
        return web.Response(body=b"\xff\x00", content_type="application/octet-stream")

    async def large(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * (RESULT_MAX_BYTES + 1))

    async def never(_: web.Request) -> web.Response:
        await closing.wait()
        return web.Response()

    async def moved(_: web.Request) -> web.Response:
        raise web.HTTPFound("/text")

    app = web.Application()
    app.router.add_route("*", "/echo", echo)
    app.router.add_get("/status/{code}", status)
    for path, handler in (("text", text), ("binary", binary), ("large", large), ("never", never), ("moved", moved)):
        app.router.add_get(f"/{path}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    closing.set()
    await runner.cleanup()


async def test_get(call: Call, url: str) -> None:
    output = await call("http", url=f"{url}/echo", params={"a": [1, True], "b": None}, headers={"X-A": 7})
    assert output["status_code"] == 200
    assert output["headers"]["Content-Type"].startswith("application/json")
    assert output["elapsed"] >= 0
    assert output["body"] == output["data"]
    assert output["url"].startswith(f"{url}/echo?")
    data = output["data"]
    assert (data["method"], data["query"], data["x"]) == ("GET", {"a": ["1", "true"]}, "7")


@pytest.mark.parametrize(
    ("config", "kind", "body", "query"),
    [
        ({"json": {"a": 1}}, "application/json", '{"a":1}', {}),
        ({"payload": {"a": 1}}, "application/json", '{"a":1}', {}),
        ({"body": "raw"}, "text/plain", "raw", {}),
        ({"data": {"query": {"q": 1}, "body": {"a": 1}}}, "application/json", '{"a":1}', {"q": ["1"]}),
        ({"data": {"a": 1}}, "application/json", '{"a":1}', {}),
        ({"form": {"a": "é", "b": [1, 2]}}, "application/x-www-form-urlencoded", "a=%C3%A9&b=1&b=2", {}),
        (
            {"data": {"a": 1}, "headers": {"content-type": "application/x-www-form-urlencoded"}},
            "application/x-www-form-urlencoded",
            "a=1",
            {},
        ),
    ],
)
async def test_bodies(call: Call, url: str, config: dict[str, object], kind: str, body: str, query: object) -> None:
    data = (await call("http", method="post", endpoint=f"{url}/echo", **config))["data"]
    assert (data["method"], data["type"], data["body"], data["query"]) == ("POST", kind, body, query)


async def test_object_of_a_get_goes_into_the_query(call: Call, url: str) -> None:
    data = (await call("http", url=f"{url}/echo", data={"a": {"b": 1}}))["data"]
    assert (data["query"], data["body"]) == ({"a": ['{"b":1}']}, "")


async def test_text_binary_and_redirect(call: Call, url: str) -> None:
    assert (await call("http", url=f"{url}/text"))["data"] == "héllo"
    assert (await call("http", url=f"{url}/binary"))["data"] == "/wA="
    assert (await call("http", url=f"{url}/moved"))["data"] == "héllo"
    with pytest.raises(ToolError) as failure:
        await call("http", url=f"{url}/moved", follow_redirects=False)
    assert failure.value.code == "HTTP_302"


@pytest.mark.parametrize(("code", "retryable"), [(404, False), (503, True), (429, True), (400, False)])
async def test_error_status(call: Call, url: str, code: int, retryable: bool) -> None:
    with pytest.raises(ToolError) as failure:
        await call("http", url=f"{url}/status/{code}")
    assert (failure.value.code, failure.value.retryable) == (f"HTTP_{code}", retryable)
    response = failure.value.to_response()
    assert response["status"] == "error"
    assert response["data"]["data"] == {"why": "test"}
    assert response["data"]["status_code"] == code
    assert b"Retry-After" in orjson.dumps(response), "names of headers are text like any other"


@pytest.mark.parametrize(
    ("path", "code"), [("/never", "TIMEOUT"), ("/large", "RESULT_TOO_LARGE")], ids=["timeout", "large"]
)
async def test_limits(call: Call, url: str, path: str, code: str) -> None:
    with pytest.raises(ToolError) as failure:
        await call("http", url=url + path, seconds=0.5)
    assert failure.value.code == code


async def test_no_server_is_retryable(call: Call, unused_tcp_port: int) -> None:
    with pytest.raises(ToolError) as failure:
        await call("http", url=f"http://127.0.0.1:{unused_tcp_port}/")
    assert (failure.value.code, failure.value.retryable) == ("CONNECTION", True)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"url": "file:///etc/passwd"},
        {"url": "http://127.0.0.1:1", "headers": 3},
        {"url": "http://127.0.0.1:1", "auth": {"type": "gcp_adc"}},
        {"url": "http://127.0.0.1:1", "auth": {"type": "never heard of"}},
        {"url": "http://127.0.0.1:1", "auth": 7},
        {"url": "http://127.0.0.1:1", "params": "x"},
    ],
)
async def test_bad_config(call: Call, config: dict[str, object]) -> None:
    with pytest.raises(ToolError) as failure:
        await call("http", **config)
    assert failure.value.code == "BAD_CONFIG"


async def test_response_types(call: Call, url: str) -> None:
    assert (await call("http", url=f"{url}/text", response_type="binary"))["data"] == "aMOpbGxv"
    assert (await call("http", url=f"{url}/echo", response_type="text"))["data"].startswith('{"method"')
    with pytest.raises(ToolError) as failure:
        await call("http", url=f"{url}/text", response_type="json")
    assert failure.value.code == "BAD_RESPONSE"


@pytest.mark.parametrize(
    ("auth", "field", "expected"),
    [
        ({"type": "bearer", "token": "T"}, "authorization", "Bearer T"),
        ({"type": "basic", "username": "u", "password": "p"}, "authorization", "Basic dTpw"),
        ({"type": "api_key", "key": "K"}, "key", "K"),
        ({"type": "api_key", "api_key": "K", "header": "X-A"}, "x", "K"),
        ({"type": "api_key", "api_key": "K", "in": "query", "param": "k"}, "query", {"k": ["K"]}),
        ({"type": "header", "name": "X-A", "value": "V"}, "x", "V"),
        ({"type": "headers", "headers": {"X-A": "V"}}, "x", "V"),
        ({"alias": {"type": "bearer", "token": "T"}}, "authorization", "Bearer T"),
        ({"type": "none"}, "authorization", None),
    ],
)
async def test_auth_written_out(call: Call, url: str, auth: object, field: str, expected: object) -> None:
    assert (await call("http", url=f"{url}/echo", auth=auth))["data"][field] == expected


async def test_a_header_of_the_tool_wins_over_auth(call: Call, url: str) -> None:
    auth = {"type": "bearer", "token": "T"}
    data = (await call("http", url=f"{url}/echo", auth=auth, headers={"Authorization": "mine"}))["data"]
    assert data["authorization"] == "mine"


@pytest.mark.parametrize("auth", [{"type": "bearer"}, {"type": "basic"}, {"type": "api_key"}, {"type": "header"}])
async def test_auth_without_its_secret(call: Call, url: str, auth: object) -> None:
    with pytest.raises(ToolError) as failure:
        await call("http", url=f"{url}/echo", auth=auth)
    assert failure.value.code == "BAD_CREDENTIAL"
