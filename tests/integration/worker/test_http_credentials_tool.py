"""The http tool with credentials of the API, against a loopback server that wants them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from services.worker.tools import ToolError
from tests.integration.worker.conftest import Call, FakeApi

SECRET = "a-token-that-is-long"


class Service:
    def __init__(self) -> None:
        self.url = ""
        self.tokens = 0

    async def whoami(self, request: web.Request) -> web.Response:
        return web.json_response({"who": request.headers.get("Authorization"), "key": request.headers.get("X-Key")})

    async def moved(self, request: web.Request) -> web.Response:
        raise web.HTTPFound(request.query["to"])

    async def token(self, request: web.Request) -> web.Response:
        form = await request.post()
        if form.get("client_secret") != SECRET:
            return web.json_response({"error": "invalid_client"}, status=401)
        self.tokens += 1
        return web.json_response({"access_token": f"token-number-{self.tokens}", "expires_in": 3600})


@pytest_asyncio.fixture
async def service() -> AsyncIterator[Service]:
    made = Service()
    app = web.Application()
    app.router.add_get("/whoami", made.whoami)
    app.router.add_get("/moved", made.moved)
    app.router.add_post("/token", made.token)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = "http://{}:{}".format(*runner.addresses[0][:2])
    yield made
    await runner.cleanup()


@pytest.mark.parametrize(
    "auth",
    ["svc", {"credential": "svc"}, {"type": "bearer", "credential": "svc"}, {"any": {"type": "bearer", "key": "svc"}}],
)
async def test_forms_of_auth_and_redaction(call: Call, api: FakeApi, service: Service, auth: Any) -> None:
    api.credentials["svc"] = ("httpBearerAuth", {"token": SECRET})
    output = await call("http", url=f"{service.url}/whoami", auth=auth)
    assert output["data"] == {"who": "Bearer [REDACTED]", "key": None}


async def test_client_credentials_are_exchanged_once(call: Call, api: FakeApi, service: Service) -> None:
    fields = {"token_url": f"{service.url}/token", "client_id": "me", "client_secret": SECRET}
    api.credentials["svc"] = ("oauth2_client_credentials", fields)
    for _ in range(3):
        assert (await call("http", url=f"{service.url}/whoami", auth="svc"))["data"] == {
            "who": "Bearer [REDACTED]",
            "key": None,
        }
    assert service.tokens == 1
    api.credentials["bad"] = ("oauth2_client_credentials", {**fields, "client_secret": "wrong-secret"})
    with pytest.raises(ToolError) as failure:
        await call("http", url=f"{service.url}/whoami", auth="bad")
    assert (failure.value.code, failure.value.retryable) == ("TOKEN", False)


async def test_a_missing_credential(call: Call, service: Service) -> None:
    with pytest.raises(ToolError) as failure:
        await call("http", url=f"{service.url}/whoami", auth="nobody")
    assert failure.value.code == "CREDENTIAL_NOT_FOUND"


async def test_a_redirect_to_another_server_does_not_take_the_secret_along(
    call: Call, api: FakeApi, service: Service
) -> None:
    api.credentials["svc"] = ("api_key", {"api_key": SECRET, "header": "X-Key"})
    here = f"{service.url}/whoami"
    elsewhere = here.replace("127.0.0.1", "localhost")
    for to, key in ((here, "[REDACTED]"), (elsewhere, None)):
        output = await call("http", url=f"{service.url}/moved", params={"to": to}, auth="svc")
        assert output["data"]["key"] == key
