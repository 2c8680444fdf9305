"""Append worker events to one execution, with the command's state change in the same transaction.

Rules: an event of a superseded attempt, or one that comes after the end, is kept for the record and changes nothing; a
duplicate is answered with the id of its first copy and stored never.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from services.api.http import not_found
from services.api.ingest import CALL_TYPES, IncomingEvent
from services.api.original import RunByOriginalError
from services.api.store.rows import CommandRow, CommandStatus, ExecutionRow, NewEvent
from services.api.store.stream_batch import Needs, StreamBatch
from services.api.store.stream_writer import Operation

_CLOSING = {
    "command.completed": CommandStatus.COMPLETED,
    "command.failed": CommandStatus.FAILED,
    "command.cancelled": CommandStatus.CANCELLED,
}
_ONCE_PER_COMMAND = frozenset({"step.exit", "command.started", "step.enter", *_CLOSING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """What one request stored: ids in request order.

    For a `duplicate` the ids are left to the reader: they are those of `count` versions from `first_version` on.
    """

    request_id: int
    event_ids: tuple[int, ...]
    first_version: int
    count: int
    duplicate: bool
    superseded: bool = False


class AppendEvents(Operation[Appended]):
    """Append `events` to `execution_id` as one unit."""

    def __init__(
        self,
        execution_id: int,
        events: Sequence[IncomingEvent],
        *,
        request_id: int,
        idempotency_key: str | None,
        lease: timedelta,
        after_end: bool = False,
    ) -> None:
        """Take the events; `after_end` says that the execution, if it is the original's, has ended."""
        self.execution_id = execution_id
        self._after_end = after_end
        self._events = events
        self._request_id = request_id
        self._key = idempotency_key
        self._lease = lease
        self._superseded = False

    def needs(self) -> Needs:
        """Load the commands named, and what is known of the key and of ids that the worker minted."""
        return Needs(
            commands=tuple({event.command_id for event in self._events if event.command_id is not None}),
            idempotency_key=self._key,
            event_ids=tuple(event.event_id for event in self._events if event.event_id is not None),
        )

    def apply(self, batch: StreamBatch) -> Appended:
        """Append, or answer as before when the key is known."""
        execution = batch.executions.get(self.execution_id)
        if execution is None:
            raise not_found(f"Execution {self.execution_id} not found")
        if not execution.run_by_playhead and not self._after_end:
            raise RunByOriginalError(self.execution_id)
        if self._key is not None:
            earlier = batch.requests.get((self.execution_id, self._key))
            if earlier is not None:
                return _as_before(earlier.first_version, earlier.meta)
        first_version = execution.stream_version + 1
        ids = tuple(self._append(batch, execution, event, index) for index, event in enumerate(self._events))
        return Appended(
            request_id=self._request_id,
            event_ids=ids,
            first_version=first_version,
            count=execution.stream_version + 1 - first_version,
            duplicate=False,
            superseded=self._superseded,
        )

    def _append(self, batch: StreamBatch, execution: ExecutionRow, event: IncomingEvent, index: int) -> int:
        if event.event_id is not None and (self.execution_id, event.event_id) in batch.known_events:
            return event.event_id
        row = batch.commands.get((self.execution_id, event.command_id)) if event.command_id is not None else None
        superseded = row is not None and _is_superseded(row, event)
        if row is not None and not superseded:
            known = _duplicate_of(row, event)
            if known is not None:
                return known
        live = not superseded and not execution.is_terminal and execution.run_by_playhead
        actionable = live and _is_actionable(row, event)
        new = self._new_event(event, index=index, actionable=actionable, superseded=superseded)
        event_id = batch.append(execution, new, actionable=actionable)
        if event.event_id is not None:
            batch.known_events.add((self.execution_id, event.event_id))
        if superseded:
            self._superseded = True
        elif row is not None:
            self._change_command(batch, row, event, event_id)
        return event_id

    def _new_event(self, event: IncomingEvent, *, index: int, actionable: bool, superseded: bool) -> NewEvent:
        meta: dict[str, Any] = {**event.meta, "actionable": actionable, "informative": True}
        meta["batch_request_id"] = str(self._request_id)
        if event.worker_id is not None:
            meta["worker_id"] = event.worker_id
        if event.command_id is not None:
            meta["command_id"] = event.command_id
        if superseded:
            meta["superseded"] = True
        if self._key is not None:
            meta["idempotency_key"] = self._key
            meta["batch_events"] = len(self._events)  # versions from the first on, to answer a repetition
        return NewEvent(
            event_type=event.event_type,
            node_name=event.step,
            status=event.status,
            context={"response": event.response} if event.has_response else None,
            result=event.result,
            meta=meta,
            error=event.error,
            worker_id=event.worker_id,
            command_id=event.command_id,
            idempotency_key=self._key if index == 0 else None,
            event_id=event.event_id,
        )

    def _change_command(self, batch: StreamBatch, row: CommandRow, event: IncomingEvent, event_id: int) -> None:
        row.latest_event_id, row.dirty = event_id, True
        if row.is_terminal:
            return
        if row.worker_id is None and event.worker_id is not None:
            row.worker_id, row.claimed_at = event.worker_id, batch.now
        if event.event_type in CALL_TYPES:
            row.call_event_id = event_id
        closing = _CLOSING.get(event.event_type)
        if closing is not None:
            failed = event.result is not None and event.result.get("status") == "FAILED"
            status = CommandStatus.FAILED if closing is CommandStatus.COMPLETED and failed else closing
            row.close(status, batch.now, result=event.result, error=event.error)
            return
        if event.event_type == "command.started" and row.status != CommandStatus.RUNNING:
            row.status, row.started_at = CommandStatus.RUNNING, batch.now
        elif event.event_type == "command.claimed" and row.status == CommandStatus.PENDING:
            row.status = CommandStatus.CLAIMED
        row.renew(batch.now, self._lease)


def _as_before(first_version: int, meta: Mapping[str, Any]) -> Appended:
    count = meta.get("batch_events")
    return Appended(
        request_id=int(meta.get("batch_request_id") or 0),
        event_ids=(),
        first_version=first_version,
        count=count if isinstance(count, int) else 1,
        duplicate=True,
    )


def _is_superseded(row: CommandRow, event: IncomingEvent) -> bool:
    """Whether another worker or a later attempt holds the command now (fencing by worker and attempt)."""
    if event.attempt is not None and event.attempt < row.attempt:
        return True
    return row.worker_id is not None and event.worker_id is not None and row.worker_id != event.worker_id


def _duplicate_of(row: CommandRow, event: IncomingEvent) -> int | None:
    """Return the id of the stored event that this one repeats, if any."""
    if event.event_type in CALL_TYPES and row.call_event_id is not None:
        return row.call_event_id
    if event.event_type not in _ONCE_PER_COMMAND or row.latest_event_id is None:
        return None
    ended = row.status in (CommandStatus.COMPLETED, CommandStatus.FAILED)
    started_again = event.event_type == "command.started" and row.status == CommandStatus.RUNNING
    return row.latest_event_id if ended or started_again else None


def _is_actionable(row: CommandRow | None, event: IncomingEvent) -> bool:
    """Whether the event may need a decision: the one call event of a live command, or its end when no call came."""
    if row is None or row.is_terminal:
        return False
    if event.event_type in CALL_TYPES:
        return True
    return event.event_type in _CLOSING and row.call_event_id is None
