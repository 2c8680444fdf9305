"""`noetl.result_store`: tool outputs too large for an event, by reference.

They have no expiry unless the writer asks for one: the log refers to them, and a log that points nowhere cannot be replayed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from services.api.store.queries import queries
from shared.wire.types import parse_id

if TYPE_CHECKING:
    from services.api.store.database import Database, Row

COUNTED_MAX = 100_000  # results that `stats` counts; more are shown as so many

_SQL = queries("result_store")
_REFERENCE = re.compile(r"noetl://execution/(\d{1,19})/result/(.{1,4096})/(\d{1,19})")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewResult:
    """A result to store; `data` is its JSON text."""

    result_id: int
    execution_id: int
    name: str
    scope: str
    source_step: str | None
    data: bytes
    ttl_seconds: float | None
    correlation: Mapping[str, Any] | None = None
    extracted: Mapping[str, Any] | None = None

    @property
    def sha256(self) -> str:
        """Return the hash of the JSON text in hex."""
        return hashlib.sha256(self.data).hexdigest()


def reference(*, execution_id: int, name: str, result_id: int) -> str:
    """Return the public name of a result."""
    return f"noetl://execution/{execution_id}/result/{name}/{result_id}"


def parse_reference(text: str) -> tuple[int, int] | None:
    """Return (execution id, result id) of a reference of ours, None for any other text."""
    match = _REFERENCE.fullmatch(text)
    if match is None:
        return None
    execution_id, result_id = parse_id(match[1]), parse_id(match[3])
    return None if execution_id is None or result_id is None else (execution_id, result_id)


async def save(database: Database, result: NewResult) -> datetime | None:
    """Store `result` and return its expiry, None for never."""
    text = result.data.decode()
    if "\\u0000" in text:  # JSONB refuses the NUL character; the same replacement as in every other JSON column
        text = text.replace("\\u0000", "\\ufffd")
    expires_at: datetime | None = await database.fetchval(
        _SQL["insert"],
        result.result_id,
        result.execution_id,
        result.name,
        result.scope,
        result.source_step,
        text,
        len(result.data),
        result.sha256,
        result.ttl_seconds,
        result.correlation,
        result.extracted,
    )
    return expires_at


async def data_of(database: Database, *, execution_id: int, result_id: int) -> str | None:
    """Return the JSON text of a result, None when it does not exist or has expired."""
    text: str | None = await database.fetchval(_SQL["data_by_id"], result_id, execution_id)
    return text


async def newest_of_step(database: Database, execution_id: int, name: str) -> Row | None:
    """Return the newest result of a step or of this name, with its data as JSON text."""
    return await database.fetchrow(_SQL["newest_of_step"], execution_id, name)


async def list_results(database: Database, execution_id: int, *, limit: int, offset: int) -> list[Row]:
    """Return up to `limit` results of an execution without their data, oldest first."""
    return await database.fetch(_SQL["list"], execution_id, limit, offset)


async def stats(database: Database) -> Row:
    """Return how many results there are by scope, counted up to `COUNTED_MAX`."""
    (row,) = await database.fetch(_SQL["stats"], COUNTED_MAX)
    return row


async def delete_scope(database: Database, execution_id: int, *, scope: str, source_step: str | None = None) -> int:
    """Delete the results of one scope and return how many there were."""
    return int(await database.fetchval(_SQL["delete_scope"], execution_id, scope, source_step))


async def purge_expired(database: Database, *, limit: int) -> int:
    """Delete up to `limit` results whose time is over and return how many there were."""
    return int(await database.fetchval(_SQL["purge_expired"], limit))
