"""Findings from a log: counts, thresholds, links, and what a model is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.api.analysis import Cloud, Subject, analysis

START = datetime(2026, 1, 1, tzinfo=UTC)
SUBJECT = Subject(execution_id=5, catalog_id=7, path="a/b", version=2, status="RUNNING")


def event(kind: str, node: str, second: float = 0.0, **more: Any) -> dict[str, Any]:
    return {
        "event_id": 1,
        "event_type": kind,
        "node_name": node,
        "node_type": None,
        "status": "COMPLETED",
        "created_at": START + timedelta(seconds=second),
        "duration": None,
        "error": None,
        "command_id": None,
        "stream_version": 1,
        "attempt": None,
        **more,
    }


def analysed(rows: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    terminal = next((row for row in rows if row["event_type"].startswith("playbook.")), None)
    given: dict[str, Any] = {"newest": rows[-1], "terminal": terminal, "cloud": Cloud(), "sample_size": 100}
    return analysis(SUBJECT, rows, generated_at="now", **{**given, **options})


def titles(document: dict[str, Any]) -> list[str]:
    return [item["title"] for item in document["findings"]]


def test_a_run_without_trouble_has_no_findings() -> None:
    document = analysed([event("playbook.initialized", "a/b"), event("playbook.completed", "a/b", 1.5)])
    assert document["findings"] == []
    assert document["recommendations"] == ["No major issues detected from current event sample."]
    assert document["summary"]["duration_seconds"] == 1.5
    assert document["cloud"]["configured"] is False


def test_the_time_of_a_step_is_between_the_events_of_its_commands() -> None:
    rows = [
        event("command.started", "slow", 0, command_id=1),
        event("command.started", "fast", 0, command_id=2),
        event("call.done", "fast", 0.1, command_id=2),
        event("call.done", "slow", 9.9, command_id=1),
        event("command.completed", "slow", 12, command_id=1),
        event("playbook.completed", "a/b", 12),
    ]
    document = analysed(rows)
    assert [(item["node_name"], item["total_duration_ms"]) for item in document["summary"]["slowest_nodes"]] == [
        ("slow", 9900),
        ("fast", 100),
    ]
    assert titles(document) == ["Single Step Dominates Runtime"]
    assert document["findings"][0]["detail"] == "Node 'slow' consumes 99.0% of measured step duration."


def test_of_our_own_log_only_attempts_are_retries_and_loops_are_not() -> None:
    loop = [event("command.issued", "each", attempt=1) for _ in range(3)]
    again = [event("command.issued", "flaky", attempt=number) for number in (1, 2, 3)]
    document = analysed([*loop, *again, event("playbook.completed", "a/b")])
    assert (document["summary"]["retry_attempts"], document["summary"]["retry_nodes"]) == (2, {"flaky": 2})
    assert titles(document) == ["Retries Detected"]
    original = [event("command.issued", "each", stream_version=None) for _ in range(3)]
    document = analysed([*original, event("playbook.completed", "a/b")])
    assert document["summary"]["retry_nodes"] == {"each": 2}


@pytest.mark.parametrize(("seconds", "found"), [(59.9, []), (60.0, ["High Execution Duration"])])
def test_a_minute_is_long(seconds: float, found: list[str]) -> None:
    rows = [event("playbook.initialized", "a/b"), event("playbook.completed", "a/b", seconds)]
    assert titles(analysed(rows)) == found


def test_http_steps_failures_and_a_missing_end_are_told() -> None:
    rows = [
        event("command.issued", "fetch", node_type="http", status="PENDING"),
        event("call.error", "fetch", status="FAILED", error="x" * 1000),
    ]
    document = analysed(rows, sample_size=1)
    assert document["summary"]["http_activity_event_count"] == 1
    assert titles(document) == ["Failure Events Present", "Missing Terminal Lifecycle Event"]
    assert document["status"] == "RUNNING"
    (sample,) = document["event_sample"]
    assert sample["error"] == "x" * 400 + " ...[truncated]"


def test_links_lead_to_the_cluster() -> None:
    cloud = Cloud(project="p", cluster="c", region="r")
    links = analysed([event("playbook.completed", "a/b")], cloud=cloud)["cloud"]
    assert links["configured"] is True
    assert links["logs_query"] == (
        'resource.type="k8s_container" AND "5" AND resource.labels.cluster_name="c" AND resource.labels.location="r"'
    )
    assert links["logs_url"].endswith("?project=p")


def test_the_prompt_has_what_the_answer_has_and_a_bounded_playbook() -> None:
    subject = Subject(execution_id=5, catalog_id=7, path="a/b", version=2, status="RUNNING", content="y" * 70_000)
    row = event("playbook.completed", "a/b")
    document = analysis(subject, [row], newest=row, terminal=row, cloud=Cloud(), sample_size=10, generated_at="now")
    assert "Execution ID: 5\nPlaybook Path: a/b" in document["ai_prompt"]
    assert "y" * 60_000 + "\n# ...truncated..." in document["ai_prompt"]
    assert document["playbook"]["content"] == "y" * 70_000
