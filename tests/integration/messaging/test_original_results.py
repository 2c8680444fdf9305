"""Results that the original's Python worker keeps in NATS are read as if they were ours."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator

import nats.js.api
import pytest
from nats.aio.client import Client

from shared.messaging.connection import connect
from shared.messaging.original_results import UnreadableResultError, key_of, read_result, unpacked
from tests.support.api import RunningApi, running_api
from tests.support.nats import NatsServer

LOCATOR = "noetl://execution/700/result/big/8ba28739"
KEY = "execution_700_result_big_8ba28739"
DATA = {"rows": list(range(5000))}


@pytest.fixture
async def connection(nats_server: NatsServer) -> AsyncIterator[Client]:
    client = await connect(nats_server.url, name="test")
    yield client
    await client.close()


async def keep(connection: Client, key: str, value: bytes) -> None:
    bucket = await connection.jetstream().create_key_value(
        nats.js.api.KeyValueConfig(bucket="noetl_result_store", ttl=7200)
    )
    await bucket.put(key, value)


@pytest.mark.parametrize("pack", [gzip.compress, bytes])
async def test_a_result_is_found_by_its_locator(
    database_dsn: str, nats_server: NatsServer, connection: Client, pack
) -> None:  # type: ignore[no-untyped-def]
    await keep(connection, KEY, pack(json.dumps(DATA).encode()))
    async with running_api(database_dsn, nats_url=nats_server.url) as api:
        await until_connected(api)
        status, answer = await api.request("GET", "/api/result/resolve", params={"ref": LOCATOR})
        assert (status, answer) == (200, DATA)
        missing = LOCATOR.replace("700", "701")
        assert (await api.request("GET", "/api/result/resolve", params={"ref": missing}))[0] == 404


async def until_connected(api: RunningApi) -> None:
    """The API serves before it has reached NATS."""
    for _ in range(500):
        status, _ = await api.request("GET", "/api/result/resolve", params={"ref": LOCATOR})
        if status == 200:
            return
    raise AssertionError("the API has not reached NATS")


async def test_without_a_bucket_there_is_no_result(connection: Client) -> None:
    assert await read_result(connection, "execution_1_result_none_00000000") is None


@pytest.mark.parametrize(
    "locator",
    ["noetl://execution/700/result/big/383629461708341248", "noetl://execution/x/result/a/8ba28739", "kv://x"],
)
def test_other_locators_have_no_key(locator: str) -> None:
    assert key_of(locator) is None


@pytest.mark.parametrize("data", [gzip.compress(b"x" * 100)[:-8], b"\x1f\x8bgarbage"])
def test_what_is_damaged_is_said_to_be(data: bytes) -> None:
    with pytest.raises(UnreadableResultError):
        unpacked(data)
