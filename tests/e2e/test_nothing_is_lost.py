"""SIGKILL of every process in turn while executions run: all complete, every step exactly once in the log.

This is the promise of the project. Leases are shortened by their settings, so that the test does not wait for the defaults.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial

import asyncpg
import pytest

from tests.e2e.playbooks import DIAMOND
from tests.support.stack import Stack

EXECUTIONS = 50
AT_ONCE = 10
VICTIMS = ("worker", "orchestrator", "api", "outbox", "projector", "nats", "postgres")
STEPS = ("join", "left", "right", "slow", "start")
SHORT_LEASES = {
    "NOETL_COMMAND_CLAIM_LEASE_SECONDS": "4",
    "NOETL_COMMAND_HEARTBEAT_INTERVAL_SECONDS": "1",
    "NOETL_COMMAND_WORKER_HEARTBEAT_STALE_SECONDS": "4",
    "NOETL_WORKER_HEARTBEAT_SECONDS": "1",
    "NOETL_COMMAND_REAPER_PENDING_RETRY_SECONDS": "4",
    "NOETL_OUTBOX_LEASE_SECONDS": "4",
}


@pytest.fixture
async def own_stack() -> AsyncIterator[Stack]:
    made = Stack(workers=2, env=SHORT_LEASES)
    await made.start()
    yield made
    await made.close()


async def kill(stack: Stack, victim: str) -> None:
    """SIGKILL one process and wait for its successor."""
    await stack.until_restarted(victim, stack.kill(victim))


async def wipe_nats(stack: Stack) -> None:
    """Take every stream, consumer and message away."""
    shutil.rmtree(stack.data_dir / "nats" / "store", ignore_errors=True)
    await kill(stack, "nats")


async def start_all(stack: Stack, catalog_id: str, disturb: Sequence[Callable[[], Awaitable[None]]]) -> list[str]:
    """Run all executions, with the disturbances spread over them."""
    slots = asyncio.Semaphore(AT_ONCE)
    found: list[str] = []

    async def one() -> None:
        async with slots:
            execution_id = await stack.execute(catalog_id)
            found.append(execution_id)
            await stack.until_ended(execution_id)

    async with asyncio.TaskGroup() as group:
        for _ in range(EXECUTIONS):
            group.create_task(one())
        for step in disturb:
            await progress(found)
            await step()
    return found


async def progress(found: list[str]) -> None:
    """Wait until some executions more have been started, so that the kills fall into the middle of work."""
    goal = min(len(found) + 3, EXECUTIONS)
    async with asyncio.timeout(60):
        while len(found) < goal:  # noqa: ASYNC110 - other tasks grow the list
            await asyncio.sleep(0.02)


async def check(stack: Stack, found: list[str]) -> None:
    """Every execution completed, with every step exactly once in a log without gaps, and nothing was given up."""
    connection = await asyncpg.connect(stack.ready["postgres_dsn"])
    try:
        # A client that lost its answer asked again, so there may be more executions than the client knows of.
        rows = await connection.fetch("SELECT execution_id, status, stream_version FROM noetl.execution")
        assert {str(row["execution_id"]) for row in rows} >= set(found)
        await stack.until_rows("SELECT 1 FROM noetl.execution WHERE status <> 'COMPLETED'", count=0)
        logs = await connection.fetch(
            "SELECT execution_id, array_agg(stream_version ORDER BY stream_version) AS versions, "
            "array_agg(node_name ORDER BY node_name) FILTER (WHERE event_type = 'command.issued') AS issued, "
            "array_agg(node_name ORDER BY node_name) FILTER (WHERE event_type = 'call.done') AS done, "
            "array_agg(node_name ORDER BY node_name) FILTER (WHERE event_type = 'command.completed') AS completed, "
            "count(*) FILTER (WHERE event_type = 'playbook.completed') AS ends FROM noetl.event GROUP BY execution_id"
        )
    finally:
        await connection.close()
    assert len(logs) == len(rows)
    for log in logs:
        assert log["versions"] == list(range(1, len(log["versions"]) + 1)), log
        for kind in ("issued", "done", "completed"):
            assert tuple(log[kind]) == STEPS, (kind, log)
        assert log["ends"] == 1
    await stack.until_rows("SELECT 1 FROM noetl.outbox WHERE status <> 'PUBLISHED'", count=0)
    assert not await stack.until_rows("SELECT source, reason FROM noetl.dead_letter", count=0)


@pytest.mark.timeout(300)
async def test_killing_each_process_loses_nothing_and_repeats_nothing(own_stack: Stack) -> None:
    found = await start_all(
        own_stack, await own_stack.register(DIAMOND), [partial(kill, own_stack, it) for it in VICTIMS]
    )
    assert len(set(found)) == EXECUTIONS
    await check(own_stack, found)


@pytest.mark.timeout(300)
async def test_wiping_nats_loses_nothing_and_repeats_nothing(own_stack: Stack) -> None:
    found = await start_all(own_stack, await own_stack.register(DIAMOND), [partial(wipe_nats, own_stack)] * 3)
    await check(own_stack, found)
