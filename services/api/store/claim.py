"""Claim one command for one worker.

A claim is a lease by the database's clock: it is respected while it lasts, renewed by the command's heartbeats, and kept
beyond its end only while the worker itself is alive (Rust workers renew nothing but their registration). A worker that
said goodbye, or fell silent, loses it. Each new claimant gets the next attempt number, which fences the old one out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from services.api.http import HttpError, not_found
from services.api.original import RunByOriginalError
from services.api.store.rows import ENGINE_WORKER, CommandRow, CommandStatus, ExecutionRow, ExecutionStatus, NewEvent
from services.api.store.stream_batch import Needs, StreamBatch
from services.api.store.stream_writer import Operation

HEALTHY_WORKER_HARD_TIMEOUT = timedelta(seconds=1800)  # the original's: a live worker keeps a silent claim so long
RETRY_AFTER_SECONDS = 2  # the original's NOETL_COMMAND_CLAIM_RETRY_AFTER_SECONDS
_ALIVE = frozenset({"ready", "active", "busy"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimPolicy:
    """Times of the claim rules."""

    lease: timedelta
    heartbeat_stale: timedelta
    attempts_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """The claim holds; `attempt` is what the worker must send back in `meta.attempt`."""

    attempt: int
    renewed: bool


def conflict(code: str, *, retry: bool = False, **facts: object) -> HttpError:
    """Return the 409 that workers understand."""
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if retry else None
    return HttpError(409, {"code": code, **facts}, headers=headers)


class ClaimCommand(Operation[Claimed]):
    """Claim `command_id` of `execution_id` for `worker_id`."""

    def __init__(
        self,
        execution_id: int,
        command_id: int,
        *,
        worker_id: str,
        locality: dict[str, Any] | None,
        policy: ClaimPolicy,
    ) -> None:
        self.execution_id = execution_id
        self._command_id = command_id
        self._worker_id = worker_id
        self._locality = locality
        self._policy = policy

    def needs(self) -> Needs:
        """Load the command."""
        return Needs(commands=(self._command_id,))

    def apply(self, batch: StreamBatch) -> Claimed:
        """Claim, or refuse with the 409 that tells the worker to drop the message."""
        execution = batch.executions.get(self.execution_id)
        row = batch.commands.get((self.execution_id, self._command_id))
        if execution is None or row is None:
            raise not_found(f"command not found: {self._command_id}")
        _refuse_ended(execution, row)
        if not execution.run_by_playhead:
            raise RunByOriginalError(self.execution_id)
        if row.worker_id == ENGINE_WORKER:
            raise conflict("active_claim", message="the engine carries this command out", worker_id=ENGINE_WORKER)
        if row.status == CommandStatus.PENDING:
            return self._claim(batch, execution, row, reason=None)
        if row.worker_id == self._worker_id and row.status == CommandStatus.CLAIMED:
            row.renew(batch.now, self._policy.lease)
            return Claimed(attempt=row.attempt, renewed=True)
        reason = reclaim_reason(row, worker_id=self._worker_id, now=batch.now, policy=self._policy)
        if reason is None:
            if row.worker_id == self._worker_id:
                raise conflict("active_claim", retry=True, worker_status="running")
            raise conflict(
                "active_claim",
                retry=True,
                message=f"Command already claimed by {row.worker_id}",
                worker_id=row.worker_id,
            )
        if row.attempt >= self._policy.attempts_max:
            # The one refusal that stores something: the claimant is sent away, and the command's end is written all the same.
            self._give_up(batch, execution, row)
            raise conflict("already_terminal", message="Command status: FAILED")
        return self._claim(batch, execution, row, reason=reason)

    def _claim(self, batch: StreamBatch, execution: ExecutionRow, row: CommandRow, *, reason: str | None) -> Claimed:
        meta: dict[str, Any] = {
            "command_id": row.command_id,
            "worker_id": self._worker_id,
            "actionable": False,
            "informative": True,
        }
        if self._locality:
            meta["locality"] = self._locality
        if reason is not None:
            row.attempt += 1
            meta |= {"reclaimed": True, "reclaimed_from_worker": row.worker_id, "reclaimed_reason": reason}
        meta["attempt"] = row.attempt
        row.status, row.worker_id, row.claimed_at, row.started_at = (
            CommandStatus.CLAIMED,
            self._worker_id,
            batch.now,
            None,
        )
        row.renew(batch.now, self._policy.lease)
        row.latest_event_id = batch.append(
            execution,
            NewEvent(
                event_type="command.claimed",
                node_name=row.step_name,
                status="RUNNING",
                result={"status": "RUNNING", "context": {"command_id": row.command_id}},
                meta=meta,
                worker_id=self._worker_id,
                command_id=row.command_id,
            ),
        )
        return Claimed(attempt=row.attempt, renewed=False)

    def _give_up(self, batch: StreamBatch, execution: ExecutionRow, row: CommandRow) -> None:
        """Fail a command that was claimed too often without a result: it would be claimed for ever."""
        text = f"claimed {row.attempt} times without a result; the last worker was {row.worker_id}"
        result = {"status": "FAILED", "context": {"command_id": row.command_id, "error": text}}
        meta = {"command_id": row.command_id, "attempt": row.attempt, "actionable": True, "informative": True}
        for event_type in ("call.error", "command.failed"):
            event_id = batch.append(
                execution,
                NewEvent(
                    event_type=event_type,
                    node_name=row.step_name,
                    status="FAILED",
                    context={"response": {"status": "error", "error": text}} if event_type == "call.error" else None,
                    result=result,
                    meta=meta,
                    error=text,
                    command_id=row.command_id,
                ),
                actionable=event_type == "call.error",
            )
            row.call_event_id = row.call_event_id or event_id
            row.latest_event_id = event_id
        row.close(CommandStatus.FAILED, batch.now, result=result, error=text)


def _refuse_ended(execution: ExecutionRow, row: CommandRow) -> None:
    if execution.status == ExecutionStatus.CANCELLED:
        raise conflict("execution_cancelled", message="Execution was cancelled")
    if row.is_terminal:
        raise conflict("already_terminal", message=f"Command status: {row.status}")
    if execution.is_terminal:
        raise conflict("already_terminal", message="Execution already reached terminal state")


def reclaim_reason(row: CommandRow, *, worker_id: str, now: datetime, policy: ClaimPolicy) -> str | None:
    """Return why the present claim may be taken over, or None while it must be respected.

    A claimant that deregistered loses its claim at once; otherwise the lease holds, and after it the worker's heartbeat.
    """
    if row.worker_id != worker_id and row.worker_status is not None and row.worker_status not in _ALIVE:
        return "worker_inactive"
    if row.lease_until is not None and row.lease_until > now:
        return None
    if row.worker_id == worker_id:
        return "same_worker_lease_expired"
    if row.worker_heartbeat is None:
        return "lease_expired"
    if now - row.worker_heartbeat >= policy.heartbeat_stale:
        return "worker_heartbeat_stale"
    if row.claimed_at is not None and now - row.claimed_at < HEALTHY_WORKER_HARD_TIMEOUT:
        return None
    return "healthy_worker_hard_timeout"
