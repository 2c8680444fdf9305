"""Events to rows of the read models. Pure: the same events give the same rows, in any order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Envelope = Mapping[str, Any]

_ENDS = {
    "call.done": "COMPLETED",
    "command.completed": "COMPLETED",
    "call.error": "FAILED",
    "command.failed": "FAILED",
    "command.cancelled": "CANCELLED",
}
_STARTS = frozenset({"command.started"})
# What identifies an event that is in the log already; its data stays there and does not travel again.
_IDENTITY = ("event_id", "execution_id", "catalog_id", "event_type", "stream_id", "stream_version")


def projections(envelopes: Sequence[Envelope]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of both read models: one summary per execution, one timing per command touched."""
    return {"summaries": _summaries(envelopes), "step_timings": _timings(envelopes)}


def _summaries(envelopes: Sequence[Envelope]) -> list[dict[str, Any]]:
    newest: dict[int, Envelope] = {}
    for envelope in envelopes:
        known = newest.get(envelope["execution_id"])
        if known is None or envelope["stream_version"] > known["stream_version"]:
            newest[envelope["execution_id"]] = envelope
    return [
        {
            "execution_id": execution_id,
            "version": envelope["stream_version"],
            "last_event_type": envelope["event_type"],
            "last_node_name": envelope.get("node_name"),
            "last_event_time": envelope.get("event_time"),
        }
        for execution_id, envelope in newest.items()
    ]


def _timings(envelopes: Sequence[Envelope]) -> list[dict[str, Any]]:
    rows: dict[tuple[int, int], dict[str, Any]] = {}
    for envelope in sorted(envelopes, key=lambda item: item["stream_version"]):
        found = _timing(envelope)
        if found is not None:
            key = (envelope["execution_id"], found["command_id"])
            row = rows.setdefault(key, {})
            row.update({name: value for name, value in found.items() if name not in row or name == "attempt"})
    return list(rows.values())


def _timing(envelope: Envelope) -> dict[str, Any] | None:
    """Return what one event says about its command, None when it says nothing."""
    kind, command_id = envelope["event_type"], envelope.get("command_id")
    if not isinstance(command_id, int):
        return None
    at = envelope.get("event_time")
    row: dict[str, Any] = {"execution_id": envelope["execution_id"], "command_id": command_id}
    attempt = (envelope.get("meta") or {}).get("attempt")
    if isinstance(attempt, int) and not isinstance(attempt, bool):
        row["attempt"] = attempt
    if kind == "command.issued":
        return {**row, "step_name": envelope.get("node_name"), "issued_at": at}
    if kind in _STARTS:
        return {**row, "step_name": envelope.get("node_name"), "started_at": at}
    if kind in _ENDS:
        return {**row, "step_name": envelope.get("node_name"), "ended_at": at, "status": _ENDS[kind]}
    return None


def posted(envelope: Envelope) -> Envelope:
    """Return what is posted of an event: its identity if the log has it, all of it when it came from elsewhere."""
    if envelope.get("stream_id") == f"execution/{envelope['execution_id']}":
        return {key: envelope[key] for key in _IDENTITY}
    return envelope
