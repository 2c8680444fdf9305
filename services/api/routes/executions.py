"""Lists, details, events, status and cancellation of executions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from aiohttp import web

from services.api import views
from services.api.auth.roles import Access
from services.api.http import Call, HttpError, RouteTable, not_found, reply
from services.api.metrics import EXECUTIONS_ENDED
from services.api.models import CancelBody, CancellationQuery, DetailQuery, ListQuery, PageQuery, StatusQuery
from services.api.original import original_life
from services.api.redaction import redact
from services.api.store.database import Row
from services.api.store.lifecycle import CancelExecution
from services.api.store.queries import queries

routes = RouteTable("executions")

_SQL = queries("execution")
PAGE_SIZE_MAX = 200  # the original caps the list silently
OFFSET_MAX = 5000  # deeper pages are refused, as in the original
CASCADE_DEPTH_MAX = 64  # generations of children that one cancel follows


async def execution_header(call: Call, execution_id: int, *, message: str | None = None) -> dict[str, Any]:
    """Return the execution as the routes show it, from its row or, when the original runs it, from its log.

    Raises:
        HttpError: 404 with `message` when it is unknown.
    """
    database = call.context.database
    found = await database.fetchrow(_SQL["header"], execution_id)
    if found is None:
        raise not_found(message or f"Execution {execution_id} not found")
    row = {**found, "inferred": False}
    if not row["run_by_playhead"]:
        log = await database.fetchrow(_SQL["original_life"], execution_id)
        if log is not None and log["started_at"] is not None:
            row |= asdict(original_life(log))
    return row


@routes.add("GET", "/api/executions", "List executions, newest first", role=Access.VIEWER, query=ListQuery)
async def list_executions(call: Call) -> web.StreamResponse:
    """Answer a bare array, as the GUI expects."""
    query: ListQuery = call.query
    size = min(query.page_size, PAGE_SIZE_MAX)
    offset = (query.page - 1) * size
    if offset > OFFSET_MAX:
        raise HttpError(422, f"Requested page is too deep. Max supported offset is {OFFSET_MAX}.")
    status = query.status.upper() if query.status else None
    rows = await call.context.database.fetch(_SQL["list_page"], size, offset, status)
    return reply([views.list_item(row) for row in rows])


@routes.add(
    "GET",
    "/api/executions/{execution_id}/status",
    "Status of an execution",
    role=Access.VIEWER,
    query=StatusQuery,
    errors=(404,),
)
async def status(call: Call) -> web.StreamResponse:
    """Answer one document that every client can read."""
    row = await execution_header(call, call.path_id("execution_id"), message="Execution not found")
    return reply(views.status_document(row, full=call.query.full))


async def _events(call: Call, execution_id: int, query: PageQuery) -> tuple[list[dict[str, Any]], int]:
    database = call.context.database
    total = await database.fetchval(_SQL["count_events"], execution_id, query.event_type, query.since_event_id)
    offset = (query.page - 1) * query.page_size
    rows = await database.fetch(
        _SQL["event_page"], execution_id, query.event_type, query.since_event_id, query.page_size, offset
    )
    return [{**dict(row), "execution_id_text": str(execution_id)} for row in rows], total


@routes.add(
    "GET", "/api/executions/{execution_id}", "Show an execution", role=Access.VIEWER, query=DetailQuery, errors=(404,)
)
async def detail(call: Call) -> web.StreamResponse:
    """Answer the list item with a page of events and, once ended, the result."""
    execution_id = call.path_id("execution_id")
    query: DetailQuery = call.query
    row = await execution_header(call, execution_id)
    document = views.list_item(row)
    terminal = None
    if row["run_by_playhead"] and row["status"] in views.TERMINAL:
        terminal = await call.context.database.fetchrow(_SQL["terminal_result"], execution_id)
    if terminal is not None:
        document["result"] = redact(terminal["result"])
        document["error"] = document["error"] or terminal["error"]
    events: list[dict[str, Any]] = []
    paging = None
    if query.include_events:
        rows, total = await _events(call, execution_id, query)
        events = [views.detail_event(item) for item in rows]
        paging = views.pagination(page=query.page, page_size=query.page_size, total=total)
    document |= {
        "events": events,
        "events_included": query.include_events,
        "events_endpoint": f"/api/executions/{execution_id}/events",
        "pagination": paging,
    }
    return reply(document)


@routes.add(
    "GET",
    "/api/executions/{execution_id}/events",
    "Events of an execution, newest first",
    role=Access.VIEWER,
    query=PageQuery,
    errors=(404,),
)
async def events(call: Call) -> web.StreamResponse:
    """Answer one page of the log."""
    execution_id = call.path_id("execution_id")
    query: PageQuery = call.query
    row = await execution_header(call, execution_id)
    rows, total = await _events(call, execution_id, query)
    return reply(
        {
            "execution_id": str(execution_id),
            "path": row["path"],
            "status": row["status"],
            "events": [views.log_event(item) for item in rows],
            "pagination": views.pagination(page=query.page, page_size=query.page_size, total=total),
        }
    )


@routes.add(
    "GET",
    "/api/executions/{execution_id}/cancellation-check",
    "Has it been cancelled?",
    role=Access.VIEWER,
    query=CancellationQuery,
    errors=(404,),
)
async def cancellation_check(call: Call) -> web.StreamResponse:
    """Answer from the execution's status; the newest event is shown beside it.

    With `commands`, `cancelled_commands` has the ids of those that took too long: their tools can stop.
    """
    execution_id = call.path_id("execution_id")
    row = await execution_header(call, execution_id)
    newest = await call.context.database.fetchrow(_SQL["newest_event"], execution_id)
    status_text = row["status"]
    answer: dict[str, Any] = {
        "execution_id": str(execution_id),
        "status": status_text,
        "event_type": None if newest is None else newest["event_type"],
        "cancelled": status_text == "CANCELLED",
        "completed": status_text == "COMPLETED",
        "failed": status_text == "FAILED",
    }
    if call.query.commands:
        rows = await call.context.database.fetch(_SQL["cancelled_commands"], execution_id)
        answer["cancelled_commands"] = [item["command_id"] for item in rows]
    return reply(answer)


@routes.add(
    "POST",
    "/api/executions/{execution_id}/stop",
    "Cancel an execution, as the GUI asks for it",
    role=Access.OPERATOR,
    body=CancelBody,
    body_required=False,
    errors=(404,),
)
@routes.add(
    "POST",
    "/api/executions/{execution_id}/cancel",
    "Cancel an execution",
    role=Access.OPERATOR,
    body=CancelBody,
    body_required=False,
    errors=(404,),
)
async def cancel(call: Call) -> web.StreamResponse:
    """Cancel it and, with `cascade`, its descendants; one that has ended stays as it is."""
    execution_id = call.path_id("execution_id")
    body: CancelBody = call.body
    row = await execution_header(call, execution_id)
    if row["status"] in views.TERMINAL:  # in a database of the original this may stand in the log only
        return _over(execution_id, row["status"])
    meta = {"reason": body.reason, "cancelled_by": "api", "cascade": body.cascade}
    outcome = await call.context.writer.submit(CancelExecution(execution_id, meta={**meta, "parent_cancel_id": None}))
    if not outcome.cancelled:
        return _over(execution_id, outcome.status)
    cancelled = [execution_id]
    if body.cascade:
        cancelled += await _cancel_descendants(call, execution_id, {**meta, "parent_cancel_id": str(execution_id)})
    EXECUTIONS_ENDED.labels(status="CANCELLED").inc(len(cancelled))
    return reply(
        {
            "status": "cancelled",
            "execution_id": str(execution_id),
            "cancelled_executions": [str(item) for item in cancelled],
            "message": f"Cancelled {len(cancelled)} execution(s)",
        }
    )


def _over(execution_id: int, status: str) -> web.Response:
    return reply(
        {
            "status": "already_completed",
            "execution_id": str(execution_id),
            "cancelled_executions": [],
            "message": f"Execution {execution_id} is already {status}",
        }
    )


async def _child_status(call: Call, row: Row) -> str:
    """Return the status of a child; one that the original runs may have ended in its log only."""
    if row["run_by_playhead"]:
        return str(row["status"])
    return str((await execution_header(call, row["execution_id"]))["status"])


async def _cancel_descendants(call: Call, execution_id: int, meta: dict[str, Any]) -> list[int]:
    cancelled: list[int] = []
    generation = [execution_id]
    for _ in range(CASCADE_DEPTH_MAX):
        rows = await call.context.database.fetch(_SQL["children"], generation)
        generation = [row["execution_id"] for row in rows]
        if not generation:
            break
        for row in rows:
            if await _child_status(call, row) not in views.TERMINAL:
                outcome = await call.context.writer.submit(CancelExecution(row["execution_id"], meta=meta))
                cancelled += [row["execution_id"]] if outcome.cancelled else []
    return cancelled
