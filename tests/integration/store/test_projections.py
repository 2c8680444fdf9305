"""Read models: counts move by what has changed, whatever comes again and in whatever order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.api.store.database import Database
from services.api.store.projections import project

EXECUTION = 383629461708341248


@pytest.fixture
async def database(database_dsn: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_dsn, size_min=1, size_max=4)
    yield opened
    await opened.close()


def batch(status: str | None, commands: range, version: int) -> dict[str, Any]:
    timings = [
        {"execution_id": EXECUTION, "command_id": number, "step_name": "s", "status": status} for number in commands
    ]
    return {"step_timings": timings, "summaries": [{"execution_id": EXECUTION, "version": version}]}


async def counts(database: Database) -> tuple[int, int, int, int]:
    row = await database.fetchrow(
        "SELECT version, commands_issued, commands_done, commands_failed FROM noetl.execution_summary WHERE execution_id = $1",
        EXECUTION,
    )
    assert row is not None
    return row["version"], row["commands_issued"], row["commands_done"], row["commands_failed"]


async def test_a_batch_that_comes_again_adds_nothing(database: Database) -> None:
    for _ in range(2):
        await project(database, [], batch(None, range(1, 11), 10))
    assert await counts(database) == (10, 10, 0, 0)
    for _ in range(2):
        await project(database, [], batch("COMPLETED", range(1, 8), 30))
        await project(database, [], batch("FAILED", range(8, 10), 20))
    assert await counts(database) == (30, 10, 7, 2), "an older batch does not move the version back"


async def test_an_end_without_its_beginning_counts_once(database: Database) -> None:
    await project(database, [], batch("COMPLETED", range(1, 3), 5))
    await project(database, [], batch(None, range(1, 3), 2))
    assert await counts(database) == (5, 2, 2, 0)


async def test_timings_alone_are_counted(database: Database) -> None:
    await project(database, [], {"step_timings": batch("FAILED", range(1, 4), 0)["step_timings"]})
    assert await counts(database) == (0, 3, 0, 3)


async def test_two_projectors_at_once_count_right(database: Database) -> None:
    async with asyncio.TaskGroup() as group:
        for start in range(1, 101, 5):
            for _ in range(2):
                group.create_task(project(database, [], batch("COMPLETED", range(start, start + 5), start)))
    assert await counts(database) == (96, 100, 100, 0)
