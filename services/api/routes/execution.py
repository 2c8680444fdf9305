"""POST /api/execute."""

from __future__ import annotations

from aiohttp import web

from services.api.auth.roles import Access
from services.api.http import Call, HttpError, RouteTable, reply, unprocessable
from services.api.models import ExecuteBody, ExecuteReply
from services.api.playbooks import EXECUTABLE_KINDS, VERSION_MAX
from services.api.starting import start_execution

routes = RouteTable("executions")

_KINDS = {"playbook": ("playbook",), "playbooks": ("playbook",), "agent": ("agent",), "agents": ("agent",)}


def requested_version(value: object) -> int | None:
    """Return the version as a number, None for the newest.

    Raises:
        HttpError: 422 when it is neither a number nor "latest".
    """
    if value is None or value == "latest":
        return None
    text = str(value)
    if text.isascii() and text.isdigit() and 0 < int(text[:10]) <= VERSION_MAX and len(text) <= 10:
        return int(text)
    raise unprocessable(
        ["body", "version"],
        f'version must be an integer from 1 to {VERSION_MAX}, or "latest"',
        value,
        kind="int_parsing",
    )


@routes.add(
    "POST",
    "/api/execute",
    "Start an execution of a playbook",
    role=Access.RUNNER,
    body=ExecuteBody,
    response=ExecuteReply,
    errors=(404,),
)
async def execute(call: Call) -> web.StreamResponse:
    """Resolve the catalog entry, store the first events and commands, answer with the new id."""
    body: ExecuteBody = call.body
    kinds: tuple[str, ...] = EXECUTABLE_KINDS
    if body.resource_kind is not None:
        found = _KINDS.get(body.resource_kind.strip().lower())
        if found is None:
            raise HttpError(422, f"Catalog kind '{body.resource_kind[:64]}' is not executable")
        kinds = found
    entry = await call.context.playbooks.find(
        path=body.path,
        catalog_id=body.catalog_id,
        version=None if body.catalog_id is not None else requested_version(body.version),
        kinds=kinds,
    )
    payload = body.workload if body.workload is not None else body.payload or {}
    started = await start_execution(call.context, entry, payload=payload, parent_execution_id=body.parent_execution_id)
    return reply(
        {
            "execution_id": str(started.execution_id),
            "status": "started",
            "commands_generated": started.commands_generated,
        }
    )
