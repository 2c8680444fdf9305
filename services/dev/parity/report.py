"""The result of a comparison as text and as JSON. Pure."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from services.dev.parity.run import Compared, Outcome, Report

FINDINGS_SHOWN = 20  # of one request, in the text
BODY_CHARS_SHOWN = 200


def as_text(report: Report) -> str:
    """Return what differs, request by request, and a summary."""
    lines = [f"base     {report.base}", f"against  {report.against}", ""]
    for item in report.compared:
        if item.outcome in (Outcome.DIFFERS, Outcome.FAILED):
            lines += [*_request_lines(item), ""]
    lines.append(_summary(report))
    known = Counter(name for item in report.compared for name in item.declared)
    lines += [f"  known difference {name}: {count}" for name, count in sorted(known.items())]
    if report.skipped:
        lines.append(f"  {report.skipped} requests that write were left out; --writes sends them")
    if report.unfinished:
        lines.append(f"  {report.unfinished} requests were not sent: the time was over")
    return "\n".join(lines)


def _request_lines(item: Compared) -> list[str]:
    request = item.request
    lines = [f"{request.method} {request.path}   ({request.name}) {item.outcome}"]
    if request.body:
        shown = request.body[:BODY_CHARS_SHOWN]
        lines.append(f"  body {shown}{'...' if len(request.body) > BODY_CHARS_SHOWN else ''}")
    if item.problem:
        lines.append(f"  {item.problem}")
    for finding in item.findings[:FINDINGS_SHOWN]:
        lines += [f"  {finding.at}", f"    - {finding.base}", f"    + {finding.other}"]
    if len(item.findings) > FINDINGS_SHOWN:
        lines.append(f"  ... and {len(item.findings) - FINDINGS_SHOWN} more")
    return lines


def _summary(report: Report) -> str:
    counts = {outcome: report.count(outcome) for outcome in Outcome}
    return (
        f"{len(report.compared)} requests: {counts[Outcome.SAME]} same, {counts[Outcome.DECLARED]} same but for known "
        f"differences, {counts[Outcome.DIFFERS]} differ, {counts[Outcome.FAILED]} failed"
    )


def as_json(report: Report) -> str:
    """Return everything as one JSON document."""
    document: dict[str, Any] = {
        "base": report.base,
        "against": report.against,
        "same": report.same,
        "summary": {
            **{str(outcome): report.count(outcome) for outcome in Outcome},
            "skipped": report.skipped,
            "unfinished": report.unfinished,
        },
        "requests": [
            {
                "name": item.request.name,
                "method": item.request.method,
                "path": item.request.path,
                "outcome": str(item.outcome),
                "known_differences": list(item.declared),
                "findings": [{"at": one.at, "base": one.base, "against": one.other} for one in item.findings],
                "problem": item.problem,
            }
            for item in report.compared
        ],
    }
    return json.dumps(document, ensure_ascii=False)
