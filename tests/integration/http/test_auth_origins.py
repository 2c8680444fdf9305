"""Web pages that call: without tokens only those of this machine, by an address of this machine."""

from __future__ import annotations

import pytest

from services.api.access import AccessSettingsError
from tests.support.api import RunningApi, running_api
from tests.support.nats import NatsServer


async def asked(api: RunningApi, headers: dict[str, str], method: str = "GET", path: str = "/api/executions") -> int:
    async with api.session.request(method, api.url + path, headers=headers) as response:
        if response.status == 403:
            assert "NOETL_CORS_ORIGINS" in (await response.json())["detail"]
            assert "Access-Control-Allow-Origin" not in response.headers
        return response.status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:3000", 200),
        ("http://127.0.0.1:8082", 200),
        ("http://[::1]:3000", 200),
        ("http://gui.localhost", 200),
        ("https://evil.example", 403),
        ("http://localhost.evil.example", 403),
        ("http://127.0.0.1.evil.example", 403),
        ("null", 403),
        ("", 403),
        ("http://[", 403),
    ],
)
async def test_pages_of_other_machines_may_not_call(shared_api: RunningApi, origin: str, status: int) -> None:
    assert await asked(shared_api, {"Origin": origin}) == status
    preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    assert await asked(shared_api, preflight, "OPTIONS", "/api/execute") == status


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:8082", 200), ("127.0.0.1", 200), ("[::1]:1", 200), ("evil.example:8082", 403), ("[", 403)],
)
async def test_a_name_that_was_bent_to_this_machine_does_not_help(
    shared_api: RunningApi, host: str, status: int
) -> None:
    assert await asked(shared_api, {"Host": host}) == status


async def test_a_page_of_another_machine_changes_nothing(shared_api: RunningApi) -> None:
    headers = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    body = b'{"name": "x", "data": {"a": 1}}'
    async with shared_api.session.post(shared_api.url + "/api/credentials", data=body, headers=headers) as response:
        assert response.status == 403
    assert (await shared_api.request("GET", "/api/credentials"))[1]["items"] == []


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"noetl_cors_origins": "https://gui.example, loopback"}, 200),
        ({"noetl_cors_origins": "*"}, 200),
        ({"noetl_cors_origins": "https://other.example"}, 403),
        ({"noetl_host": "0.0.0.0", "noetl_auth_off_confirmed": True}, 200),
        ({"noetl_host": "0.0.0.0", "noetl_auth_off_confirmed": True, "noetl_cors_origins": "loopback"}, 403),
        ({"noetl_auth_mode": "token"}, 401),
    ],
)
async def test_which_pages_may_call_is_a_setting(
    module_dsn: str, nats_server: NatsServer, options: dict[str, object], status: int
) -> None:
    async with running_api(module_dsn, nats_url=nats_server.url, **options) as api:
        assert await asked(api, {"Origin": "https://gui.example"}) == status


async def test_a_wrong_origin_stops_the_start(module_dsn: str, nats_server: NatsServer) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(AccessSettingsError, match="NOETL_CORS_ORIGINS"), flatten_subgroups=True):
        async with running_api(module_dsn, nats_url=nats_server.url, noetl_cors_origins="gui.example"):
            pass
