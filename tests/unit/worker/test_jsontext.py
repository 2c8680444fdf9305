"""JSON text of what playbooks compute."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from services.worker.jsontext import encoded
from services.worker.plain import NotPlainError


@pytest.mark.parametrize(
    ("value", "back"),
    [
        ({"a": [1, None, "é"]}, {"a": [1, None, "é"]}),
        ({"n": 10**30}, {"n": 10**30}),
        ({1: 2}, {"1": 2}),
        ({"x": float("nan")}, {"x": None}),
        ([10**30, float("inf")], [str(10**30), None]),
        ({"d": date(2026, 1, 2), "s": {1}}, {"d": "2026-01-02", "s": [1]}),
    ],
)
def test_encoded(value: Any, back: Any) -> None:
    assert json.loads(encoded(value)) == back


def test_what_contains_itself() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(NotPlainError):
        encoded(value)
