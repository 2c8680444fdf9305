"""POST /api/execute and /api/execute/batch."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiohttp import web
from pydantic import ValidationError

from services.api.auth.roles import Access
from services.api.http import Call, HttpError, RouteTable, reply, unprocessable
from services.api.models_execution import (
    BATCH_MAX,
    ExecuteBatchBody,
    ExecuteBatchReply,
    ExecuteBody,
    ExecuteReply,
)
from services.api.playbooks import EXECUTABLE_KINDS, requested_version
from services.api.starting import StartOptions, start_execution
from services.api.store.dedup import DedupKey
from shared.platform.tracing import extract, span

if TYPE_CHECKING:
    from services.api.context import ApiContext
    from services.api.store.lifecycle import StartResult

routes = RouteTable("executions")

_KINDS = {"playbook": ("playbook",), "playbooks": ("playbook",), "agent": ("agent",), "agents": ("agent",)}
BATCH_AT_ONCE = 64  # starts of one request that wait for a transaction together; the rest queue behind them


def requested_kinds(kind: str | None) -> tuple[str, ...]:
    """Return the catalog kinds that `resource_kind` names, every executable one when it is absent.

    Raises:
        HttpError: 422 when it is not executable.
    """
    if kind is None:
        return EXECUTABLE_KINDS
    found = _KINDS.get(kind.strip().lower())
    if found is None:
        raise HttpError(422, f"Catalog kind '{kind[:64]}' is not executable")
    return found


def _version(value: object) -> int | None:
    try:
        return requested_version(value)
    except ValueError as error:
        raise unprocessable(["body", "version"], str(error), value, kind="int_parsing") from error


def answer(started: StartResult) -> dict[str, Any]:
    """Return the answer of a start."""
    return {
        "execution_id": str(started.execution_id),
        "status": "duplicate" if started.duplicate else "started",
        "commands_generated": started.commands,
    }


async def execute_body(context: ApiContext, body: ExecuteBody) -> StartResult:
    """Start what `body` asks for.

    Raises:
        HttpError: 404 when it is not in the catalog, 422 when it cannot run, 503 when nothing could be stored.
    """
    entry = await context.playbooks.find(
        path=body.path,
        catalog_id=body.catalog_id,
        version=None if body.catalog_id is not None else _version(body.version),
        kinds=requested_kinds(body.resource_kind),
    )
    trace = body.trace.model_dump(exclude_none=True) if body.trace else {}
    dedup = None
    if body.dedup is not None:
        dedup = DedupKey(scope=body.parent_execution_id or 0, key=body.dedup.key, window_seconds=body.dedup.window_secs)
    options = StartOptions(
        parent_execution_id=body.parent_execution_id,
        pool=body.execution_pool,
        dedup=dedup,
        meta={"trace": trace} if trace else {},
    )
    payload = body.workload if body.workload is not None else body.payload or {}
    with span("execution start", parent=extract(trace)):
        return await start_execution(context, entry, payload=payload, options=options)


@routes.add(
    "POST",
    "/api/execute",
    "Start an execution of a playbook",
    role=Access.RUNNER,
    body=ExecuteBody,
    response=ExecuteReply,
    errors=(404, 503),
)
async def execute(call: Call) -> web.StreamResponse:
    """Resolve the catalog entry, store the first events and commands, answer with the new id."""
    return reply(answer(await execute_body(call.context, call.body)))


@routes.add(
    "POST",
    "/api/execute/batch",
    "Start many executions",
    role=Access.RUNNER,
    body=ExecuteBatchBody,
    response=ExecuteBatchReply,
    errors=(503,),
)
async def execute_batch(call: Call) -> web.StreamResponse:
    """Start each on its own: one that is refused does not keep the others from running. Of two with one dedup key in the
    request the first starts."""
    bodies: list[dict[str, Any]] = call.body.executions
    if not bodies:
        raise HttpError(422, "execute batch requires a non-empty 'executions' array")
    if len(bodies) > BATCH_MAX:
        raise HttpError(422, f"execute batch size {len(bodies)} exceeds the {BATCH_MAX} cap")
    free = asyncio.Semaphore(BATCH_AT_ONCE)

    async def chain(indexes: Sequence[int]) -> list[dict[str, Any]]:
        async with free:
            return [await _batch_item(call.context, index, bodies[index]) for index in indexes]

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(chain(indexes)) for indexes in _chains(bodies)]
    results = sorted((item for task in tasks for item in task.result()), key=lambda item: int(item["index"]))
    statuses = [item["status"] for item in results]
    return reply(
        {
            "count": len(results),
            "started": statuses.count("started"),
            "duplicates": statuses.count("duplicate"),
            "failed": statuses.count("error"),
            "results": results,
        }
    )


def _chains(bodies: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Return the indexes of the starts that must follow each other: those that share a dedup key."""
    chains: dict[object, list[int]] = {}
    for index, body in enumerate(bodies):
        dedup = body.get("dedup")
        key = dedup.get("key") if isinstance(dedup, Mapping) else None
        chains.setdefault(index if key is None else ("key", str(key)), []).append(index)
    return list(chains.values())


async def _batch_item(context: ApiContext, index: int, body: Mapping[str, Any]) -> dict[str, Any]:
    try:
        started = await execute_body(context, ExecuteBody.model_validate(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return _failed(index, f"{place}: {first['msg']}" if place else first["msg"])
    except HttpError as error:
        return _failed(index, _text(error.detail))
    return {"index": index, **answer(started)}


def _failed(index: int, error: str) -> dict[str, Any]:
    return {"index": index, "status": "error", "commands_generated": 0, "error": error}


def _text(detail: object) -> str:
    """Return the text of an error's detail, whatever its shape."""
    if isinstance(detail, list) and detail:
        place = ".".join(str(part) for part in detail[0].get("loc", ())[1:])
        return f"{place}: {detail[0].get('msg')}"
    if isinstance(detail, Mapping):
        return str(detail.get("message") or detail.get("code") or detail)
    return str(detail)
