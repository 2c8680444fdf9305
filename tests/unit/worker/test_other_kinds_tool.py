"""Kinds that this worker does not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.worker.tools import TOOLS, ToolError
from services.worker.tools.absent import ABSENT
from shared.engine.toolkeys import TOOL_KINDS
from tests.unit.worker.conftest import Call

ENGINE = {"workbook", "task_sequence"}  # resolved before a tool is called


@pytest.mark.parametrize("kind", sorted(ABSENT))
async def test_the_error_says_what_to_do(call: Call, kind: str) -> None:
    with pytest.raises(ToolError) as failure:
        await call(kind)
    assert failure.value.code == "NOT_AVAILABLE"
    assert kind in failure.value.message
    assert failure.value.retryable is False


def test_every_kind_of_the_language_has_a_tool_or_a_clear_error() -> None:
    assert set(TOOL_KINDS) - ENGINE - set(TOOLS) == set()


@pytest.mark.parametrize(
    ("config", "output"),
    [
        ({}, {"status": "noop", "step": "s"}),
        ({"message": "hi"}, {"status": "ok", "message": "hi", "step": "s"}),
        ({"result": [1]}, [1]),
    ],
)
async def test_noop(call: Call, config: dict[str, object], output: object) -> None:
    assert await call("noop", **config) == output


def test_every_kind_is_documented() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "tools.md").read_text()
    missing = [kind for kind in {*TOOL_KINDS, *TOOLS} - {"task_sequence"} if f"`{kind}`" not in text]
    assert missing == []
