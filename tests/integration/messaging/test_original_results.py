"""Results that the original's Python worker keeps in NATS are read as if they were ours."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import pytest
from nats.aio.client import Client

from shared.messaging.connection import connect
from shared.messaging.original_results import UnreadableResultError, key_of, read_result, unpacked
from tests.support.nats import NatsServer


@pytest.fixture
async def connection(nats_server: NatsServer) -> AsyncIterator[Client]:
    client = await connect(nats_server.url, name="test")
    yield client
    await client.close()


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
