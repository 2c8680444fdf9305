"""What `playhead run` says when the API refuses."""

from __future__ import annotations

import pytest

from services.dev.client import _detail


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"detail": "no such path"}, "no such path"),
        ({"detail": {"code": "x", "message": "too many"}}, "too many"),
        ({"detail": [{"loc": ["body", "path"], "msg": "Field required"}]}, "body.path: Field required"),
        (
            {
                "detail": "register_resource: 'p' is not a valid playbook: line 6, workflow: a; line 7, workflow.1: b",
                "problems": [
                    {"line": 6, "column": 3, "key": "workflow", "message": "a", "severity": "error"},
                    {"line": 7, "column": 1, "key": "workflow.1", "message": "b", "severity": "warning"},
                ],
            },
            "register_resource: 'p' is not a valid playbook\n"
            "  line 6, column 3: error: workflow: a\n  line 7, column 1: warning: workflow.1: b",
        ),
    ],
    ids=["text", "object", "list", "playbook"],
)
def test_a_refusal_is_told_in_words(answer: object, said: str) -> None:
    assert _detail(answer) == said
