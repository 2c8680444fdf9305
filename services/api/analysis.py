"""What an execution's log tells without any AI: counts, findings, recommendations, and a prompt for a model. Pure.

Titles, texts and thresholds are the original's, because people and playbooks read them. Two counts are better founded for
our own executions: a retry is a command issued with an attempt above 1 (a loop is none), and the time of a step is taken
from the events of its commands.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

from services.api.views import time_offset

LONG_SECONDS = 60.0  # an execution that took longer is a finding
DOMINANT_SHARE = 0.65  # of the measured time, in one step
SLOWEST_SHOWN = 8
TOP_SHOWN = 10
ERROR_CHARS_SHOWN = 400
PLAYBOOK_CHARS_SHOWN = 60_000  # of the playbook in the prompt

TERMINAL_TYPES = frozenset(
    {"execution.cancelled", "playbook.failed", "workflow.failed", "playbook.completed", "workflow.completed"}
)
_STARTED = "command.started"
_ENDED = frozenset({"call.done", "call.error", "command.completed", "command.failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """Where the logs and metrics of the cluster are; an empty project means nowhere."""

    project: str = ""
    cluster: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The execution that is analysed."""

    execution_id: int
    catalog_id: int
    path: str
    version: int
    status: str  # shown when no terminal event tells another
    content: str | None = None  # the playbook, when it is to be shown


@dataclass(slots=True)
class _Tally:
    """Counts over the events, in the order in which things first appear."""

    types: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    nodes: Counter[str] = field(default_factory=Counter)
    issued: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)
    milliseconds: Counter[str] = field(default_factory=Counter)
    samples: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    http: int = 0
    began: dict[int, datetime] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one event."""
        kind, node, status = row["event_type"] or "UNKNOWN", row["node_name"] or "UNKNOWN", row["status"] or "UNKNOWN"
        self.types[kind] += 1
        self.statuses[status] += 1
        self.nodes[node] += 1
        self.failed += "failed" in kind.lower() or status.upper() == "FAILED"
        self.http += "http" in node.lower() or row["node_type"] == "http"
        own = row["stream_version"] is not None
        if kind == "command.issued":
            self.issued[node] += 1
            if (not own and self.issued[node] > 1) or (own and (row["attempt"] or 1) > 1):
                self.retried[node] += 1
        self._time(node, kind, row, own=own)

    def _time(self, node: str, kind: str, row: Mapping[str, Any], *, own: bool) -> None:
        taken = int(row["duration"]) if row["duration"] and row["duration"] > 0 else 0
        command = row["command_id"]
        if own and command is not None and not taken:
            if kind == _STARTED:
                self.began[command] = row["created_at"]
            elif kind in _ENDED and command in self.began:
                taken = int((row["created_at"] - self.began.pop(command)).total_seconds() * 1000)
        if taken > 0:
            self.milliseconds[node] += taken
            self.samples[node] += 1

    def slowest(self) -> list[dict[str, Any]]:
        """Return the nodes that took longest."""
        return [
            {
                "node_name": node,
                "total_duration_ms": total,
                "avg_duration_ms": round(total / self.samples[node], 2),
                "samples": self.samples[node],
            }
            for node, total in self.milliseconds.most_common(SLOWEST_SHOWN)
        ]


def _finding(severity: str, title: str, detail: str, evidence: Mapping[str, Any]) -> dict[str, Any]:
    return {"severity": severity, "title": title, "detail": detail, "evidence": dict(evidence)}


def _findings(summary: Mapping[str, Any], newest_type: str | None) -> tuple[list[dict[str, Any]], list[str]]:
    """Return findings and recommendations of a summary."""
    found: list[dict[str, Any]] = []
    advice: list[str] = []
    seconds = round(summary["duration_seconds"], 2)
    if summary["duration_seconds"] >= LONG_SECONDS:
        evidence = {"duration_seconds": seconds, "event_count": summary["event_count"]}
        found.append(_finding("high", "High Execution Duration", f"Execution took {seconds} seconds.", evidence))
        advice.append("Reduce per-item network latency: avoid high-latency external endpoints for row-wise enrichment.")
    slowest = summary["slowest_nodes"]
    total = sum(item["total_duration_ms"] for item in slowest)
    share = slowest[0]["total_duration_ms"] / total if slowest else 0.0
    if share >= DOMINANT_SHARE:
        detail = f"Node '{slowest[0]['node_name']}' consumes {round(share * 100, 1)}% of measured step duration."
        found.append(_finding("medium", "Single Step Dominates Runtime", detail, slowest[0]))
        advice.append(
            "Split dominant task_sequence into smaller distributed steps or add bounded parallel fan-out for HTTP-heavy loops."
        )
    retries, nodes = summary["retry_attempts"], summary["retry_nodes"]
    if retries:
        detail = f"Detected {retries} retry attempts across {len(nodes)} nodes."
        found.append(_finding("medium", "Retries Detected", detail, {"retry_nodes": nodes}))
        advice.append("Inspect retryable failures and adjust timeouts/backoff to reduce repeated attempts.")
    failed = summary["failed_event_count"]
    if failed:
        detail = f"Detected {failed} failed/error events in execution timeline."
        found.append(_finding("high", "Failure Events Present", detail, {"failed_events": failed}))
        advice.append("Review the first failure event and add explicit error-branch handling in DSL policy rules.")
    if summary["terminal_event_type"] is None:
        detail = "No playbook/workflow terminal event found in current event window."
        evidence = {"latest_event_type": newest_type}
        found.append(_finding("medium", "Missing Terminal Lifecycle Event", detail, evidence))
        advice.append("Ensure terminal events are emitted consistently to avoid stale RUNNING states in UI.")
    if summary["http_activity_event_count"]:
        advice.append("For high-volume HTTP enrichment, prefer in-cluster low-latency endpoints and connection reuse.")
    return found, advice or ["No major issues detected from current event sample."]


def _cloud(cloud: Cloud, execution_id: int, start: datetime, end: datetime) -> dict[str, Any]:
    if not cloud.project:
        return {
            "configured": False,
            "message": "Set GCP_PROJECT_ID (or GOOGLE_CLOUD_PROJECT) to generate Cloud Logging/Monitoring deep links.",
        }
    parts = ['resource.type="k8s_container"', f'"{execution_id}"']
    parts += [f'resource.labels.cluster_name="{cloud.cluster}"'] if cloud.cluster else []
    parts += [f'resource.labels.location="{cloud.region}"'] if cloud.region else []
    query = " AND ".join(parts)
    console = "https://console.cloud.google.com"
    return {
        "configured": True,
        "project_id": cloud.project,
        "cluster_name": cloud.cluster or None,
        "region": cloud.region or None,
        "start_time": time_offset(start),
        "end_time": time_offset(end),
        "logs_query": query,
        "logs_url": f"{console}/logs/query;query={quote(query, safe='')}?project={cloud.project}",
        "metrics_url": f"{console}/monitoring/metrics-explorer?project={cloud.project}",
    }


def _sample(row: Mapping[str, Any]) -> dict[str, Any]:
    error = row["error"]
    if error is not None and len(error) > ERROR_CHARS_SHOWN:
        error = error[:ERROR_CHARS_SHOWN] + " ...[truncated]"
    return {
        "event_id": str(row["event_id"]),
        "event_type": row["event_type"],
        "node_name": row["node_name"],
        "status": row["status"],
        "timestamp": time_offset(row["created_at"]),
        "duration_ms": int(row["duration"]) if row["duration"] and row["duration"] > 0 else 0,
        "error": error,
    }


def _prompt(document: Mapping[str, Any], content: str | None) -> str:
    sections = (
        ("Summary JSON:", "summary"),
        ("Findings JSON:", "findings"),
        ("Recommendations (current heuristic):", "recommendations"),
        ("Cloud Context JSON:", "cloud"),
        ("Latest Event Sample JSON:", "event_sample"),
    )
    lines = [
        "You are a senior NoETL platform engineer performing execution triage.",
        "Goal: explain root causes, bottlenecks, and concrete remediation steps.",
        "",
        f"Execution ID: {document['execution_id']}",
        f"Playbook Path: {document['path']}",
        f"Execution Status: {document['status']}",
    ]
    for title, key in sections:
        lines += ["", title, json.dumps(document[key], indent=2)]
    if content:
        shown = content[:PLAYBOOK_CHARS_SHOWN]
        lines += ["", "Playbook YAML:", shown if shown == content else shown + "\n# ...truncated..."]
    lines += [
        "",
        "Deliver output in sections:",
        "1) Executive Summary",
        "2) Primary Bottlenecks",
        "3) Failure / Risk Analysis",
        "4) Recommended DSL / runtime changes (prioritized)",
        "5) Validation plan (what to measure after fix)",
    ]
    return "\n".join(lines)


def analysis(
    subject: Subject,
    rows: Sequence[Mapping[str, Any]],
    *,
    newest: Mapping[str, Any],
    terminal: Mapping[str, Any] | None,
    cloud: Cloud,
    sample_size: int,
    generated_at: str,
) -> dict[str, Any]:
    """Return the analysis of an execution from its first events.

    `rows` are at least one event, oldest first; `newest` and `terminal` are events of the whole log. `generated_at` is
    ISO 8601.
    """
    tally = _Tally()
    for row in rows:
        tally.add(row)
    start, end = rows[0]["created_at"], newest["created_at"]
    summary = {
        "event_count": len(rows),
        "duration_seconds": round(max(0.0, (end - start).total_seconds()), 3),
        "status_counts": dict(tally.statuses),
        "event_type_counts": dict(tally.types),
        "failed_event_count": tally.failed,
        "http_activity_event_count": tally.http,
        "retry_attempts": tally.retried.total(),
        "retry_nodes": dict(tally.retried),
        "top_nodes_by_events": [list(item) for item in tally.nodes.most_common(TOP_SHOWN)],
        "slowest_nodes": tally.slowest(),
        "terminal_event_type": terminal["event_type"] if terminal else None,
    }
    findings, recommendations = _findings(summary, newest["event_type"])
    document: dict[str, Any] = {
        "execution_id": str(subject.execution_id),
        "path": subject.path,
        "status": (terminal["status"] if terminal else None) or subject.status,
        "generated_at": generated_at,
        "summary": summary,
        "findings": findings,
        "recommendations": recommendations,
        "cloud": _cloud(cloud, subject.execution_id, start, end),
        "playbook": {
            "catalog_id": str(subject.catalog_id),
            "path": subject.path,
            "version": subject.version,
            "content": subject.content,
        },
        "event_sample": [_sample(row) for row in rows[-sample_size:]],
    }
    return {**document, "ai_prompt": _prompt(document, subject.content)}
