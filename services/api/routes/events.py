"""POST /api/events and /api/events/batch: what workers report."""

from __future__ import annotations

from datetime import timedelta

from aiohttp import web

from services.api import views
from services.api.auth.roles import Access
from services.api.http import Call, HttpError, RouteTable, reply, unprocessable
from services.api.ingest import IncomingEvent, normalise, share_command_id
from services.api.metrics import BATCHES_ACCEPTED
from services.api.models import BatchBody, EventBody
from services.api.original import RunByOriginalError
from services.api.oversize import by_reference
from services.api.routes.executions import execution_header
from services.api.store.append import Appended, AppendEvents
from services.api.store.batches import UNKEYED_PREFIX
from services.api.store.queries import queries

routes = RouteTable("events")

_SQL = queries("stream")
EVENTS_BODY_BYTES_MAX = 12 << 20  # the original's Python worker sends outputs of up to 10 MiB inline
KEY_CHARS_MAX = 1024  # it is a key of a B-tree index, whose entries have 2704 bytes at most
_KEY_HEADER = (("Idempotency-Key", "a repetition under the same key stores nothing twice and is answered as before"),)


def _idempotency_key(call: Call) -> str | None:
    key = call.request.headers.get("Idempotency-Key") or call.request.headers.get("X-Idempotency-Key")
    if key and not (len(key) <= KEY_CHARS_MAX and key.isascii() and key.isprintable()):
        text = f"an idempotency key has at most {KEY_CHARS_MAX} printable ASCII characters"
        raise unprocessable(["header", "Idempotency-Key"], text)
    return key or None


async def _stored_ids(call: Call, execution_id: int, appended: Appended) -> list[int]:
    """Return the ids of the request, reading those of an earlier copy from the log."""
    if not appended.duplicate:
        return list(appended.event_ids)
    last = appended.first_version + appended.count - 1
    rows = await call.context.database.fetch(_SQL["events_of_batch"], execution_id, appended.first_version, last)
    return [row["event_id"] for row in rows]


async def _append(
    call: Call, execution_id: int, events: list[IncomingEvent], *, key: str | None, is_batch: bool = False
) -> Appended:
    """Store what a worker reports; for an execution of the original only after its end, when nobody must act on it.

    A batch without a key gets one, so that it is found again by its request id.
    """
    events = await by_reference(call.context, execution_id, events)
    lease = timedelta(seconds=call.context.settings.noetl_command_claim_lease_seconds)
    request_id = call.context.ids.next()
    if key is None and is_batch:
        key = f"{UNKEYED_PREFIX}{request_id}"
    submit = call.context.writer.submit
    try:
        return await submit(AppendEvents(execution_id, events, request_id=request_id, idempotency_key=key, lease=lease))
    except RunByOriginalError:
        row = await execution_header(call, execution_id)
        if row["status"] not in views.TERMINAL:
            raise
        return await submit(
            AppendEvents(execution_id, events, request_id=request_id, idempotency_key=key, lease=lease, after_end=True)
        )


@routes.add(
    "POST",
    "/api/events",
    "Report one event",
    role=Access.WORKER,
    body=EventBody,
    headers=_KEY_HEADER,
    errors=(404, 413, 503),
    body_bytes_max=EVENTS_BODY_BYTES_MAX,
)
async def post_event(call: Call) -> web.StreamResponse:
    """Store one event; the answer follows the commit."""
    body: EventBody = call.body
    event = normalise(
        body.model_dump(exclude={"execution_id"}),
        worker_id=body.worker_id,
    )
    appended = await _append(call, body.execution_id, [event], key=_idempotency_key(call))
    ids = await _stored_ids(call, body.execution_id, appended)
    return reply({"status": "ok", "event_id": ids[0] if ids else 0, "commands_generated": 0})


@routes.add(
    "POST",
    "/api/events/batch",
    "Report several events as one unit",
    role=Access.WORKER,
    body=BatchBody,
    status=202,
    headers=_KEY_HEADER,
    errors=(404, 413, 503),
    body_bytes_max=EVENTS_BODY_BYTES_MAX,
)
async def post_batch(call: Call) -> web.StreamResponse:
    """Store a batch atomically; the same Idempotency-Key stores nothing twice and gets the same answer."""
    body: BatchBody = call.body
    settings = call.context.settings
    if len(body.events) > settings.noetl_batch_max_events_per_request:
        raise unprocessable(
            ["body"],
            f"Batch contains {len(body.events)} events; limit is {settings.noetl_batch_max_events_per_request}",
        )
    try:
        events = share_command_id(
            [
                normalise(
                    item.model_dump(),
                    worker_id=body.worker_id,
                )
                for index, item in enumerate(body.events)
            ]
        )
    except HttpError as error:
        if error.status != 422:
            raise
        raise HttpError(422, {"code": "enqueue_error", "message": error.detail}) from error
    key = _idempotency_key(call)
    appended = await _append(call, body.execution_id, events, key=key, is_batch=True)
    BATCHES_ACCEPTED.inc()
    return reply(
        {
            "status": "accepted",
            "request_id": str(appended.request_id),
            "event_ids": await _stored_ids(call, body.execution_id, appended),
            "commands_generated": 0,
            "queue_depth": call.context.writer.queue_depth,
            "duplicate": appended.duplicate,
            "idempotency_key": key,
        },
        status=202,
    )
