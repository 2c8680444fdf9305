from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from services.api.ingest import IncomingEvent, normalise, share_command_id
from services.api.store.append import Appended, AppendEvents
from services.api.store.claim import ClaimCommand, Claimed, ClaimPolicy
from services.api.store.database import Database
from services.api.store.lifecycle import StartExecution
from services.api.store.rows import NewEvent
from services.api.store.stream_batch import WireOptions
from services.api.store.stream_writer import StreamWriter
from shared.engine import IssueCommand
from shared.wire.ids import SnowflakeGenerator

POLICY = ClaimPolicy(lease=timedelta(seconds=60), heartbeat_stale=timedelta(seconds=30), attempts_max=3)
NOW_MS = 1_795_000_000_000


class Store:
    """The write side of the API on a real database, driven without HTTP."""

    def __init__(self, database: Database) -> None:
        generator = SnowflakeGenerator(node_id=7)
        self.database = database
        self.next_id = lambda: generator.next(unix_ms=NOW_MS)
        self.committed: list[set[int]] = []
        self.writer = StreamWriter(
            database,
            lanes=2,
            queue_max=256,
            batch_max=64,
            wire=WireOptions(server_url="http://api.test", routing_enabled=False, event_partitions=1),
            next_id=self.next_id,
            on_commit=self.committed.append,
        )
        self.catalog_id = 0

    async def add_catalog(self) -> None:
        self.catalog_id = self.next_id()
        async with self.database.connection() as connection:
            await connection.execute(
                "INSERT INTO noetl.catalog (catalog_id, path, version, kind, content) VALUES ($1, 'a/b', 1, 'playbook', '')",
                self.catalog_id,
            )

    async def start(self, *, commands: int = 1, parent: int | None = None) -> tuple[int, list[int]]:
        """Start an execution with two initial events and `commands` issued; return its id and the command ids."""
        execution_id = self.next_id()
        ids = [execution_id + 1000 + index for index in range(commands)]
        effects = [
            IssueCommand(
                command_id=command_id,
                step_name=f"step_{index}",
                tool_kind="noop",
                context={"tool_config": {}},
                meta={"step": f"step_{index}", "attempt": 1},
                attempt=1,
                parent_event_id=None,
                loop_event_id=None,
                iter_index=None,
                pool=None,
            )
            for index, command_id in enumerate(ids)
        ]
        events = [
            NewEvent(event_type="playbook.initialized", node_name="a/b", status="initialized"),
            NewEvent(event_type="workflow.initialized", node_name="workflow", status="initialized"),
        ]
        await self.writer.submit(
            StartExecution(
                execution_id,
                catalog_id=self.catalog_id,
                parent_execution_id=parent,
                events=events,
                effects=effects,
                state={"completed_steps": []},
            )
        )
        return execution_id, ids

    def incoming(self, name: str, command_id: int | None, *, worker: str = "w1", **fields: Any) -> IncomingEvent:
        payload = {**fields.pop("payload", {})}
        if command_id is not None:
            payload["command_id"] = command_id
        item = {"step": "step_0", "name": name, "payload": payload, **fields}
        return normalise(item, worker_id=worker)

    async def report(
        self,
        execution_id: int,
        *names: str,
        command_id: int | None = None,
        worker: str = "w1",
        key: str | None = None,
        **fields: Any,
    ) -> Appended:
        events = share_command_id([self.incoming(name, command_id, worker=worker, **fields) for name in names])
        return await self.writer.submit(
            AppendEvents(
                execution_id, events, request_id=self.next_id(), idempotency_key=key, lease=timedelta(seconds=60)
            )
        )

    async def claim(self, execution_id: int, command_id: int, *, worker: str = "w1") -> Claimed:
        return await self.writer.submit(
            ClaimCommand(execution_id, command_id, worker_id=worker, locality=None, policy=POLICY)
        )

    async def execution(self, execution_id: int) -> asyncpg.Record:
        row = await self.database.fetchrow("SELECT * FROM noetl.execution WHERE execution_id = $1", execution_id)
        assert row is not None
        return row

    async def command(self, command_id: int) -> asyncpg.Record:
        row = await self.database.fetchrow("SELECT * FROM noetl.command WHERE command_id = $1", command_id)
        assert row is not None
        return row

    async def log(self, execution_id: int) -> list[asyncpg.Record]:
        return await self.database.fetch(
            "SELECT * FROM noetl.event WHERE execution_id = $1 ORDER BY stream_version", execution_id
        )


@pytest.fixture
async def store(database_dsn: str) -> AsyncIterator[Store]:
    database = await Database.open(database_dsn, size_min=1, size_max=4)
    made = Store(database)
    await made.add_catalog()
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(made.writer.run(stop))
        with contextlib.suppress(GeneratorExit):
            yield made
        stop.set()
    await database.close()
