"""What /api/result and /api/temp share: storing JSON by reference, reading it back, listing, counting, deleting.

The two differ in their defaults only: a result is kept until its `ttl`, because the log refers to it; temporary data expires.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from services.api import references
from services.api.http import Call, HttpError, dumps, not_found
from services.api.inputs import Answer
from services.api.store import results as store
from services.api.store.queries import queries
from services.api.views import time_offset

if TYPE_CHECKING:
    from services.api.context import ApiContext
    from services.api.store.database import Row

RESULT_BODY_BYTES_MAX = 64 * 1024 * 1024 + 65_536  # a worker's largest output and its wrapping; the Rust server's limit
TTL_DAYS_MAX = 3650
TTL_SECONDS_MAX = TTL_DAYS_MAX * 86_400
LIST_MAX = 1000  # references in one answer
SWEEP_SECONDS = 2  # the reconciler deletes what has expired in each of its passes
PREVIEW_FIELDS = 20
SCOPES = ("step", "execution", "workflow", "permanent")
TIERS = ("memory", "kv", "disk", "object", "s3", "gcs", "db", "duckdb", "eventlog")

_EXECUTION = queries("execution")
_TTL = re.compile(r"(\d{1,9})\s*([smhd]?)")
_UNIT_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


class Stored(Answer):
    """Where something was stored."""

    ref: str
    store: str
    scope: str
    expires_at: str | None
    bytes: int
    sha256: str


class StoredRef(Stored):
    """What is known of something stored."""

    name: str
    preview: Any = None
    extracted: dict[str, Any] | None
    correlation: dict[str, Any] | None


class StoredList(Answer):
    """References of an execution, without their data."""

    execution_id: str
    count: int
    refs: list[StoredRef]


class Cleaned(Answer):
    """How much was deleted."""

    execution_id: str
    deleted: int
    scope: str


class ScopeStats(Answer):
    """How many there are by scope."""

    execution_scopes: int
    step_scopes: int
    workflow_trees: int
    indexed_refs: int
    total_refs: int


class StoreStats(Answer):
    """What is stored, and what this process has deleted since its start."""

    running: bool
    ttl_sweep_interval: int
    ttl_deleted: int
    step_deleted: int
    execution_deleted: int
    workflow_deleted: int
    total_deleted: int
    scope_stats: ScopeStats


def ttl_seconds(value: str | None) -> float | None:
    """Return a time to live such as `30m`, `1h`, `1d` in seconds; None for `forever` and when there is none.

    Raises:
        ValueError: it is none of these, or over `TTL_DAYS_MAX` days.
    """
    if value is None or value in ("", "forever"):
        return None
    match = _TTL.fullmatch(value.strip().lower())
    seconds = int(match[1]) * _UNIT_SECONDS[match[2]] if match else 0
    if not 0 < seconds <= TTL_SECONDS_MAX:
        raise ValueError(f'ttl must look like "30m", "1h", "1d" or "forever", {TTL_DAYS_MAX} days at most')
    return float(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """Something to store, as its body said."""

    name: str
    data: Any
    scope: str | None
    store: str | None
    source_step: str | None
    ttl_seconds: float | None
    correlation: Mapping[str, Any] | None
    extracted: Mapping[str, Any] | None


async def put(call: Call, wanted: Put) -> dict[str, Any]:
    """Store `wanted` for the execution in the path and return the answer.

    Raises:
        HttpError: 400 for scopes and tiers that do not exist, 404 without the execution.
    """
    execution_id = call.path_id("execution_id")
    scope = wanted.scope or "execution"
    if scope not in SCOPES:
        raise HttpError(400, f"Invalid scope: {scope[:64]}. Use: {', '.join(SCOPES)}")
    if wanted.store is not None and wanted.store not in TIERS:
        raise HttpError(400, f"Invalid store tier: {wanted.store[:64]}")
    if scope == "step" and not wanted.source_step:
        raise HttpError(400, "source_step is required for results of scope step")
    if await call.context.database.fetchrow(_EXECUTION["header"], execution_id) is None:
        raise not_found(f"Execution {execution_id} not found")
    result = store.NewResult(
        result_id=call.context.ids.next(),
        execution_id=execution_id,
        name=wanted.name,
        scope=scope,
        source_step=wanted.source_step,
        data=dumps(wanted.data),
        ttl_seconds=wanted.ttl_seconds,
        correlation=wanted.correlation,
        extracted=wanted.extracted,
    )
    expires_at = await store.save(call.context.database, result)
    return {
        "ref": store.reference(execution_id=execution_id, name=wanted.name, result_id=result.result_id),
        "store": "db",
        "scope": scope,
        "expires_at": time_offset(expires_at),
        "bytes": len(result.data),
        "sha256": result.sha256,
    }


async def data_behind(context: ApiContext, reference: str) -> bytes | None:
    """Return the JSON text behind a reference, None when there is none.

    Raises:
        HttpError: 413 when it is more than one answer can have.
    """
    try:
        return await references.resolve(context, reference)
    except references.TooLargeError as error:
        raise HttpError(413, str(error)) from error


async def resolved(call: Call, reference: str) -> web.Response:
    """Answer the JSON behind `reference`; text that is no reference is echoed, as in the original.

    Raises:
        HttpError: 404 when there is nothing behind it.
    """
    if not reference.startswith("noetl://"):
        return json_reply(dumps(reference))
    found = await data_behind(call.context, reference)
    if found is None:
        raise not_found(f"'TempRef not found: {reference[:512]}'")
    return json_reply(found)


def json_reply(text: str | bytes) -> web.Response:
    """Answer JSON that is text already."""
    return web.Response(body=text.encode() if isinstance(text, str) else text, content_type="application/json")


def reference_document(execution_id: int, row: Row, *, preview: Any) -> dict[str, Any]:
    """Return what is known of a stored row."""
    return {
        "ref": store.reference(execution_id=execution_id, name=row["name"], result_id=row["result_id"]),
        "store": "db",
        "scope": row["scope"],
        "name": row["name"],
        "expires_at": time_offset(row["expires_at"]),
        "bytes": row["bytes"],
        "sha256": row["sha256"],
        "preview": preview,
        "extracted": row["extracted"],
        "correlation": row["correlation"],
    }


async def newest(call: Call, name: str, *, resolve: bool, missing: str) -> web.Response:
    """Answer the newest data of a step or name, or with `resolve` off what is known about it.

    Raises:
        HttpError: 404 with `missing`.
    """
    execution_id = call.path_id("execution_id")
    row = await store.newest_of_step(call.context.database, execution_id, name)
    if row is None:
        raise not_found(missing)
    if resolve:
        return json_reply(row["data"])
    return json_reply(dumps(reference_document(execution_id, row, preview=preview_of(orjson.loads(row["data"])))))


def preview_of(data: Any) -> Any:
    """Return the shape of `data`: scalars as they are, lists and objects as their sizes."""
    if not isinstance(data, dict):
        return f"[{len(data)} items]" if isinstance(data, list) else data
    return {
        key: f"[{len(value)} items]" if isinstance(value, list | dict) else value
        for key, value in list(data.items())[:PREVIEW_FIELDS]
    }


async def list_document(call: Call, *, offset: int) -> tuple[dict[str, Any], bool]:
    """Return the references of the execution in the path, and whether there are more."""
    execution_id = call.path_id("execution_id")
    rows = await store.list_results(call.context.database, execution_id, limit=LIST_MAX + 1, offset=offset)
    refs = [reference_document(execution_id, row, preview=None) for row in rows[:LIST_MAX]]
    return {"execution_id": str(execution_id), "count": len(refs), "refs": refs}, len(rows) > LIST_MAX


async def stats_document(context: ApiContext) -> dict[str, Any]:
    """Return the counts."""
    row = await store.stats(context.database)
    deleted = context.results_deleted
    return {
        "running": True,
        "ttl_sweep_interval": SWEEP_SECONDS,
        **{f"{cause}_deleted": deleted[cause] for cause in ("ttl", "step", "execution", "workflow")},
        "total_deleted": deleted.total(),
        "scope_stats": {
            **{key: row[key] for key in ("execution_scopes", "step_scopes", "workflow_trees")},
            "indexed_refs": row["refs"],
            "total_refs": row["refs"],
        },
    }


async def clean(call: Call, *, scope: str, step: str | None = None) -> dict[str, Any]:
    """Delete what the execution in the path stored in `scope` and return the answer.

    Raises:
        HttpError: 400 for a scope that cannot be cleaned as a whole.
    """
    execution_id = call.path_id("execution_id")
    if scope == "permanent":
        raise HttpError(400, "Cannot bulk-clean 'permanent' scope. Delete individual refs instead.")
    if scope not in SCOPES:
        raise HttpError(400, f"Invalid scope: {scope[:64]}")
    if scope == "step" and step is None:
        raise HttpError(400, "Step cleanup requires step_name parameter. Use DELETE /{execution_id}/step/{step_name}")
    deleted = await store.delete_scope(call.context.database, execution_id, scope=scope, source_step=step)
    call.context.results_deleted[scope] += deleted
    return {"execution_id": str(execution_id), "deleted": deleted, "scope": scope}
