from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from tests.conftest import TEMPLATE
from tests.support.api import RunningApi, running_api
from tests.support.nats import NatsServer
from tests.support.postgres import PostgresServer


@pytest.fixture
async def api(database_dsn: str, nats_server: NatsServer) -> AsyncIterator[RunningApi]:
    """A running API on a fresh database."""
    async with running_api(database_dsn, nats_url=nats_server.url) as running:
        yield running


@pytest.fixture(scope="module")
async def shared_api(postgres_server: PostgresServer, nats_server: NatsServer) -> AsyncIterator[RunningApi]:
    """A running API on one database for all tests of a module: for tests that need neither an empty one nor settings."""
    name = f"shared_{uuid.uuid4().hex[:12]}"
    dsn = await postgres_server.create_database(name, TEMPLATE)
    async with running_api(dsn, nats_url=nats_server.url) as running:
        yield running
    await postgres_server.drop_database(name)


@pytest.fixture(scope="module")
async def module_dsn(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """A migrated database that the tests of a file share: they use names of their own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield await postgres_server.create_database(name, TEMPLATE)
    await postgres_server.drop_database(name)
