"""What `playhead run` shows, and how it reads its arguments."""

from __future__ import annotations

import io
from typing import Any

import pytest

from services.dev.run import Screen, UsageError, payload_of


def event(kind: str, step: str, second: int, **fields: Any) -> dict[str, Any]:
    return {"event_type": kind, "node_name": step, "event_time": f"2026-01-01T00:00:{second:02d}+00:00", **fields}


def shown(*events: dict[str, Any]) -> list[str]:
    out = io.StringIO()
    screen = Screen(out)
    for item in events:
        screen.show(item)
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def test_a_step_that_ended_has_a_line_with_its_duration_and_only_one() -> None:
    assert shown(
        event("playbook.initialized", "p", 0),
        event("command.issued", "a", 1, command_id=1),
        event("call.done", "a", 3, command_id=1),
        event("step.exit", "a", 3, command_id=1),
        event("command.completed", "a", 3, command_id=1),
    ) == ["✓ a 2.000 s"]


def test_a_step_that_failed_shows_its_error_and_one_that_was_skipped_says_so() -> None:
    assert shown(
        event("command.issued", "a", 1, command_id=1),
        event("call.error", "a", 2, command_id=1, error="boom"),
        event("step.skipped", "b", 2),
    ) == ["✗ a 1.000 s boom", "- b skipped"]


def test_a_step_that_was_taken_over_says_so() -> None:
    assert shown(event("command.claimed", "a", 1, command_id=1, meta={"attempt": 2})) == ["↻ a attempt 2"]


def test_a_loop_is_one_line_with_a_bar() -> None:
    issued = [event("command.issued", "a", 1, command_id=number, meta={"loop_total": 2}) for number in (1, 2)]
    done = [event("call.done", "a", 2, command_id=number) for number in (1, 2)]
    assert shown(*issued, *done) == ["a [########################] 2/2"]


@pytest.mark.parametrize(
    ("text", "assignments", "expected"),
    [
        (None, [], {}),
        ('{"a": 1}', [], {"a": 1}),
        ('{"a": {"b": 1}}', ["a.b=2", "a.c=x"], {"a": {"b": 2, "c": "x"}}),
        (None, ["n=7", "t=true", "l=[1, 2]", "s=7 apples", "e=", "q=a=b"],
         {"n": 7, "t": True, "l": [1, 2], "s": "7 apples", "e": "", "q": "a=b"}),
    ],
)  # fmt: skip
def test_values_are_read_as_yaml(text: str | None, assignments: list[str], expected: dict[str, Any]) -> None:
    assert payload_of(text, assignments) == expected


@pytest.mark.parametrize("assignment", ["x", "=1", "a..b=1", "a.b.c=1"])
def test_an_assignment_that_cannot_be_read_is_named(assignment: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        payload_of('{"a": {"b": 1}}', [assignment])
