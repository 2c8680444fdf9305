"""The schema: built from nothing, equal to the original's, and applied in place to a database of the original."""

from __future__ import annotations

import asyncpg
import pytest

from services.api.store.migrate import MigrationError, migrate
from tests.support.postgres import load_original_dump

COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable, column_default
  FROM information_schema.columns WHERE table_schema = 'noetl'
"""
VIEWS_BY_AGE = {"event_log"}  # its column count depends on how often the original's script ran


async def columns(dsn: str) -> set[tuple[str, ...]]:
    connection = await asyncpg.connect(dsn)
    try:
        return {tuple(row) for row in await connection.fetch(COLUMNS) if row["table_name"] not in VIEWS_BY_AGE}
    finally:
        await connection.close()


async def test_a_second_run_applies_nothing(database_dsn: str) -> None:
    assert await migrate(database_dsn) == 0


async def test_a_changed_migration_stops_the_start(database_dsn: str) -> None:
    connection = await asyncpg.connect(database_dsn)
    await connection.execute("UPDATE noetl.playhead_migration SET sha256 = 'other' WHERE number = 1")
    await connection.close()
    with pytest.raises(MigrationError, match="0001"):
        await migrate(database_dsn)


async def test_a_database_of_the_original_migrates_in_place(database_dsn: str, empty_database_dsn: str) -> None:
    await load_original_dump(empty_database_dsn)
    connection = await asyncpg.connect(empty_database_dsn)
    before = await connection.fetchval("SELECT count(*) FROM noetl.event")
    assert await migrate(empty_database_dsn) > 0
    assert await connection.fetchval("SELECT count(*) FROM noetl.event") == before > 0
    await connection.close()
    assert await columns(empty_database_dsn) == await columns(database_dsn)


async def test_event_partitions_exist_for_ids_two_years_ahead(database_dsn: str) -> None:
    connection = await asyncpg.connect(database_dsn)
    milliseconds = await connection.fetchval(
        "SELECT (EXTRACT(EPOCH FROM now() + interval '23 months') * 1000)::bigint - 1704067200000"
    )
    catalog_id = 5
    await connection.execute(
        "INSERT INTO noetl.catalog (catalog_id, path, version, kind) VALUES (5, 'p', 1, 'playbook')"
    )
    for shift in (22, 23):
        execution_id = milliseconds << shift
        await connection.execute(
            "INSERT INTO noetl.event (execution_id, event_id, catalog_id, event_type) VALUES ($1, 1, $2, 'x')",
            execution_id,
            catalog_id,
        )
        place = await connection.fetchval(
            "SELECT tableoid::regclass::text FROM noetl.event WHERE execution_id = $1", execution_id
        )
        assert place != "noetl.event_default"
    await connection.close()
