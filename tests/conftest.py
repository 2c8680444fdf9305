"""Servers for the tests: one real Postgres and one real nats-server per session, a fresh database per test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from services.api.store.migrate import migrate
from tests.support.nats import NatsServer
from tests.support.postgres import PostgresServer
from tests.support.stack import Stack

TEMPLATE = "playhead_template"


@pytest.fixture(scope="session")
async def postgres_server() -> AsyncIterator[PostgresServer]:
    """A running Postgres with a migrated template database."""
    server = PostgresServer()
    await server.start()
    try:
        await migrate(await server.create_database(TEMPLATE))
        yield server
    finally:
        await server.close()


async def _fresh(server: PostgresServer, template: str | None) -> AsyncIterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield await server.create_database(name, template)
    await server.drop_database(name)


@pytest.fixture
async def database_dsn(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """URL of a fresh, migrated database."""
    async for dsn in _fresh(postgres_server, TEMPLATE):
        yield dsn


@pytest.fixture
async def empty_database_dsn(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """URL of a fresh, empty database."""
    async for dsn in _fresh(postgres_server, None):
        yield dsn


@pytest.fixture(scope="session")
async def nats_server() -> AsyncIterator[NatsServer]:
    """A running nats-server shared by the session: use stream names of your own, and leave it running."""
    server = NatsServer()
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def own_nats_server() -> AsyncIterator[NatsServer]:
    """A running nats-server for one test, which may stop and start it."""
    server = NatsServer()
    await server.start()
    yield server
    await server.close()


@pytest.fixture(scope="session")
async def stack() -> AsyncIterator[Stack]:
    """`playhead dev` as a user starts it, shared by the session; a test must leave it working."""
    made = Stack()
    await made.start()
    yield made
    await made.close()
