"""The secrets tool with loopback secret stores."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from services.worker.tools import ToolError
from tests.integration.worker.conftest import EXECUTION, Call, FakeApi

SECRET = "the-secret-itself"
CONTEXT = {"catalog_id": "77"}


@pytest.fixture
def settings() -> dict[str, Any]:
    return {"noetl_keychain_env_vars": "PLAYHEAD_TEST_SECRET, PLAYHEAD_TEST_UNSET"}


@pytest_asyncio.fixture
async def url() -> AsyncIterator[str]:
    async def vault(request: web.Request) -> web.Response:
        if request.headers.get("X-Vault-Token") != "vault-token-1":
            return web.json_response({}, status=403)
        return web.json_response({"data": {"data": {"password": SECRET, "user": "u"}, "metadata": {}}})

    async def gcp(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer gcp-token-12"
        return web.json_response({"payload": {"data": base64.b64encode(SECRET.encode()).decode()}})

    async def azure(_: web.Request) -> web.Response:
        return web.json_response({"value": '{"key": "' + SECRET + '"}'})

    app = web.Application()
    app.router.add_get("/v1/secret/data/app", vault)
    app.router.add_get("/v1/projects/p/secrets/s/versions/latest:access", gcp)
    app.router.add_get("/secrets/s", azure)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield "http://{}:{}".format(*runner.addresses[0][:2])
    await runner.cleanup()


@pytest.fixture
def stored(api: FakeApi, url: str, monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    monkeypatch.setenv("PLAYHEAD_TEST_SECRET", SECRET)
    api.credentials |= {
        "mine": ("custom", {"password": SECRET}),
        "vault": ("vault", {"address": url, "token": "vault-token-1"}),
        "gcp": ("gcp", {"endpoint": url, "token": "gcp-token-12", "project_id": "p"}),
        "azure": ("azure", {"vault_url": url, "token": "azure-token"}),
    }
    for name in ("mine", "app", "s", "PLAYHEAD_TEST_SECRET", "own"):
        api.answers[f"POST /api/keychain/77/{name}"] = [(200, {"status": "success"})]
    return api


@pytest.mark.parametrize(
    ("config", "entry", "data"),
    [
        ({"credential": "mine"}, "mine", {"password": SECRET}),
        ({"provider": "credential", "secret": "mine", "field": "password", "keychain": "own"}, "own", None),
        ({"provider": "env", "secret": "PLAYHEAD_TEST_SECRET"}, "PLAYHEAD_TEST_SECRET", {"value": SECRET}),
        ({"provider": "vault", "secret": "secret/data/app", "auth": "vault"}, "app", {"password": SECRET, "user": "u"}),
        ({"provider": "gcp", "secret": "s", "auth": "gcp"}, "s", {"value": SECRET}),
        ({"provider": "azure", "secret": "s", "auth": "azure"}, "s", {"key": SECRET}),
    ],
)
async def test_a_secret_goes_to_the_keychain_and_not_into_the_output(
    call: Call, stored: FakeApi, config: dict[str, Any], entry: str, data: dict[str, Any] | None
) -> None:
    output = await call("secrets", context=CONTEXT, **config)
    assert output["keychain"] == entry
    assert SECRET not in str(output)
    method, path, body = stored.asked[-1]
    assert (method, path) == ("POST", f"/api/keychain/77/{entry}")
    assert body["token_data"] == (data or {"password": SECRET, "value": SECRET})
    assert (body["scope_type"], body["execution_id"]) == ("local", EXECUTION)
    assert output["fields"] == sorted(body["token_data"])


@pytest.mark.parametrize(
    ("code", "config"),
    [
        ("BAD_CONFIG", {}),
        ("CREDENTIAL_NOT_FOUND", {"credential": "nobody"}),
        ("SECRET_NOT_FOUND", {"credential": "mine", "field": "none"}),
        ("NOT_CONFIGURED", {"provider": "env", "secret": "PATH"}),
        ("SECRET_NOT_FOUND", {"provider": "env", "secret": "PLAYHEAD_TEST_UNSET"}),
        ("NOT_CONFIGURED", {"provider": "vault", "secret": "x"}),
        ("NOT_CONFIGURED", {"provider": "gcp", "secret": "x"}),
        ("NOT_CONFIGURED", {"provider": "azure", "secret": "x", "auth": "mine"}),
        ("SECRET_NOT_FOUND", {"provider": "vault", "secret": "secret/data/none", "auth": "vault"}),
        (
            "SECRET",
            {"provider": "vault", "secret": "secret/data/app", "auth": {"credential": "vault", "token": "wrong"}},
        ),
        ("NOT_AVAILABLE", {"provider": "aws", "secret": "x"}),
    ],
)
async def test_what_is_refused(call: Call, stored: FakeApi, code: str, config: dict[str, Any]) -> None:
    with pytest.raises(ToolError) as failure:
        await call("secrets", context=CONTEXT, **config)
    assert failure.value.code == code, failure.value


async def test_without_an_execution_there_is_no_keychain(call: Call, stored: FakeApi) -> None:
    with pytest.raises(ToolError) as failure:
        await call("secrets", credential="mine")
    assert failure.value.code == "BAD_CONTEXT"
