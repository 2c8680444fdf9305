"""One write transaction over many executions: versions, ids and outbox rows are given here and nowhere else.

Operations (`append.py`, `claim.py`, `commit.py`, `lifecycle.py`) see locked rows and add to the batch; `write` stores
everything. Invariant: the versions of an execution are consecutive, because its row is locked from `load` to commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from services.api.store.database import encode_json
from services.api.store.dedup import DedupKey, Owners, take_keys
from services.api.store.queries import queries
from services.api.store.rows import (
    ENGINE_WORKER,
    Columns,
    CommandRow,
    CommandStatus,
    ExecutionRow,
    NewCommand,
    NewEvent,
)
from shared.engine.limits import ENVELOPE_BYTES_MAX
from shared.wire.notification import CommandNotification
from shared.wire.subjects import command_subject, event_subject

if TYPE_CHECKING:
    from services.api.store.database import Connection

_SQL = queries("stream")


@dataclass(frozen=True, slots=True, kw_only=True)
class WireOptions:
    """What a batch needs to know to address its messages."""

    server_url: str
    routing_enabled: bool
    event_partitions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What an operation wants loaded before it is applied, besides its execution row."""

    commands: tuple[int, ...] = ()
    idempotency_key: str | None = None
    event_ids: tuple[int, ...] = ()
    dedup: DedupKey | None = None


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """An earlier request under the same idempotency key."""

    first_version: int
    meta: Mapping[str, Any]


def _json(value: object) -> str | None:
    return None if value is None else encode_json(value)


def _iso(value: datetime) -> str:
    return value.isoformat()


@dataclass(slots=True, kw_only=True)
class StreamBatch:
    """State of one write transaction."""

    wire: WireOptions
    next_id: Callable[[], int]
    now: datetime
    executions: dict[int, ExecutionRow] = field(default_factory=dict)
    commands: dict[tuple[int, int], CommandRow] = field(default_factory=dict)
    requests: dict[tuple[int, str], StoredRequest] = field(default_factory=dict)
    known_events: set[tuple[int, int]] = field(default_factory=set)
    dedup_owners: Owners = field(default_factory=dict)
    events: Columns = field(default_factory=lambda: Columns(width=17))
    outbox: Columns = field(default_factory=lambda: Columns(width=5))
    new_commands: Columns = field(default_factory=lambda: Columns(width=14))
    timers: Columns = field(default_factory=lambda: Columns(width=6))
    touched: set[int] = field(default_factory=set)
    orphaned: set[int] = field(default_factory=set)  # executions that closed a command which waits for a child
    next_timer: datetime | None = None  # the earliest timer of this batch

    def append(self, execution: ExecutionRow, event: NewEvent, *, actionable: bool = False) -> int:
        """Append `event` to the stream of `execution` and return its id.

        `actionable` moves the watermark that asks the orchestrator for a decision. What is added to an execution that the
        original runs asks for nothing and goes to nobody: it has its own server for that.
        """
        event_id = event.event_id if event.event_id is not None else self.next_id()
        execution.stream_version += 1
        execution.last_event_id = event_id
        execution.dirty = True
        if actionable and execution.run_by_playhead:
            execution.actionable_version = execution.stream_version
        self.touched.add(execution.execution_id)
        self.events.add(
            execution.execution_id,
            execution.catalog_id,
            event_id,
            event.parent_event_id,
            execution.parent_execution_id,
            event.event_type,
            event.node_name,
            event.node_type,
            event.status,
            _json(event.context),
            _json(event.result),
            _json(event.meta),
            event.error,
            event.worker_id,
            execution.stream_version,
            event.idempotency_key,
            event.command_id,
        )
        if execution.run_by_playhead:
            self.outbox.add(
                execution.execution_id,
                event_id,
                event_subject(execution.execution_id, partitions=self.wire.event_partitions),
                self._envelope(execution, event, event_id),
                str(event_id),
            )
        return event_id

    def issue(self, execution: ExecutionRow, command: NewCommand) -> int:
        """Issue `command`: row, `command.issued` event and notification. Returns the event id, or 0 if it exists."""
        key = (execution.execution_id, command.command_id)
        if key in self.commands:
            return 0
        meta = {**command.meta, "command_id": command.command_id, "actionable": True}
        event_id = self.append(
            execution,
            NewEvent(
                event_type="command.issued",
                node_name=command.step_name,
                node_type=command.tool_kind,
                status=CommandStatus.PENDING,
                context=command.context,
                meta=meta,
                command_id=command.command_id,
                parent_event_id=command.parent_event_id,
            ),
        )
        self.new_commands.add(
            execution.execution_id,
            command.command_id,
            event_id,
            execution.catalog_id,
            execution.parent_execution_id,
            command.step_name,
            command.tool_kind,
            command.attempt,
            _json(command.context),
            _json(meta),
            command.loop_event_id,
            command.iter_index,
            execution.execution_pool or command.pool,
            ENGINE_WORKER if command.by_engine else None,
        )
        if not command.by_engine:
            self._notify(execution, command, event_id)
        return event_id

    def set_timer(
        self,
        execution: ExecutionRow,
        *,
        timer_id: int,
        due_at: datetime,
        purpose: str,
        step: str | None,
        command: int | None,
    ) -> None:
        """Store a durable timer; the reconciler fires it once after `due_at`."""
        self.timers.add(execution.execution_id, timer_id, due_at, purpose, step, command)
        if self.next_timer is None or due_at < self.next_timer:
            self.next_timer = due_at

    def _notify(self, execution: ExecutionRow, command: NewCommand, event_id: int) -> None:
        notification = CommandNotification(
            execution_id=execution.execution_id,
            event_id=event_id,
            command_id=command.command_id,
            step=command.step_name,
            server_url=self.wire.server_url,
        )
        pool = (execution.execution_pool or command.pool or "shared") if self.wire.routing_enabled else None
        self.outbox.add(
            execution.execution_id,
            self.next_id(),
            command_subject(execution.execution_id, pool=pool),
            encode_json(notification.to_json()),
            f"{command.command_id}:{command.attempt}:0",
        )

    def _envelope(self, execution: ExecutionRow, event: NewEvent, event_id: int) -> str:
        now = _iso(self.now)
        document: dict[str, Any] = {
            "event_id": event_id,
            "execution_id": execution.execution_id,
            "catalog_id": execution.catalog_id,
            "event_type": event.event_type,
            "node_id": event.node_name,
            "node_name": event.node_name,
            "node_type": event.node_type,
            "status": event.status,
            "context": None if event.event_type == "command.issued" else event.context,
            "result": event.result,
            "meta": event.meta,
            "error": event.error,
            "command_id": event.command_id,
            "stage_id": None,
            "frame_id": None,
            "worker_id": event.worker_id,
            "parent_event_id": event.parent_event_id,
            "parent_execution_id": execution.parent_execution_id,
            "stream_id": f"execution/{execution.execution_id}",
            "stream_version": execution.stream_version,
            "event_time": now,
            "ingest_time": now,
            "created_at": now,
        }
        text = encode_json(document)
        if len(text) <= ENVELOPE_BYTES_MAX:
            return text
        return encode_json({**document, "context": None, "result": None, "meta": None, "elided": True})

    async def load(self, connection: Connection, wanted: Iterable[tuple[int, Needs]]) -> None:
        """Lock the execution rows and load what the operations need.

        Raises:
            asyncpg.PostgresError: the database refuses.
        """
        pairs = list(wanted)
        ids = sorted({execution_id for execution_id, _ in pairs})
        for record in await connection.fetch(_SQL["lock_executions"], ids):
            values = dict(record)
            self.now = values.pop("now")
            self.executions[values["execution_id"]] = ExecutionRow(**values)
        if not self.executions:
            self.now = await connection.fetchval(_SQL["database_now"])
        keys = {(execution, command) for execution, needs in pairs for command in needs.commands}
        if keys:
            rows = await connection.fetch(_SQL["load_commands"], [k[0] for k in keys], [k[1] for k in keys])
            self.commands = {(row["execution_id"], row["command_id"]): CommandRow.from_record(row) for row in rows}
        await self._load_duplicates(connection, pairs)
        self.dedup_owners = await take_keys(
            connection, [(needs.dedup, execution) for execution, needs in pairs if needs.dedup is not None]
        )

    async def _load_duplicates(self, connection: Connection, pairs: list[tuple[int, Needs]]) -> None:
        requests = {(execution, needs.idempotency_key) for execution, needs in pairs if needs.idempotency_key}
        if requests:
            rows = await connection.fetch(_SQL["find_idempotent"], [r[0] for r in requests], [r[1] for r in requests])
            for row in rows:
                key = (row["execution_id"], row["idempotency_key"])
                self.requests[key] = StoredRequest(row["stream_version"], row["meta"] or {})
        events = {(execution, event) for execution, needs in pairs for event in needs.event_ids}
        if events:
            rows = await connection.fetch(_SQL["find_events"], [e[0] for e in events], [e[1] for e in events])
            self.known_events = {(row["execution_id"], row["event_id"]) for row in rows}

    async def write(self, connection: Connection) -> None:
        """Store everything the operations added. The caller commits.

        Raises:
            asyncpg.PostgresError: the database refuses.
        """
        inserts, updates = self._execution_rows()
        if len(inserts):
            await connection.execute(_SQL["insert_executions"], *inserts.values)
        if len(self.events) or len(self.outbox) or len(updates):
            await connection.execute(_SQL["append"], *self.events.values, *self.outbox.values, *updates.values)
        for name, columns in (("insert_commands", self.new_commands), ("insert_timers", self.timers)):
            if len(columns):
                await connection.execute(_SQL[name], *columns.values)
        await self._write_commands(connection)
        ended = [row.execution_id for row in self.executions.values() if row.ended]
        if ended:
            await connection.execute(_SQL["cancel_commands"], ended)

    def _execution_rows(self) -> tuple[Columns, Columns]:
        """Return the rows of new executions and of changed ones."""
        inserts, updates = Columns(width=14), Columns(width=9)
        for row in self.executions.values():
            state = _json(row.state)
            if row.is_new:
                inserts.add(
                    row.execution_id,
                    row.catalog_id,
                    row.parent_execution_id,
                    row.status,
                    row.stream_version,
                    row.last_event_id,
                    state,
                    row.is_terminal,
                    row.error,
                    row.actionable_version,
                    row.decided_version,
                    row.parent_command_id,
                    row.root_execution_id,
                    row.execution_pool,
                )
            elif row.dirty:
                updates.add(
                    row.execution_id,
                    row.status,
                    row.stream_version,
                    row.actionable_version,
                    row.decided_version,
                    row.last_event_id,
                    row.ended,
                    row.error,
                    state,
                )
        return inserts, updates

    async def _write_commands(self, connection: Connection) -> None:
        columns = Columns(width=13)
        for row in self.commands.values():
            if row.dirty:
                columns.add(
                    row.execution_id,
                    row.command_id,
                    row.status,
                    row.worker_id,
                    row.claimed_at,
                    row.started_at,
                    row.completed_at,
                    row.attempt,
                    row.lease_until,
                    row.call_event_id,
                    row.latest_event_id,
                    _json(row.result),
                    row.error,
                )
        if len(columns):
            await connection.execute(_SQL["update_commands"], *columns.values)
