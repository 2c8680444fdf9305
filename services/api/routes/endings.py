"""Run an execution again; end one that will not end by itself; cancel all that are stuck."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from services.api import views
from services.api.auth.roles import Access
from services.api.http import Call, HttpError, RouteTable, reply
from services.api.metrics import EXECUTIONS_ENDED
from services.api.models_execution import (
    CleanupBody,
    CleanupReply,
    ExecuteReply,
    FinalizeBody,
    FinalizeReply,
    RerunBody,
)
from services.api.routes.execution import answer, requested_kinds
from services.api.routes.executions import execution_header
from services.api.starting import StartOptions, start_execution
from services.api.store.lifecycle import CancelExecution, CancelResult, FinalizeExecution
from services.api.store.queries import queries
from services.api.store.rows import ExecutionStatus
from shared.engine.decide import merged

log = logging.getLogger(__name__)

routes = RouteTable("executions")

_SQL = queries("execution")
CLEANUP_MAX = 1000  # executions that one clean-up cancels; the message tells when there are more


def _workload_of(context: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the workload in the first event, in the form of either server of the original."""
    outer = context if isinstance(context, Mapping) else {}
    inner = outer.get("result")
    for holder in (inner if isinstance(inner, Mapping) else {}, outer):
        workload = holder.get("workload")
        if isinstance(workload, Mapping):
            return dict(workload)
    return {}


@routes.add(
    "POST",
    "/api/executions/{execution_id}/rerun",
    "Run an execution again",
    role=Access.RUNNER,
    body=RerunBody,
    body_required=False,
    response=ExecuteReply,
    errors=(404, 503),
)
async def rerun(call: Call) -> web.StreamResponse:
    """Start the same version of the same playbook with the workload of the earlier run, the body's merged over it. An empty
    workload repeats the run. The earlier run stays as it is."""
    execution_id = call.path_id("execution_id")
    body: RerunBody = call.body
    requested_kinds(body.resource_kind)
    row = await execution_header(call, execution_id)
    entry = await call.context.playbooks.find(path=None, catalog_id=row["catalog_id"], version=None)
    before = _workload_of(await call.context.database.fetchval(_SQL["initial_context"], execution_id))
    over = body.workload if body.workload is not None else body.payload or {}
    started = await start_execution(
        call.context,
        entry,
        payload=merged(before, over),
        options=StartOptions(pool=row["execution_pool"], meta={"rerun_of": str(execution_id)}),
    )
    return reply(answer(started))


@routes.add(
    "POST",
    "/api/executions/{execution_id}/finalize",
    "End an execution that was abandoned",
    role=Access.OPERATOR,
    body=FinalizeBody,
    body_required=False,
    response=FinalizeReply,
    errors=(503,),
)
async def finalize(call: Call) -> web.StreamResponse:
    """Write its terminal events: failed with the reason, unless the body says completed. One that is unknown or has ended is
    answered with 200, as in the original."""
    execution_id = call.path_id("execution_id")
    body: FinalizeBody = call.body
    try:
        row = await execution_header(call, execution_id)
    except HttpError:
        return _finalized("not_found", execution_id, f"Execution {execution_id} not found in engine state store")
    over = _finalized("already_completed", execution_id, f"Execution {execution_id} is already completed")
    if row["status"] in views.TERMINAL:
        return over
    status = ExecutionStatus(body.status)
    error = (body.error or body.reason) if status is ExecutionStatus.FAILED else None
    operation = FinalizeExecution(execution_id, path=row["path"], status=status, error=error)
    outcome = await call.context.writer.submit(operation)
    if not outcome.cancelled:
        return over
    EXECUTIONS_ENDED.labels(status=status.value).inc()
    log.info("execution finalized", extra={"execution_id": execution_id, "status": status.value})
    return _finalized("finalized", execution_id, f"Emitted terminal events for execution {execution_id}")


def _finalized(status: str, execution_id: int, message: str) -> web.Response:
    return reply({"status": status, "execution_id": str(execution_id), "message": message})


@routes.add(
    "POST",
    "/api/executions/cleanup",
    "Cancel executions that are stuck",
    role=Access.ADMIN,
    body=CleanupBody,
    response=CleanupReply,
    errors=(503,),
)
async def cleanup(call: Call) -> web.StreamResponse:
    """Cancel what began longer ago than asked for and has no end, oldest first."""
    body: CleanupBody = call.body
    rows = await call.context.database.fetch(_SQL["stuck"], body.older_than_minutes, CLEANUP_MAX + 1)
    ids = [row["execution_id"] for row in rows[:CLEANUP_MAX] if await _is_running(call, row)]
    more = f"; more than {CLEANUP_MAX} were found, send it again" if len(rows) > CLEANUP_MAX else ""
    age = f"stuck executions older than {body.older_than_minutes} minutes"
    if body.dry_run:
        return _cleaned(ids, f"[DRY RUN] Would cancel {len(ids)} {age}{more}")
    if not ids:
        return _cleaned([], f"No stuck executions found older than {body.older_than_minutes} minutes")
    meta = {
        "reason": f"Cleaned up stuck execution (older than {body.older_than_minutes} minutes)",
        "cancelled_by": "api",
        "auto_cancelled": True,
        "cleanup_api": True,
    }
    operations = [CancelExecution(execution_id, meta=meta) for execution_id in ids]
    outcomes = await call.context.writer.submit_all(operations, failed=_left_alone)
    done = [execution_id for execution_id, outcome in zip(ids, outcomes, strict=True) if outcome.cancelled]
    EXECUTIONS_ENDED.labels(status="CANCELLED").inc(len(done))
    return _cleaned(done, f"Successfully cancelled {len(done)} {age}{more}")


async def _is_running(call: Call, row: Mapping[str, Any]) -> bool:
    """Whether it really runs; one of the original may have ended without a word."""
    if row["run_by_playhead"]:
        return True
    return (await execution_header(call, row["execution_id"]))["status"] not in views.TERMINAL


def _left_alone(operation: CancelExecution, error: HttpError) -> CancelResult:
    """Leave out one that is gone meanwhile; anything else is the answer of the whole request."""
    if error.status != 404:
        raise error
    log.info("execution is gone", extra={"execution_id": operation.execution_id})
    return CancelResult(cancelled=False, status="")


def _cleaned(ids: list[int], message: str) -> web.Response:
    return reply({"cancelled_count": len(ids), "execution_ids": [str(item) for item in ids], "message": message})
