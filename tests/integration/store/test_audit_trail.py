"""The audit trail keeps what it is given until it is stored, and one bad row does not hold up the others."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from services.api.audit import AuditTrail, audit_row
from services.api.store import audit as store
from services.api.store.database import Database

EVERYTHING = store.Period(start=None, end=None, before=None)


@pytest.fixture
async def database(database_dsn: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_dsn, size_min=1, size_max=1)
    yield opened
    await opened.close()


def row(actor: str, **parameters: str) -> store.AuditRow:
    return audit_row(
        actor=actor, role="admin", method="POST", route="/x", parameters=parameters, status=200, address="127.0.0.1"
    )


async def actors(database: Database) -> list[str]:
    rows = await store.list_rows(database, actor=None, route=None, execution_id=None, period=EVERYTHING, limit=100)
    return [found["actor"] for found in rows][::-1]


async def test_a_row_that_the_database_refuses_is_lost_alone(database: Database) -> None:
    trail = AuditTrail(database)
    for actor in ("before", "lone \ud800 surrogate", "after"):
        trail.record(row(actor, name="a\x00b"))
    await trail.flush()
    assert await actors(database) == ["before", "after"]


async def test_rows_wait_while_the_database_is_away(database: Database, database_dsn: str) -> None:
    trail = AuditTrail(database)
    other = await asyncpg.connect(database_dsn)
    await other.execute("ALTER TABLE noetl.audit RENAME TO gone")
    trail.record(row("kept"))
    await trail.flush()
    await other.execute("ALTER TABLE noetl.gone RENAME TO audit")
    await other.close()
    assert await actors(database) == []
    await trail.flush()
    assert await actors(database) == ["kept"]
    await trail.flush()
    assert await actors(database) == ["kept"]


async def test_calls_of_one_kind_become_one_row(database: Database) -> None:
    trail = AuditTrail(database)
    for _ in range(5):
        trail.count(("service", "worker", "POST", "/api/events", 200, "127.0.0.1"))
    await trail.flush()
    assert await actors(database) == []
    await trail.flush(counts=True)
    rows = await store.list_rows(database, actor="service", route="/api", execution_id=None, period=EVERYTHING, limit=9)
    assert [(found["calls"], found["route"]) for found in rows] == [(5, "/api/events")]
