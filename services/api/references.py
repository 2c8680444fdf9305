"""Data by reference: what a template or a worker reaches for when it is not at hand.

Four things have a locator: a stored result, one that a worker of the original keeps in NATS, the results of a loop too many to
keep in the state, and a large value of an execution's workload. The last two are read from the log, which has them for as
long as the execution exists.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import orjson

from services.api.store import results as store
from services.api.store.queries import queries
from shared.engine import Event, item_response, loop_result
from shared.messaging.original_results import UnreadableResultError, key_of, read_result
from shared.wire.types import parse_id

if TYPE_CHECKING:
    from services.api.context import ApiContext

_SQL = queries("reference")
LOOP_RESULT_BYTES_MAX = 64 << 20  # of one loop's results read into memory; beyond, whoever reaches for them is told
LOOP_PAGE = 2000  # items read at once
_LOOP = re.compile(r"noetl://execution/(\d{1,19})/loop/(.{1,512})")
_WORKLOAD = re.compile(r"noetl://execution/(\d{1,19})/workload/(.{1,512})")


class TooLargeError(ValueError):
    """The data behind a reference is more than a reader can take."""


async def resolve(context: ApiContext, locator: str) -> bytes | None:
    """Return the JSON text behind `locator`, None when there is nothing (any more).

    Raises:
        TooLargeError: a loop has more than `LOOP_RESULT_BYTES_MAX` of results.
    """
    ids = store.parse_reference(locator)
    if ids is not None:
        text = await store.data_of(context.database, execution_id=ids[0], result_id=ids[1])
        if text is not None:
            return text.encode()
    if (key := key_of(locator)) is not None and context.bus.connection is not None:
        return await _original(context.bus.connection, key)
    if (match := _LOOP.fullmatch(locator)) and (execution_id := parse_id(match[1])) is not None:
        return await _loop(context, execution_id, match[2])
    if (match := _WORKLOAD.fullmatch(locator)) and (execution_id := parse_id(match[1])) is not None:
        text = await context.database.fetchval(_SQL["workload_value"], execution_id, match[2])
        return None if text is None else str(text).encode()
    return None


async def _original(connection: Any, key: str) -> bytes | None:
    """Return a result that a worker of the original keeps in NATS."""
    try:
        return await read_result(connection, key)
    except UnreadableResultError as error:
        raise TooLargeError(str(error)) from error


async def _loop(context: ApiContext, execution_id: int, loop_id: str) -> bytes | None:
    """Return `{results, stats}` of a loop, items by index as far as they have ended; None for one that never ran.

    Its end need not be in the log yet: the decision that ends a loop may already reach for its results.
    """
    size = await context.database.fetchval(_SQL["loop_size"], execution_id, loop_id)
    if size is None:
        return None
    items: dict[int, bytes] = {}
    length, failed, last = 0, 0, -1
    for _ in range(1 + size // LOOP_PAGE):
        rows = await context.database.fetch(_SQL["loop_items"], execution_id, loop_id, last, LOOP_PAGE)
        for row in rows:
            last = row["iter_index"]
            if row["event_type"] is None:
                continue
            failed += row["event_type"] == "call.error"
            items[last] = orjson.dumps(item_response(_event(row)), default=str)
            length += len(items[last])
        if length > LOOP_RESULT_BYTES_MAX:
            raise TooLargeError(f"the results of {loop_id} have more than {LOOP_RESULT_BYTES_MAX} bytes")
        if len(rows) < LOOP_PAGE:
            break
    found = [orjson.Fragment(items[index]) if index in items else None for index in range(last + 1)]
    stats = {"total": len(items), "success": len(items) - failed, "failed": failed}
    return orjson.dumps(loop_result(found, stats))


def _event(row: Any) -> Event:
    return Event(
        version=0,
        event_id=0,
        type=row["event_type"],
        step=row["node_name"] or "",
        context=row["context"],
        result=row["result"],
        error=row["error"],
    )
