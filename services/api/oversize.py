"""Outputs too large for an event that a worker has sent inline all the same: stored here, the event gets the reference.

Workers of ours, and those of the Rust line, store large outputs first; the original's Python worker sends up to 10 MiB inline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from services.api.http import dumps, not_found
from services.api.ingest import IncomingEvent
from services.api.metrics import RESULTS_OFFLOADED
from services.api.store import results as store
from services.api.store.queries import queries
from shared.platform.tracing import span

if TYPE_CHECKING:
    from services.api.context import ApiContext

_EXECUTION = queries("execution")


async def by_reference(context: ApiContext, execution_id: int, events: Sequence[IncomingEvent]) -> list[IncomingEvent]:
    """Return the events with outputs over the inline limit replaced by references.

    A request that is refused afterwards leaves a stored result behind that nothing refers to; its execution takes it along
    when it is deleted.

    Raises:
        HttpError: 404 when the execution does not exist.
    """
    limit = context.settings.noetl_event_inline_max_bytes
    found: list[IncomingEvent] = []
    for event in events:
        encoded = dumps(event.response) if event.has_response else b""
        if len(encoded) > limit:
            event = await _offloaded(context, execution_id, event, encoded)
        found.append(event)
    return found


async def _offloaded(context: ApiContext, execution_id: int, event: IncomingEvent, encoded: bytes) -> IncomingEvent:
    if await context.database.fetchrow(_EXECUTION["stream_header"], execution_id) is None:
        raise not_found(f"Execution {execution_id} not found")
    result = store.NewResult(
        result_id=context.ids.next(),
        execution_id=execution_id,
        name=event.step,
        scope="execution",
        source_step=event.step,
        data=encoded,
        ttl_seconds=None,
    )
    with span("offload result", execution_id=execution_id, bytes=len(encoded)):
        await store.save(context.database, result)
    RESULTS_OFFLOADED.inc()
    reference = {
        "type": "result_ref",
        "locator": store.reference(execution_id=execution_id, name=event.step, result_id=result.result_id),
        "store": "db",
        "bytes": len(encoded),
        "sha256": result.sha256,
        "content_type": "application/json",
    }
    envelope = {"status": event.status, **(event.result or {}), "reference": reference}
    return replace(event, result=envelope, response=None, has_response=False)
