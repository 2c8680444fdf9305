"""GET /api/commands/{event_id} and its claim. The handle is the id of the `command.issued` event."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from services.api.auth.roles import Access
from services.api.http import Call, HttpError, RouteTable, not_found, reply
from services.api.metrics import CLAIMS
from services.api.models import ClaimBody
from services.api.redaction import redact
from services.api.store import stages
from services.api.store.claim import ClaimCommand, ClaimPolicy
from services.api.store.database import Row
from services.api.store.queries import queries

if TYPE_CHECKING:
    pass

routes = RouteTable("commands")

_SQL = queries("execution")
CURSOR_KIND = "cursor_worker"
SEQUENCE_SUFFIX = ":task_sequence"  # of the name under which workers get a step that is a sequence


async def _command(call: Call, server_url: str | None = None) -> Row:
    event_id = call.path_id("event_id")
    row = await call.context.database.fetchrow(_SQL["command_by_event"], event_id, server_url)
    if row is None:
        raise not_found(f"command not found: {event_id}")
    return row


def _document(row: Mapping[str, Any], context: object, meta: object) -> dict[str, Any]:
    return {
        "execution_id": row["execution_id"],
        "node_id": row["step_name"],
        "node_name": row["step_name"],
        "action": row["tool_kind"],
        "context": context,
        "meta": meta,
    }


async def _with_stage(call: Call, row: Row) -> Any:
    """Return the context of a slot of a cursor loop with the stage that its frames belong to."""
    context = orjson.loads(row["context"])
    config = context.get("tool_config")
    if not isinstance(config, dict) or not config.get("loop_event_id") or config.get("stage_id"):
        return context
    policy = config.get("frame_policy")
    config["stage_id"] = await stages.opened(
        call.context.database,
        row["execution_id"],
        str(config["loop_event_id"]),
        step=row["step_name"].removesuffix(SEQUENCE_SUFFIX),
        frame_policy=policy if isinstance(policy, dict) else {},
        next_id=call.context.ids.next,
    )
    return context


@routes.add("GET", "/api/commands/{event_id}", "Show a command, secrets redacted", role=Access.VIEWER, errors=(404,))
async def get_command(call: Call) -> web.StreamResponse:
    """Answer the command without claiming it."""
    row = await _command(call)
    context = orjson.loads(row["context"]) if row["context"] else {}
    return reply(_document(row, redact(context), redact(row["meta"] or {})))


@routes.add(
    "POST",
    "/api/commands/{event_id}/claim",
    "Claim a command",
    role=Access.WORKER,
    body=ClaimBody,
    errors=(404, 409, 503),
)
async def claim_command(call: Call) -> web.StreamResponse:
    """Claim the command for a worker, or say with 409 why the message can be dropped."""
    body: ClaimBody = call.body
    settings = call.context.settings
    row = await _command(call, settings.noetl_server_url)
    operation = ClaimCommand(
        row["execution_id"],
        row["command_id"],
        worker_id=body.worker_id,
        locality=body.locality,
        policy=ClaimPolicy(
            lease=timedelta(seconds=settings.noetl_command_claim_lease_seconds),
            heartbeat_stale=timedelta(seconds=settings.noetl_command_worker_heartbeat_stale_seconds),
            attempts_max=settings.noetl_command_attempts_max,
        ),
    )
    try:
        claimed = await call.context.writer.submit(operation)
    except HttpError as refusal:
        detail = refusal.detail
        CLAIMS.labels(outcome=str(detail.get("code")) if isinstance(detail, dict) else str(refusal.status)).inc()
        raise
    CLAIMS.labels(outcome="renewed" if claimed.renewed else "claimed").inc()
    meta = {**(row["meta"] or {}), "attempt": claimed.attempt}
    context: object = orjson.Fragment(row["context"]) if row["context"] else {}
    if row["tool_kind"] == CURSOR_KIND and row["context"]:
        context = await _with_stage(call, row)
    return reply({"status": "ok", "event_id": row["event_id"], **_document(row, context, meta)})
