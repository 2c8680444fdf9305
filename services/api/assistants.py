"""AI playbooks: the named playbook is run like any other, and its report is looked for in what its steps put out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from services.api.http import HttpError, not_found
from services.api.metrics import ASSISTANT_RUNS
from services.api.redaction import redact
from services.api.starting import start_execution
from services.api.store.queries import queries
from services.api.views import time_offset
from services.api.waiting import wait_for_end

if TYPE_CHECKING:
    from services.api.context import ApiContext
    from services.api.store.database import Row

_SQL = queries("analysis")
RESULT_ROWS_MAX = 500  # newest events searched for the report
ENVELOPES_MAX = 8  # nested envelopes around a step's output
ERROR_CHARS_SHOWN = 1200

REPORT_KEYS = frozenset(
    {
        "executive_summary",
        "primary_bottlenecks",
        "failure_risk_analysis",
        "recommended_dsl_runtime_changes",
        "validation_plan",
        "proposed_patch_diff",
    }
)
_PLAYBOOK_KEYS = ("generated_playbook_yaml", "generated_playbook", "playbook_yaml", "yaml")
_KNOWN = REPORT_KEYS | {"ai_report", "draft", *_PLAYBOOK_KEYS}
_ENVELOPES = ("result", "data", "context")
_STATUSES = {"execution.cancelled": "CANCELLED"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantRun:
    """What an AI playbook brought: its `status` (TIMEOUT while it still runs), its report and its raw output."""

    execution_id: int
    status: str
    report: dict[str, Any]
    raw: dict[str, Any]


def _parsed(value: object) -> object:
    if not isinstance(value, str) or not value.strip():
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


def unwrapped(value: object) -> object:
    """Return a step's output without the envelopes that servers and workers put around it."""
    current = _parsed(value)
    for _ in range(ENVELOPES_MAX):
        if not isinstance(current, Mapping) or not _KNOWN.isdisjoint(current):
            return current
        inner = next((key for key in _ENVELOPES if isinstance(current.get(key), Mapping | list | str)), None)
        if inner is None:
            return current
        current = _parsed(current[inner])
    return current


def generated_playbook(payload: Mapping[str, Any]) -> str:
    """Return the YAML text in the output of a generator, empty when there is none."""
    draft = payload.get("draft")
    holders = (payload, draft if isinstance(draft, Mapping) else {})
    texts = (holder.get(key) for holder in holders for key in _PLAYBOOK_KEYS)
    return next((text.strip() for text in texts if isinstance(text, str) and text.strip()), "")


def find_report(rows: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return report and raw output from the newest event that has one; else what the newest output is."""
    fallback: dict[str, Any] = {}
    for row in rows:
        payload = unwrapped(row["result"])
        if not isinstance(payload, Mapping):
            continue
        report = payload.get("ai_report")
        if isinstance(report, Mapping):
            return dict(report), dict(payload)
        if not REPORT_KEYS.isdisjoint(payload):
            return dict(payload), dict(payload)
        if generated_playbook(payload):
            return {}, dict(payload)
        fallback = fallback or dict(payload)
    return {}, fallback


def _status(terminal: Mapping[str, Any] | None) -> str:
    if terminal is None:
        return "TIMEOUT"
    kind: str = terminal["event_type"]
    return _STATUSES.get(kind) or ("FAILED" if kind.endswith(".failed") else "COMPLETED")


async def run_assistant(
    context: ApiContext,
    path: str,
    workload: Mapping[str, Any],
    *,
    title: str,
    timeout_seconds: int,
    poll_interval_ms: int,
) -> AssistantRun:
    """Run the playbook at `path` and return its report, redacted.

    Raises:
        HttpError: 404 when it is not registered, 503 when it cannot be started or waited for.
    """
    try:
        entry = await context.playbooks.find(path=path, catalog_id=None, version=None)
    except HttpError as error:
        if error.status != 404:
            raise
        raise not_found(f"{title} playbook not found: {path}. Register {path} first.") from error
    started = await start_execution(context, entry, payload=workload)
    terminal = await wait_for_end(
        context,
        started.execution_id,
        timeout_seconds=float(timeout_seconds),
        poll_seconds=poll_interval_ms / 1000,
    )
    rows = await context.database.fetch(_SQL["results"], started.execution_id, RESULT_ROWS_MAX)
    report, raw = find_report(rows)
    if not raw and rows:
        raw = _newest(rows[0])
    if terminal is not None:
        raw.setdefault("terminal_event", {**terminal, "created_at": time_offset(terminal["created_at"])})
    ASSISTANT_RUNS.labels(_status(terminal)).inc()
    return AssistantRun(
        execution_id=started.execution_id, status=_status(terminal), report=redact(report), raw=redact(raw)
    )


def _newest(row: Row) -> dict[str, Any]:
    error = row["error"]
    return {
        "node_name": row["node_name"],
        "event_type": row["event_type"],
        "status": row["status"],
        "error": error[:ERROR_CHARS_SHOWN] if error else None,
        "result": row["result"],
    }
