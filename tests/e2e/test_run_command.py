"""`playhead run`, as a person types it."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e import playbooks
from tests.support.stack import ROOT, Stack

RUN_SECONDS_MAX = 60


def words(stack: Stack, file: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "services.dev.cli", "run", str(file), "--server", stack.url, *more]


async def run(stack: Stack, text: str, *more: str) -> subprocess.CompletedProcess[str]:
    file = stack.directory / "run.yaml"
    file.write_text(text)
    return await asyncio.to_thread(
        subprocess.run,
        words(stack, file, *more),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS_MAX,
        check=False,
    )


async def test_it_shows_every_step_and_the_result_and_exits_0(stack: Stack) -> None:
    done = await run(stack, playbooks.LINEAR, "--set", "name=Ada", "--payload", '{"nested": {"a": 2, "b": 2}}')
    assert done.returncode == 0, done.stderr
    assert "✓ start" in done.stdout
    assert "✓ finish" in done.stdout
    assert "COMPLETED" in done.stdout
    assert "HELLO, ADA!" in done.stdout
    assert '"seen": 4' in done.stdout


async def test_a_failed_execution_exits_1_and_says_why(stack: Stack) -> None:
    done = await run(stack, playbooks.FAILING)
    assert done.returncode == 1
    assert "✗ start" in done.stdout
    assert "FAILED" in done.stdout
    assert "boom" in done.stdout


async def test_json_prints_one_document(stack: Stack) -> None:
    done = await run(stack, playbooks.LINEAR, "--json")
    document = json.loads(done.stdout)
    assert (document["status"], document["result"]["message"]) == ("COMPLETED", "HELLO, WORLD!")


async def test_no_follow_returns_at_once(stack: Stack) -> None:
    done = await run(stack, playbooks.SLEEPING, "--no-follow", "--json")
    assert done.returncode == 0
    execution_id = json.loads(done.stdout)["execution_id"]
    await stack.request("POST", f"/api/executions/{execution_id}/cancel")


async def test_ctrl_c_exits_130_and_leaves_the_execution_alone(stack: Stack) -> None:
    file = stack.directory / "sleep.yaml"
    file.write_text(playbooks.SLEEPING)
    process = await asyncio.create_subprocess_exec(
        *words(stack, file), cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    async with asyncio.timeout(RUN_SECONDS_MAX):
        line = (await process.stdout.readline()).decode()
        process.send_signal(signal.SIGINT)
        await process.stdout.read()
        assert await process.wait() == 130
    execution_id = line.split()[-1]
    _, status = await stack.request("GET", f"/api/executions/{execution_id}/status")
    assert status["status"] == "RUNNING"
    await stack.request("POST", f"/api/executions/{execution_id}/cancel")


@pytest.mark.parametrize(
    ("more", "named"),
    [(("--set", "nonsense"), "key=value"), (("--payload", "[1]"), "object"), (("--payload", "{"), "JSON")],
)
async def test_a_wrong_argument_is_named(stack: Stack, more: tuple[str, ...], named: str) -> None:
    done = await run(stack, playbooks.LINEAR, *more)
    assert done.returncode == 2
    assert named in done.stderr


async def test_a_wrong_playbook_is_refused_with_its_line(stack: Stack) -> None:
    done = await run(stack, "a: [1\n")
    assert done.returncode == 1
    assert "line 2" in done.stderr
    assert "Traceback" not in done.stderr


async def test_an_unreachable_server_is_named(stack: Stack) -> None:
    done = await run(stack, playbooks.LINEAR, "--server", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert "http://127.0.0.1:1" in done.stderr
    assert "playhead dev" in done.stderr
