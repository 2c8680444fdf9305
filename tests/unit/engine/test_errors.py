"""An error in the arcs of a step: text for who prints it, an object for who asks for its members."""

from __future__ import annotations

import pytest

from shared.engine import StepRun, render_value
from shared.engine.context import with_run


@pytest.mark.parametrize(
    ("reason", "response", "template", "expected"),
    [
        ("its text", {"status": "error", "error": "disk full"}, "because: {{ output.error }}", "because: disk full"),
        ("its text alone", {"status": "error", "error": "disk full"}, "{{ output.error }}", "disk full"),
        ("an object alone", {"error": {"message": "m", "code": 1}}, "{{ output.error }}", {"message": "m", "code": 1}),
        ("its message", {"status": "error", "error": "disk full"}, "{{ output.error.message }}", "disk full"),
        (
            "a member of its envelope",
            {"error": "x", "kind": "http", "retryable": True},
            "{{ output.error.retryable }}",
            True,
        ),
        (
            "its kind, as in the rules of a task",
            {"error": "x", "kind": "http", "code": "HTTP_429", "data": {"status_code": 429}},
            "{{ output.error.kind }} {{ output.error.status_code }} {{ output.error.source }}",
            "rate_limit 429 http",
        ),
        (
            "the kind of a sequence's error",
            {"status": "failed", "error": {"kind": "auth", "code": "HTTP_401", "message": "m"}},
            "{{ output.error.kind }}",
            "auth",
        ),
        (
            "a member of an object",
            {"error": {"code": "HTTP_503", "message": "m"}},
            "{{ output.error.code }}",
            "HTTP_503",
        ),
        ("a word in it", {"error": "disk full"}, "{{ 'full' in output.error }}", True),
        ("the whole of it", {"error": "disk full"}, "{{ output.error == 'disk full' }}", True),
        ("not another", {"error": "disk full"}, "{{ output.error == 'disk' }}", False),
        ("an object's text is its message", {"error": {"message": "m", "code": 1}}, "{{ output.error ~ '!' }}", "m!"),
    ],
)
def test_an_error_is_text_and_object(reason: str, response: object, template: str, expected: object) -> None:
    run = StepRun(step="a", epoch=1, status="failed", response=response, error="disk full")
    names = with_run({}, step="b", run=run, event="call.error", now="")
    assert render_value(template, names) == expected, reason
