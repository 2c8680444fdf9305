"""The official NoETL CLI 5.3.2, unchanged, against a stack."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.e2e import playbooks
from tests.support.stack import Stack

CLI = Path(sys.executable).with_name("noetl")
CLI_SECONDS_MAX = 30


async def noetl(stack: Stack, *words: str) -> tuple[int, str, str]:
    """Run the CLI in an empty directory: it looks for files named like the path it is given."""
    command = [str(CLI), "--server-url", stack.url, *words]

    def call() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=CLI_SECONDS_MAX, cwd=stack.directory, check=False
        )

    done = await asyncio.to_thread(call)
    return done.returncode, done.stdout, done.stderr


async def register(stack: Stack, text: str) -> None:
    file = stack.directory / "playbook.yaml"
    file.write_text(text)
    code, out, err = await noetl(stack, "register", "playbook", "--file", str(file))
    assert code == 0, err
    assert "registered successfully" in out


async def start(stack: Stack, path: str, *words: str) -> str:
    code, out, err = await noetl(stack, "run", path, "-r", "distributed", "--json", *words)
    assert code == 0, err
    document: dict[str, Any] = json.loads(out)
    assert document["status"] == "started"
    assert document["commands_generated"] == 1
    return str(document["execution_id"])


async def test_register_run_and_status_read_right(stack: Stack) -> None:
    await register(stack, playbooks.LINEAR)
    execution_id = await start(stack, "e2e/linear", "--set", "name=Grace")
    await stack.until_ended(execution_id)
    code, out, err = await noetl(stack, "status", execution_id, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert (document["status"], document["completed"], document["failed"]) == ("COMPLETED", True, False)
    assert document["variables"]["finish"]["message"] == "HELLO, GRACE!"
    code, out, _ = await noetl(stack, "status", execution_id)
    assert code == 0
    assert "COMPLETED" in out
    assert "2 completed" in out


async def test_a_failed_run_reads_failed(stack: Stack) -> None:
    await register(stack, playbooks.FAILING)
    execution_id = await start(stack, "e2e/failing")
    await stack.until_ended(execution_id)
    _, out, _ = await noetl(stack, "status", execution_id)
    assert "FAILED" in out
    assert "boom" in out
    _, out, _ = await noetl(stack, "status", execution_id, "--json")
    document = json.loads(out)
    assert (document["status"], document["failed"]) == ("FAILED", True)


async def test_a_running_execution_can_be_cancelled(stack: Stack) -> None:
    await register(stack, playbooks.SLEEPING)
    execution_id = await start(stack, "e2e/sleeping")
    _, out, _ = await noetl(stack, "status", execution_id)
    assert "RUNNING" in out
    code, out, err = await noetl(stack, "cancel", execution_id)
    assert code == 0, err
    assert "CANCELLED" in out
    assert (await stack.until_ended(execution_id))["status"] == "CANCELLED"


async def test_the_catalog_lists_what_was_registered(stack: Stack) -> None:
    await register(stack, playbooks.LINEAR)
    code, out, err = await noetl(stack, "catalog", "list", "Playbook")
    assert code == 0, err
    assert "e2e/linear" in out


async def test_a_wrong_playbook_is_refused_with_its_line_and_key(stack: Stack) -> None:
    file = stack.directory / "wrong.yaml"
    file.write_text(playbooks.FAILING.replace("kind: python", "kind: pithon"))
    code, _, err = await noetl(stack, "register", "playbook", "--file", str(file))
    assert code == 1
    assert "line 7" in err
    assert "workflow.0.tool.kind" in err


async def test_an_unknown_path_is_said_to_be_unknown(stack: Stack) -> None:
    code, _, err = await noetl(stack, "run", "e2e/nowhere", "-r", "distributed", "--json")
    assert code == 1
    assert "404" in err
