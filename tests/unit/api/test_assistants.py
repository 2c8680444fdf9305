"""Where the report of an AI playbook is found."""

from __future__ import annotations

from typing import Any

import pytest

from services.api.assistants import find_report, generated_playbook, unwrapped

REPORT = {"executive_summary": "fine"}


@pytest.mark.parametrize(
    "result",
    [
        {"ai_report": REPORT},
        {"status": "COMPLETED", "context": {"ai_report": REPORT}},
        {"kind": "data", "data": {"result": {"ai_report": REPORT}}},
        '{"result": {"ai_report": {"executive_summary": "fine"}}}',
        {"status": "COMPLETED", "context": {"data": '{"ai_report": {"executive_summary": "fine"}}'}},
        {"status": "COMPLETED", "context": REPORT},
    ],
)
def test_a_report_is_found_in_any_envelope(result: Any) -> None:
    report, raw = find_report([{"result": None}, {"result": {"status": "RUNNING"}}, {"result": result}])
    assert report["executive_summary"] == "fine"
    assert raw


def test_the_newest_report_counts() -> None:
    rows = [{"result": {"ai_report": {"n": 2}}}, {"result": {"ai_report": {"n": 1}}}]
    assert find_report(rows)[0] == {"n": 2}


def test_without_a_report_the_newest_output_is_shown() -> None:
    rows = [{"result": {"status": "COMPLETED", "context": {"x": 1}}}, {"result": {"status": "A"}}]
    assert find_report(rows) == ({}, {"x": 1})
    assert find_report([]) == ({}, {})


def test_envelopes_end_somewhere() -> None:
    value: Any = {"x": 1}
    for _ in range(100):
        value = {"data": value}
    assert isinstance(unwrapped(value), dict)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({"generated_playbook": " kind: Playbook \n"}, "kind: Playbook"),
        ({"yaml": "", "draft": {"playbook_yaml": "a: 1"}}, "a: 1"),
        ({"draft": "a: 1"}, ""),
        ({"generated_playbook": 5}, ""),
        ({}, ""),
    ],
)
def test_a_generated_playbook_is_text(payload: dict[str, Any], text: str) -> None:
    assert generated_playbook(payload) == text
