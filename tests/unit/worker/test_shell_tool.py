"""The shell and noop tools with real shells."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from services.worker.limits import SHELL_OUTPUT_MAX_BYTES
from services.worker.tools import ToolError
from tests.unit.worker.conftest import Call


async def test_commands_in_order(call: Call, tmp_path: Path) -> None:
    output = await call("shell", cmds=["echo one", "echo $V >&2; pwd"], env={"V": 5}, working_dir=str(tmp_path))
    assert output["stdout"] == f"one\n{tmp_path}\n"
    assert output["stderr"] == "5\n"
    assert output["exit_code"] == output["returncode"] == 0
    assert [one["returncode"] for one in output["commands"]] == [0, 0]


async def test_first_failure_ends_it(call: Call) -> None:
    with pytest.raises(ToolError) as failure:
        await call("shell", cmds=["echo no >&2; exit 3", "echo never"])
    assert failure.value.code == "EXIT_3"
    assert "no" in failure.value.message
    assert failure.value.data is not None
    assert len(failure.value.data["commands"]) == 1


def _runs(pid: str) -> bool:
    """Whether the process is not gone within a few seconds; a kill takes a moment to be carried out."""
    try:
        descriptor = os.pidfd_open(int(pid))
    except ProcessLookupError:
        return False
    ended, _, _ = select.select([descriptor], [], [], 5)
    os.close(descriptor)
    return not ended


async def test_time_limit_kills_the_process_group(call: Call, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(ToolError) as failure:
        await call("shell", command=f"sleep 60 & echo $! $$ > {pids}; wait", seconds=0.5)
    assert failure.value.code == "TIMEOUT"
    assert [pid for pid in pids.read_text().split() if _runs(pid)] == []


async def test_output_is_bounded(call: Call) -> None:
    output = await call("shell", command=f"head -c {3 * SHELL_OUTPUT_MAX_BYTES} /dev/zero | tr '\\0' x")
    assert len(output["stdout"]) == SHELL_OUTPUT_MAX_BYTES
    assert output["truncated"] is True


async def test_environment_is_not_inherited(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "NOETL_INTERNAL_API_TOKEN", "secret")
    output = await call("shell", cmd="echo [$NOETL_INTERNAL_API_TOKEN]", shell="/bin/sh")
    assert output["stdout"] == "[]\n"


@pytest.mark.parametrize("config", [{}, {"cmds": [1]}, {"cmd": "true", "env": 3}, {"cmds": ["true"] * 101}])
async def test_bad_config(call: Call, config: dict[str, object]) -> None:
    with pytest.raises(ToolError) as failure:
        await call("shell", **config)
    assert failure.value.code == "BAD_CONFIG"


async def test_shell_that_does_not_exist(call: Call) -> None:
    with pytest.raises(ToolError) as failure:
        await call("shell", cmd="true", shell="/nowhere/sh")
    assert failure.value.code == "START"


async def test_noop_and_unknown_kind(call: Call) -> None:
    assert await call("noop") == {"status": "noop", "step": "s"}
    with pytest.raises(ToolError, match="Tool kind 'abc' not implemented") as failure:
        await call("abc")
    assert failure.value.code == "UNKNOWN_TOOL"
