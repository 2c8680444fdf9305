"""Calls of a tool kind at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from services.worker.tools import ToolBox, ToolCall, run_tool
from services.worker.tools.concurrency import ToolLimits, parse_limits


def test_limits_are_read() -> None:
    assert parse_limits(" duckdb=2, Shell = 4 ,") == {"duckdb": 2, "shell": 4}
    assert parse_limits("") == {}


@pytest.mark.parametrize(
    "text", ["duckdb", "duckdb=", "=2", "duckdb=0", "duckdb=-1", "duckdb=1.5", "duckdb=99999", "a=1;b=2"]
)
def test_limits_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ValueError, match="is not like duckdb=2"):
        parse_limits(text)


async def test_no_more_than_the_limit_run_and_waiting_is_no_part_of_the_time(box: ToolBox, tmp_path: Path) -> None:
    """Each call fails if it sees another one; each takes most of the time limit."""
    limited = replace(box, limits=ToolLimits({"shell": 1}))
    lock = tmp_path / "lock"
    command = f"mkdir {lock} || exit 9; sleep 0.3; rmdir {lock}"

    async def run() -> int:
        call = ToolCall(kind="shell", step="s", config={"cmd": command}, input={}, context={}, timeout_seconds=1.0)
        output = await run_tool(call, limited)
        return int(output["returncode"])

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run()) for _ in range(5)]
    assert [task.result() for task in tasks] == [0] * 5


async def test_other_kinds_do_not_wait(box: ToolBox) -> None:
    limited = replace(box, limits=ToolLimits({"shell": 1}))
    blocked = ToolCall(kind="shell", step="s", config={"cmd": "sleep 60"}, input={}, context={}, timeout_seconds=60.0)
    free = ToolCall(kind="noop", step="s", config={}, input={}, context={}, timeout_seconds=1.0)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run_tool(blocked, limited))
        assert (await run_tool(free, limited))["status"] == "noop"
        task.cancel()
