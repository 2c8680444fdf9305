"""Micro-batched writes: many requests share one transaction, and each is answered after its commit, never before.

Every write to an execution goes through one of a few lanes, chosen by the execution's id, so an execution is never
written by two transactions of this process at once. While a lane's transaction runs, requests pile up in its bounded queue
and form the next batch: batches grow with load and vanish without it. A full queue refuses at once (503), so memory is
bounded and the caller knows that nothing was stored.

Failure: an operation that refuses (HttpError) fails alone. When the database refuses a batch, its operations are tried
again one by one, so that a bad one cannot take its neighbours down.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import asyncpg

from services.api.http import HttpError, overloaded
from services.api.metrics import COMMIT_SECONDS, EVENTS_APPENDED, WRITE_BATCH_SIZE, WRITE_REFUSED
from services.api.store.rows import ExecutionRow
from services.api.store.stream_batch import Needs, StreamBatch, WireOptions
from shared.wire.shard import shard_for

if TYPE_CHECKING:
    from services.api.store.database import Database

log = logging.getLogger(__name__)

SUBMIT_TIMEOUT_SECONDS = 30.0  # a write not committed by then is answered 503; a retry is idempotent
CONFLICT_RETRIES = 3  # deadlocks and serialization failures of one batch, before its operations are tried alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What one transaction has changed, for those who act after the commit; the reconciler finds what they miss.

    Args (fields):
        executions: those whose log has grown.
        ended: those that have ended.
        orphaned: those that gave up a command which waits for a child.
        next_timer: the earliest timer that was set.
    """

    executions: frozenset[int] = frozenset()
    ended: tuple[ExecutionRow, ...] = ()
    orphaned: frozenset[int] = frozenset()
    next_timer: datetime | None = None


T = TypeVar("T")
OperationT = TypeVar("OperationT", bound="Operation[Any]")

_TRANSIENT = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
_UNAVAILABLE = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.QueryCanceledError,
    OSError,
    TimeoutError,
)


class Operation(ABC, Generic[T]):
    """One write to one execution. `apply` runs under the execution's lock, is synchronous, and validates before it
    changes anything, so that a refusal leaves the batch as it was."""

    execution_id: int

    def needs(self) -> Needs:
        """Return what must be loaded before `apply`."""
        return Needs()

    @abstractmethod
    def apply(self, batch: StreamBatch) -> T:
        """Add to `batch` and return the answer.

        Raises:
            HttpError: the request is refused; nothing of it is stored.
        """


@dataclass(slots=True)
class _Pending:
    operation: Operation[Any]
    future: asyncio.Future[Any]
    outcome: object = None
    refusal: HttpError | None = None


@dataclass(slots=True)
class _Lane:
    queue: asyncio.Queue[_Pending]
    busy: bool = field(default=False)


class StreamWriter:
    """The lanes and their bounded queues."""

    def __init__(
        self,
        database: Database,
        *,
        lanes: int,
        queue_max: int,
        batch_max: int,
        wire: WireOptions,
        next_id: Callable[[], int],
        on_commit: Callable[[Committed], None],
    ) -> None:
        """Write to `database` on `lanes` concurrent transactions; `on_commit` is told what changed."""
        self._database = database
        self._lanes = [_Lane(asyncio.Queue(maxsize=max(1, queue_max // lanes))) for _ in range(lanes)]
        self._batch_max = batch_max
        self._wire = wire
        self._next_id = next_id
        self._on_commit = on_commit

    @property
    def queue_depth(self) -> int:
        """Writes that wait for a transaction."""
        return sum(lane.queue.qsize() for lane in self._lanes)

    async def submit(self, operation: Operation[T]) -> T:
        """Run `operation` in a shared transaction and return its answer after the commit.

        Raises:
            HttpError: the operation's refusal; 503 when the queue is full, the database is away, or time is up.
        """
        lane = self._lanes[shard_for(operation.execution_id, len(self._lanes))]
        pending = _Pending(operation, asyncio.get_running_loop().create_future())
        try:
            lane.queue.put_nowait(pending)
        except asyncio.QueueFull:
            WRITE_REFUSED.labels(reason="queue_full").inc()
            raise overloaded("queue_unavailable", "too many writes are waiting; send it again") from None
        try:
            async with asyncio.timeout(SUBMIT_TIMEOUT_SECONDS):
                return await asyncio.shield(pending.future)
        except TimeoutError:
            WRITE_REFUSED.labels(reason="timeout").inc()
            raise overloaded("ack_timeout", "the write was not committed in time; send it again") from None

    async def submit_all(
        self, operations: Sequence[OperationT], *, failed: Callable[[OperationT, HttpError], T]
    ) -> list[T]:
        """Run many operations at once and return their answers in order; `failed` turns a refusal into an answer.

        Raises:
            HttpError: what `failed` raises.
        """

        async def one(operation: OperationT) -> T:
            try:
                return await self.submit(operation)
            except HttpError as error:
                return failed(operation, error)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(operation)) for operation in operations]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        return [task.result() for task in tasks]

    async def run(self, stop: asyncio.Event) -> None:
        """Serve the lanes until `stop`, then finish what is queued."""
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(self._serve(lane, stop))

    async def _serve(self, lane: _Lane, stop: asyncio.Event) -> None:
        stopping = asyncio.ensure_future(stop.wait())  # noqa: TID251 - awaited and cancelled in this function
        try:
            while not (stop.is_set() and lane.queue.empty()):
                first = await self._next(lane, stopping)
                if first is not None:
                    await self._run_batch(self._drain(lane, first))
        finally:
            stopping.cancel()

    async def _next(self, lane: _Lane, stopping: asyncio.Future[Any]) -> _Pending | None:
        try:
            return lane.queue.get_nowait()
        except asyncio.QueueEmpty:
            pass
        getter = asyncio.ensure_future(lane.queue.get())  # noqa: TID251 - awaited and cancelled in this function
        await asyncio.wait({getter, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if getter.done():
            return getter.result()
        getter.cancel()
        return None

    def _drain(self, lane: _Lane, first: _Pending) -> list[_Pending]:
        batch = [first]
        while len(batch) < self._batch_max and not lane.queue.empty():
            batch.append(lane.queue.get_nowait())
        return batch

    async def _run_batch(self, batch: Sequence[_Pending]) -> None:
        try:
            await self._commit(batch)
        except _UNAVAILABLE as error:
            log.warning("database unavailable", extra={"error": type(error).__name__, "writes": len(batch)})
            self._fail(batch, overloaded("db_unavailable", "the database is unavailable; send it again"))
        except Exception as error:
            if len(batch) > 1:
                for pending in batch:
                    await self._run_batch([pending])
                return
            log.exception("write failed", extra={"execution_id": batch[0].operation.execution_id})
            self._fail(batch, _refusal_of(error))

    async def _commit(self, batch: Sequence[_Pending]) -> None:
        for attempt in range(CONFLICT_RETRIES):
            try:
                with COMMIT_SECONDS.time():
                    committed = await self._transact(batch)
            except _TRANSIENT:
                if attempt == CONFLICT_RETRIES - 1:
                    raise
                continue
            self._on_commit(committed)
            self._answer(batch)
            return

    async def _transact(self, batch: Sequence[_Pending]) -> Committed:
        work = StreamBatch(wire=self._wire, next_id=self._next_id, now=datetime.now(UTC))
        async with self._database.transaction() as connection:
            await work.load(connection, [(p.operation.execution_id, p.operation.needs()) for p in batch])
            for pending in batch:
                pending.outcome = pending.refusal = None
                try:
                    pending.outcome = pending.operation.apply(work)
                except HttpError as refusal:
                    pending.refusal = refusal
            await work.write(connection)
        WRITE_BATCH_SIZE.observe(len(batch))
        EVENTS_APPENDED.inc(len(work.events))
        return Committed(
            executions=frozenset(work.touched),
            ended=tuple(row for row in work.executions.values() if row.ended),
            orphaned=frozenset(work.orphaned),
            next_timer=work.next_timer,
        )

    @staticmethod
    def _answer(batch: Sequence[_Pending]) -> None:
        for pending in batch:
            if pending.future.done():
                continue
            if pending.refusal is not None:
                pending.future.set_exception(pending.refusal)
            else:
                pending.future.set_result(pending.outcome)

    @staticmethod
    def _fail(batch: Sequence[_Pending], error: HttpError) -> None:
        for pending in batch:
            if not pending.future.done():
                pending.future.set_exception(error)


def _refusal_of(error: Exception) -> HttpError:
    """Return the answer for a write that the database refuses on its own."""
    if isinstance(error, asyncpg.DataError | asyncpg.IntegrityConstraintViolationError):
        constraint = getattr(error, "constraint_name", None)
        return HttpError(422, f"the database refuses these values{f' ({constraint})' if constraint else ''}")
    return HttpError(500, "the write failed; nothing was stored")
