"""Keys of stored secrets: rotation beside traffic, forms of the original, keys that are missing."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
import pytest

from services.api.wallet import BACKGROUND_BATCHES
from tests.support.api import TOKEN, RunningApi, running_api
from tests.support.nats import NatsServer

OLD, NEW, OTHER = (f"{name}:{base64.b64encode(name[:1].encode() * 32).decode()}" for name in ("old", "new", "xxx"))
PLAYBOOK = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: keys, path: tests/keys}
workflow: [{step: start, tool: {kind: noop}}]
"""
GATE = {"Authorization": f"Bearer {TOKEN}"}
Start = Callable[..., AbstractAsyncContextManager[RunningApi]]


@pytest.fixture
def start(database_dsn: str, nats_server: NatsServer) -> Start:
    """Start an API with the keys given on the test's database."""
    return lambda keys, **options: running_api(
        database_dsn, nats_url=nats_server.url, noetl_encryption_key=keys, **options
    )


async def save(api: RunningApi, name: str, value: str = "planted") -> None:
    status, answer = await api.request("POST", "/api/credentials", {"name": name, "data": {"password": value}})
    assert status == 200, answer


async def read(api: RunningApi, name: str) -> tuple[int, Any]:
    status, answer = await api.request("GET", f"/api/credentials/{name}?include_data=true")
    return status, answer["data"] if status == 200 else answer


async def save_token(api: RunningApi) -> str:
    _, entry = await api.request("POST", "/api/catalog/register", {"content": PLAYBOOK})
    path = f"/api/keychain/{entry['catalog_id']}/tok"
    renewal = {"endpoint": "https://issuer", "data": {"client_secret": "planted"}}
    body = {"token_data": {"access_token": "planted"}, "credential_type": "oauth2_client_credentials"}
    status, answer = await api.request("POST", path, {**body, "auto_renew": True, "renew_config": renewal})
    assert status == 200, answer
    return path


async def status_of(api: RunningApi) -> dict[str, Any]:
    status, answer = await api.request("GET", "/api/internal/wallet/key-status", headers=GATE)
    assert status == 200
    return dict(answer)


async def rotate(api: RunningApi, **body: int) -> dict[str, Any]:
    status, answer = await api.request("POST", "/api/internal/wallet/rotate-kek", body, headers=GATE)
    assert status == 200, answer
    return dict(answer)


async def sql(dsn: str, statement: str, *arguments: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return list(await connection.fetch(statement, *arguments))
    finally:
        await connection.close()


async def test_a_new_key_in_front_takes_over_and_the_old_one_can_go(start: Start) -> None:
    async with start(OLD) as api:
        for number in range(5):
            await save(api, f"db{number}")
        path = await save_token(api)
        assert (await status_of(api))["credential"] == {"old": 5}
    async with start(f"{NEW},{OLD}") as api:
        assert await read(api, "db0") == (200, {"password": "planted"})
        answer = await rotate(api, batch_size=2, max_batches=1)
        assert answer["credential"] | {"last_id": None} == {
            "processed": 2, "rewrapped": 2, "skipped": 0, "failed": 0, "last_id": None
        }  # fmt: skip
        assert answer["more"]
        assert (await status_of(api))["credential"] == {"old": 3, "new": 2}
        assert not (await rotate(api))["more"]
        status = await status_of(api)
        assert (status["current"], status["credential"], status["keychain"]) == ("new", {"new": 5}, {"new": 2})
        assert (await rotate(api))["credential"]["processed"] == 0
    async with start(NEW) as api:
        assert await read(api, "db4") == (200, {"password": "planted"})
        _, entry = await api.request("GET", path)
        assert entry["token_data"] == {"access_token": "planted"}
        assert entry["renew_config"]["data"] == {"client_secret": "planted"}


async def test_rotation_leaves_out_rows_that_others_work_on_and_does_them_later(
    start: Start, database_dsn: str
) -> None:
    async with start(OLD) as api:
        await save(api, "busy")
        await save(api, "free")
    connection = await asyncpg.connect(database_dsn)
    async with start(f"{NEW},{OLD}") as api:
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM noetl.credential WHERE name = 'busy' FOR UPDATE")
            assert (await rotate(api))["credential"]["rewrapped"] == 1
        assert (await status_of(api))["credential"] == {"old": 1, "new": 1}
        assert (await rotate(api))["credential"]["rewrapped"] == 1
    await connection.close()


async def test_rotation_runs_beside_writes_and_other_rotations(start: Start) -> None:
    async with start(OLD) as api:
        for number in range(20):
            await save(api, f"db{number}", "old value")
    async with start(f"{NEW},{OLD}") as api:
        async with asyncio.TaskGroup() as group:
            for number in range(0, 20, 2):
                group.create_task(save(api, f"db{number}", "new value"))
            for _ in range(3):
                group.create_task(rotate(api, batch_size=3))
        await rotate(api)
        assert (await status_of(api))["credential"] == {"new": 20}
    async with start(NEW) as api:
        for number in range(20):
            expected = "old value" if number % 2 else "new value"
            assert await read(api, f"db{number}") == (200, {"password": expected})


async def test_older_keys_are_replaced_in_the_background_but_the_originals_forms_only_on_request(
    start: Start, database_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start(OLD) as api:
        await save(api, "ours")
        await save(api, "theirs")
    await sql(
        database_dsn, "UPDATE noetl.credential SET data_encrypted = $1 WHERE name = 'theirs'", json.dumps({"a": 1})
    )
    monkeypatch.setattr("services.api.housekeeping.KEYS_SECONDS", 0.05)
    assert BACKGROUND_BATCHES > 0
    async with start(f"{NEW},{OLD}") as api:
        while (await status_of(api))["credential"] != {"new": 1, "plain": 1}:
            pass
        assert await read(api, "theirs") == (200, {"a": 1})
        await rotate(api)
        assert (await status_of(api))["credential"] == {"new": 2}
        assert await read(api, "theirs") == (200, {"a": 1})


@pytest.mark.parametrize("keys", ["", NEW, f"old:{OTHER.partition(':')[2]}"], ids=["none", "another", "same name"])
async def test_a_missing_or_wrong_key_is_named_by_the_answer_and_by_readyz(start: Start, keys: str) -> None:
    async with start(OLD) as api:
        await save(api, "db")
    async with start(keys, ready="/livez") as api:
        status, answer = await read(api, "db")
        assert status in (500, 503)
        assert answer["detail"]["code"] in ("encryption_key_missing", "stored_secret_unreadable")
        status, answer = await api.request("GET", "/readyz")
        assert status == 503
        assert "1 values of credential cannot be read" in answer["problems"][0]
        assert "planted" not in str(answer)
        status, answer = await api.request("POST", "/api/internal/wallet/rotate-kek", {}, headers=GATE)
        assert status == (200 if keys else 503)
        if keys.startswith("new"):
            assert (answer["credential"]["rewrapped"], answer["credential"]["failed"]) == (0, 1)
        assert (await api.request("DELETE", "/api/credentials/db"))[0] == 200
        await api.request("GET", "/api/internal/wallet/key-status", headers=GATE)
        assert (await api.request("GET", "/readyz"))[0] == 200


async def test_without_a_key_and_without_secrets_the_api_is_ready(start: Start) -> None:
    async with start("") as api:
        status, answer = await api.request("POST", "/api/credentials", {"name": "db", "data": {"password": "planted"}})
        assert status == 503
        assert "NOETL_ENCRYPTION_KEY" in answer["detail"]["message"]


async def test_a_value_moved_to_another_row_is_refused(start: Start, database_dsn: str) -> None:
    async with start(OLD) as api:
        await save(api, "mine", "planted")
        await save(api, "yours")
        await sql(
            database_dsn,
            "UPDATE noetl.credential SET data_encrypted = (SELECT data_encrypted FROM noetl.credential WHERE name = 'mine') "
            "WHERE name = 'yours'",
        )
        status, answer = await read(api, "yours")
        assert status == 500
        assert answer["detail"]["code"] == "stored_secret_unreadable"
        assert "planted" not in str(answer)


async def test_the_keys_are_behind_the_gate(start: Start) -> None:
    async with start(OLD) as api:
        for method, path in (("GET", "key-status"), ("POST", "rotate-kek")):
            status, _ = await api.request(method, f"/api/internal/wallet/{path}")
            assert status == 403
