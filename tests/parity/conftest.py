"""The recorded database of the original, and the recordings made on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.api.store.migrate import migrate
from tests.support.postgres import PostgresServer, load_original_dump

ORIGINAL = "parity_original"


@pytest.fixture(scope="session")
async def golden_template(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """Name of the original's database, migrated in place: a template for the databases of the tests."""
    dsn = await postgres_server.create_database(ORIGINAL)
    await load_original_dump(dsn)
    await migrate(dsn)
    yield ORIGINAL
    await postgres_server.drop_database(ORIGINAL)


def golden(part: str) -> Path:
    """Return the directory of the recorded `reads` or `writes`."""
    return Path(__file__).resolve().parents[1] / "golden" / "http" / part
