from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.api import RunningApi, running_api
from tests.support.nats import NatsServer


@pytest.fixture
async def api(database_dsn: str, nats_server: NatsServer) -> AsyncIterator[RunningApi]:
    """A running API on a fresh database."""
    async with running_api(database_dsn, nats_url=nats_server.url) as running:
        yield running
