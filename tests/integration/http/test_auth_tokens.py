"""Who may call: modes, tokens, roles, the audit trail, rate and body limits."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import aiohttp
import asyncpg
import pytest

from services.api.access import AccessSettingsError
from tests.support.api import TOKEN, RunningApi, running_api
from tests.support.nats import NatsServer

Start = Callable[..., AbstractAsyncContextManager[RunningApi]]
ADMIN = "admin-token-of-the-tests-0123456789"
PLAYBOOK = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: gate, path: tests/gate}
workflow:
  - step: start
    tool: {kind: noop}
"""


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
async def api(module_dsn: str, nats_server: NatsServer) -> AsyncIterator[RunningApi]:
    """An API that asks for tokens, shared by this file."""
    options = {"noetl_auth_mode": "token", "noetl_admin_token": ADMIN}
    async with running_api(module_dsn, nats_url=nats_server.url, **options) as running:
        yield running


@pytest.fixture
def start(module_dsn: str, nats_server: NatsServer) -> Start:
    """Start an API with settings of its own on the shared database."""
    return partial(running_api, module_dsn, nats_url=nats_server.url)


async def made(api: RunningApi, role: str, name: str | None = None, **body: object) -> dict[str, str]:
    """Create a token and return the answer."""
    body = {"name": name or f"{role}-{uuid.uuid4().hex[:8]}", "role": role, **body}
    status, answer = await api.request("POST", "/api/tokens", body, headers=bearer(ADMIN))
    assert status == 201, answer
    return dict(answer)


async def token_of(api: RunningApi, role: str) -> dict[str, str]:
    return bearer((await made(api, role))["token"])


async def test_without_a_token_nothing_but_health_and_documents_answers(api: RunningApi) -> None:
    for path in ("/health", "/livez", "/readyz", "/metrics", "/docs", "/openapi.json"):
        async with api.session.get(api.url + path) as response:
            assert response.status == 200, path
    async with api.session.get(api.url + "/api/executions") as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert "Authorization: Bearer" in (await response.json())["detail"]


@pytest.mark.parametrize(
    "headers", [{"Authorization": "Bearer {}"}, {"X-Session-Token": "{}"}, {"authorization": "bearer {}"}]
)
async def test_a_token_is_taken_from_either_header(api: RunningApi, headers: dict[str, str]) -> None:
    token = (await made(api, "viewer"))["token"]
    sent = {name: value.format(token) for name, value in headers.items()}
    status, _ = await api.request("GET", "/api/executions", headers=sent)
    assert status == 200


@pytest.mark.parametrize("name", ["token", "access_token", "session_token"])
async def test_a_token_in_the_url_is_refused(api: RunningApi, name: str) -> None:
    token = (await made(api, "viewer"))["token"]
    status, answer = await api.request("GET", f"/api/executions?{name}={token}")
    assert status == 401
    assert "URL" in answer["detail"]
    assert token not in str(answer)


@pytest.mark.parametrize(
    "text", ["", "x", "ph_", "ph_0011223344556677_" + "a" * 43, "a.b.c", "ph_" + "1" * 5000, "\u00e9"]
)
async def test_what_is_no_token_is_refused(api: RunningApi, text: str) -> None:
    status, answer = await api.request("GET", "/api/executions", headers=bearer(text))
    assert status == 401, answer


@pytest.mark.parametrize(
    ("method", "path", "body", "allowed"),
    [
        ("GET", "/api/executions", None, {"viewer", "operator", "worker", "admin"}),
        ("POST", "/api/catalog/register", {"content": PLAYBOOK}, {"operator", "admin"}),
        ("POST", "/api/worker/pool/heartbeat", {"name": "nobody"}, {"worker", "admin"}),
        ("GET", "/api/tokens", None, {"admin"}),
        ("GET", "/api/internal/audit", None, {"admin"}),
        ("POST", "/api/internal/outbox/claim", {"limit": 1}, set()),
    ],
)
async def test_roles_are_asked_for(api: RunningApi, method: str, path: str, body: object, allowed: set[str]) -> None:
    for role in ("viewer", "operator", "worker", "admin"):
        headers = await token_of(api, role)
        status, answer = await api.request(method, path, body, headers=headers)
        assert (status != 403) == (role in allowed), (role, status, answer)
        if status == 403 and "/internal/" not in path:
            assert "needs the role" in answer["detail"]
            assert f"has {role}" in answer["detail"]


async def test_the_secret_of_a_credential_is_not_shown_to_viewers_and_operators(api: RunningApi) -> None:
    operator, viewer, worker = [await token_of(api, role) for role in ("operator", "viewer", "worker")]
    body = {"name": "db", "type": "postgres", "data": {"password": "planted"}}
    assert (await api.request("POST", "/api/credentials", body, headers=operator))[0] == 200
    path = "/api/credentials/db?include_data=true"
    for headers in (viewer, operator):
        status, answer = await api.request("GET", path, headers=headers)
        assert status == 403
        assert "include_data" in answer["detail"]
        assert "planted" not in str(answer)
    status, answer = await api.request("GET", "/api/credentials/db", headers=viewer)
    assert (status, answer["data"]) == (200, None)
    status, answer = await api.request("GET", path, headers=worker)
    assert (status, answer["data"]) == (200, {"password": "planted"})


async def test_the_internal_token_is_a_workers_token_and_an_admin_sees_internals(api: RunningApi) -> None:
    body = {"name": "w", "component_type": "worker_pool", "runtime": "python", "status": "ready"}
    assert (await api.request("POST", "/api/worker/pool/register", body, headers=bearer(TOKEN)))[0] == 200
    assert (await api.request("POST", "/api/catalog/register", {"content": PLAYBOOK}, headers=bearer(TOKEN)))[0] == 403
    assert (await api.request("GET", "/api/tokens", headers=bearer(TOKEN)))[0] == 403
    assert (await api.request("GET", "/api/internal/dead-letters", headers=bearer(ADMIN)))[0] == 200


async def test_only_a_hash_is_stored_and_lists_show_no_secret(api: RunningApi, start: Start, module_dsn: str) -> None:
    token = await made(api, "viewer", "hashed")
    status, listed = await api.request("GET", "/api/tokens", headers=bearer(ADMIN))
    assert status == 200
    assert listed["tokens"][0]["token_id"] == token["token_id"]
    assert listed["tokens"][0]["created_by"] == "bootstrap:admin"
    secret = token["token"].split("_", 2)[2]
    assert secret not in str(listed)
    connection = await asyncpg.connect(module_dsn)
    rows = await connection.fetch("SELECT t::text AS row FROM noetl.api_token t")
    await connection.close()
    assert rows
    assert all(secret not in row["row"] for row in rows)


async def test_two_tokens_of_a_name_are_active_so_that_one_can_follow_the_other(api: RunningApi) -> None:
    old, new = await made(api, "viewer", "turn"), await made(api, "viewer", "turn")
    status, answer = await api.request("POST", "/api/tokens", {"name": "turn", "role": "viewer"}, headers=bearer(ADMIN))
    assert status == 409
    assert "revoke one first" in answer["detail"]
    status, answer = await api.request("DELETE", f"/api/tokens/{old['token_id']}", headers=bearer(ADMIN))
    assert status == 200
    assert answer["revoked_at"]
    assert (await api.request("GET", "/api/executions", headers=bearer(old["token"])))[0] == 401
    assert (await api.request("GET", "/api/executions", headers=bearer(new["token"])))[0] == 200
    await made(api, "viewer", "turn")


async def test_an_expired_token_opens_nothing(api: RunningApi, start: Start, module_dsn: str) -> None:
    token = await made(api, "viewer", ttl_seconds=3600)
    assert (await api.request("GET", "/api/executions", headers=bearer(token["token"])))[0] == 200
    connection = await asyncpg.connect(module_dsn)
    await connection.execute(
        "UPDATE noetl.api_token SET expires_at = now() - interval '1 second' WHERE token_id = $1", token["token_id"]
    )
    await connection.close()
    await made(api, "viewer", "other")  # reads the book again
    assert (await api.request("GET", "/api/executions", headers=bearer(token["token"])))[0] == 401


async def test_a_token_made_by_one_replica_opens_the_other_and_its_use_is_noted(
    api: RunningApi, start: Start, module_dsn: str
) -> None:
    options = {"noetl_auth_mode": "token", "noetl_admin_token": ADMIN, "noetl_auth_refresh_seconds": 0.1}
    async with start(**options) as other:
        token = await made(other, "viewer", "replica")
        async with asyncio.timeout(20):
            while (await api.request("GET", "/api/executions", headers=bearer(token["token"])))[0] != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            while True:
                await other.request("GET", "/api/executions", headers=bearer(token["token"]))
                _, listed = await other.request("GET", "/api/tokens?name=replica", headers=bearer(ADMIN))
                if listed["tokens"][0]["last_used_at"]:
                    break
                await asyncio.sleep(0.05)


async def test_writes_are_in_the_audit_trail_with_their_actor_and_reads_are_not(api: RunningApi) -> None:
    operator, viewer = bearer((await made(api, "operator", "auditor"))["token"]), await token_of(api, "viewer")
    await api.request("POST", "/api/catalog/register", {"content": PLAYBOOK}, headers=operator)
    await api.request("GET", "/api/executions", headers=operator)
    await api.request("POST", "/api/executions/77/cancel", {"reason": "planted"}, headers=operator)
    await api.request("POST", "/api/catalog/register", {"content": PLAYBOOK}, headers=viewer)
    status, answer = await api.request("GET", "/api/internal/audit", headers=bearer(ADMIN))
    assert status == 200
    rows = [(row["actor"], row["route"], row["status"]) for row in answer["rows"]]
    cancel, register = ("/api/executions/{execution_id}/cancel", 404), ("/api/catalog/register", 200)
    assert rows[:2] == [("token:auditor", *cancel), ("token:auditor", *register)]
    assert answer["rows"][0]["execution_id"] == 77
    assert {actor for actor, route, _ in rows if route == "/api/tokens"} == {"bootstrap:admin"}
    assert "planted" not in str(answer)
    status, page = await api.request(
        "GET", f"/api/internal/audit?before={answer['rows'][0]['audit_id']}&limit=1", headers=bearer(ADMIN)
    )
    assert page["rows"] == answer["rows"][1:2]
    _, found = await api.request(
        "GET", "/api/internal/audit?actor=token:auditor&execution_id=77", headers=bearer(ADMIN)
    )
    assert [row["execution_id"] for row in found["rows"]] == [77]


async def test_the_worker_protocol_and_refusals_are_counted_and_stored_at_the_end(
    start: Start, module_dsn: str
) -> None:
    async with start(noetl_auth_mode="token") as api:
        for _ in range(3):
            body = {"name": "nobody"}
            await api.request("POST", "/api/worker/pool/heartbeat", body, headers=bearer(TOKEN))
            await api.request("POST", "/api/execute", {"path": "x"})
    connection = await asyncpg.connect(module_dsn)
    rows = await connection.fetch("SELECT actor, route, status, calls FROM noetl.audit ORDER BY route")
    await connection.close()
    assert ("anonymous", "/api/execute", 401, 3) in [tuple(row) for row in rows]
    assert ("service", "/api/worker/pool/heartbeat", 404, 3) in [tuple(row) for row in rows]


async def test_a_client_that_asks_too_often_is_told_when_to_come_back(start: Start, module_dsn: str) -> None:
    options = {"noetl_rate_limit_per_second": 0.01, "noetl_rate_limit_burst_seconds": 200}
    async with start(noetl_auth_mode="token", noetl_admin_token=ADMIN, **options) as api:
        token = bearer((await made(api, "viewer"))["token"])
        statuses = [(await api.request("GET", "/api/executions", headers=token))[0] for _ in range(3)]
        assert statuses == [200, 200, 429]
        async with api.session.get(api.url + "/api/executions", headers=token) as response:
            assert 1 <= int(response.headers["Retry-After"]) <= 100
            assert (await response.json())["detail"]["code"] == "rate_limited"
        assert (await api.request("GET", "/health"))[0] == 200
        assert (await api.request("GET", "/api/internal/outbox/pending-count", headers=bearer(TOKEN)))[0] == 200
        for _ in range(5):  # workers have a limit of their own
            assert (await api.request("GET", "/api/executions", headers=bearer(TOKEN)))[0] == 200
        failures = [(await api.request("GET", "/api/executions", headers=bearer("x")))[0] for _ in range(3)]
        assert failures == [401, 401, 429]


async def test_bodies_of_clients_can_be_kept_smaller_than_those_of_workers(start: Start, module_dsn: str) -> None:
    async with start(noetl_auth_mode="token", noetl_admin_token=ADMIN, noetl_max_body_bytes_clients=2048) as api:
        operator = bearer((await made(api, "operator"))["token"])
        body = {"path": "x", "payload": {"text": "y" * 4096}}
        assert (await api.request("POST", "/api/execute", body, headers=operator))[0] == 413
        assert (await api.request("POST", "/api/execute", body, headers=bearer(TOKEN)))[0] == 404


async def test_metrics_and_documents_can_be_closed(start: Start, module_dsn: str) -> None:
    async with start(noetl_auth_mode="token", noetl_admin_token=ADMIN, noetl_auth_public="none") as api:
        for path in ("/metrics", "/docs", "/openapi.json"):
            async with api.session.get(api.url + path) as response:
                assert response.status == 401, path
            async with api.session.get(api.url + path, headers=bearer(ADMIN)) as response:
                assert response.status == 200, path
        assert (await api.request("GET", "/readyz"))[0] == 200


async def test_off_asks_nobody_but_tokens_are_not_handed_out_to_anybody(start: Start, module_dsn: str) -> None:
    async with start(noetl_admin_token=ADMIN) as api:
        assert (await api.request("GET", "/api/executions", headers=bearer("a gateway's session")))[0] == 200
        assert (await api.request("GET", "/api/tokens"))[0] == 401
        assert (await api.request("GET", "/api/tokens", headers=bearer(ADMIN)))[0] == 200
        assert (await api.request("GET", "/api/internal/audit"))[0] == 403


async def test_the_internal_token_can_be_changed_without_a_gap(start: Start, module_dsn: str) -> None:
    async with start(noetl_internal_api_token_previous="the-old-one") as api:
        for token, expected in ((TOKEN, 200), ("the-old-one", 200), ("another", 403)):
            path = "/api/internal/outbox/pending-count"
            assert (await api.request("GET", path, headers=bearer(token)))[0] == expected


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"noetl_host": "0.0.0.0"}, "NOETL_AUTH_OFF_CONFIRMED"),
        ({"noetl_admin_token": "short"}, "NOETL_ADMIN_TOKEN"),
        ({"noetl_admin_token_file": "/nonexistent"}, "NOETL_ADMIN_TOKEN_FILE"),
        ({"noetl_auth_public": "docs,secrets"}, "NOETL_AUTH_PUBLIC"),
        ({"noetl_auth_mode": "oidc"}, "NOETL_OIDC_ISSUER"),
    ],
)
async def test_settings_that_would_leave_the_door_open_stop_the_start(
    start: Start, options: dict[str, str], text: str
) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with start(**options):
            pass
    (error,) = [found for found in _leaves(caught.value) if isinstance(found, AccessSettingsError)]
    assert text in str(error)


async def test_off_can_be_said_twice(start: Start, module_dsn: str) -> None:
    async with start(noetl_host="0.0.0.0", noetl_auth_off_confirmed=True) as api:
        assert (await api.request("GET", "/api/executions"))[0] == 200


async def test_the_event_stream_asks_for_a_token_too(api: RunningApi) -> None:
    url = api.url + "/api/executions/1/events/stream"
    async with api.session.get(url) as response:
        assert response.status == 401
    async with api.session.get(url, headers=await token_of(api, "viewer")) as response:
        assert response.status == 404


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for member in error.exceptions for leaf in _leaves(member)]
    return [error]


async def test_a_connection_kept_open_does_not_keep_an_identity(api: RunningApi) -> None:
    viewer = await token_of(api, "viewer")
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(connector=connector) as session:
        for headers, expected in ((viewer, 200), ({}, 401), (viewer, 200)):
            async with session.get(api.url + "/api/executions", headers=headers) as response:
                assert response.status == expected
