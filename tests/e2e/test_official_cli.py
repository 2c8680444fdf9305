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


async def test_a_catalog_is_loaded_listed_and_read(stack: Stack) -> None:
    directory = stack.directory / "tree" / "deeper"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "a.yaml").write_text(playbooks.LINEAR.replace("e2e/linear", "loaded/a"))
    (directory.parent / "b.yaml").write_text(playbooks.FAILING.replace("e2e/failing", "loaded/b"))
    tree = str(directory.parent)
    code, out, err = await noetl(stack, "catalog", "load", tree, "--dry-run")
    assert code == 0, err
    assert (await stack.request("POST", "/api/catalog/list", {"path": "loaded/a"}))[1] == {"entries": []}
    code, out, err = await noetl(stack, "catalog", "load", tree, "--batch-size", "1", "--json")
    assert code == 0, err
    assert "loaded/a" in out
    assert "loaded/b" in out
    for path in ("loaded/a", "loaded/b"):
        code, out, err = await noetl(stack, "catalog", "get", path)
        assert (code, path in out) == (0, True), err
    code, out, _ = await noetl(stack, "catalog", "list", "Playbook", "--json")
    assert (code, "loaded/b" in out) == (0, True)
    (directory / "c.yaml").write_text("kind: Playbook\nmetadata: {path: loaded/c}\n")
    code, out, err = await noetl(stack, "catalog", "load", tree)
    assert code == 1
    assert "loaded/c" in out + err
    assert len((await stack.request("POST", "/api/catalog/list", {"path": "loaded/a"}))[1]["entries"]) == 2


async def test_an_execution_is_run_again_and_by_its_database_id(stack: Stack) -> None:
    catalog_id = await stack.register(playbooks.LINEAR)
    first = await start(stack, catalog_id, "--set", "name=Grace")
    await stack.until_ended(first)
    code, out, err = await noetl(stack, "execute", "rerun", first, "--json")
    assert code == 0, err
    again = str(json.loads(out)["execution_id"])
    assert again != first
    status = await stack.until_ended(again)
    assert (status["status"], status["variables"]["finish"]["message"]) == ("COMPLETED", "HELLO, GRACE!")
    override = stack.directory / "override.json"
    override.write_text('{"name": "Ada"}')
    code, out, err = await noetl(stack, "execute", "rerun", first, "--input", str(override), "--json")
    assert code == 0, err
    status = await stack.until_ended(str(json.loads(out)["execution_id"]))
    assert status["variables"]["finish"]["message"] == "HELLO, ADA!"
    code, out, _ = await noetl(stack, "execute", "status", again)
    assert (code, "COMPLETED" in out) == (0, True)
    code, _, err = await noetl(stack, "execute", "rerun", "111")
    assert (code, "Execution 111 not found" in err) == (1, True)


async def test_stuck_executions_are_cleaned_up(stack: Stack) -> None:
    execution_id = await stack.execute(await stack.register(playbooks.SLEEPING))
    await stack.sql(
        "UPDATE noetl.execution SET start_time = start_time - interval '10 minutes' WHERE execution_id = $1",
        int(execution_id),
    )
    code, out, err = await noetl(stack, "cleanup", "--older-than-minutes", "9", "--dry-run", "--json")
    assert code == 0, err
    assert execution_id in json.loads(out)["execution_ids"]
    code, out, err = await noetl(stack, "cleanup", "--older-than-minutes", "9")
    assert code == 0, err
    assert "Successfully cancelled" in out
    assert (await stack.until_ended(execution_id))["status"] == "CANCELLED"
    code, out, _ = await noetl(stack, "cancel", execution_id, "--reason", "late")
    assert (code, "ALREADY_COMPLETED" in out) == (0, True)


async def test_credentials_are_registered_and_shown(stack: Stack) -> None:
    file = stack.directory / "credential.json"
    file.write_text(
        '{"name": "cli_db", "type": "postgres", "data": {"db_host": "h"}, "tags": ["a"], "description": "d"}'
    )
    code, out, err = await noetl(stack, "register", "credential", "--file", str(file))
    assert code == 0, err
    assert "cli_db" in out
    code, out, err = await noetl(stack, "get", "credential", "cli_db")
    assert code == 0, err
    assert '"db_host": "h"' in out


async def test_sql_and_the_schema_are_reached(stack: Stack) -> None:
    code, out, err = await noetl(stack, "query", "SELECT 41 + 1 AS answer", "--format", "json")
    assert code == 0, err
    assert '"answer": 42' in out
    code, out, _ = await noetl(stack, "query", "SELEC", "--format", "json")
    assert (code, "syntax error" in out) == (0, True)
    for verb, said in (("init", "Database schema ready"), ("validate", '"valid": true')):
        code, out, err = await noetl(stack, "db", verb)
        assert (code, said in out) == (0, True), (out, err)


async def test_a_batch_of_help_examples_finds_its_routes(stack: Stack) -> None:
    """What the help of the CLI shows for the server, with names of ours: no command meets a missing route."""
    await register(stack, playbooks.LINEAR)
    for words in (
        ("list", "Playbook"),
        ("list", "Credential", "--json"),
        ("catalog", "list", "Credential"),
        ("execute", "playbook", "e2e/linear", "--json"),
        ("run", "catalog://e2e/linear@1", "-r", "distributed"),
        ("run", "catalog://e2e/linear@latest", "-r", "distributed"),
        ("cleanup", "--dry-run"),
    ):
        code, out, err = await noetl(stack, *words)
        assert code == 0, (words, err)
        assert "404 Not Found" not in out + err
        assert "405 Method" not in out + err


async def test_the_read_model_is_queried(stack: Stack) -> None:
    execution_id = await stack.execute(await stack.register(playbooks.LINEAR))
    await stack.until_ended(execution_id)
    code, out, err = await noetl(
        stack, "ehdb", "query", "executions", "--status", "COMPLETED", "--limit", "5", "--json"
    )
    assert code == 0, err
    assert execution_id in [item["execution_id"] for item in json.loads(out)["executions"]]
    code, out, err = await noetl(stack, "ehdb", "query", "execution", execution_id, "--json")
    assert code == 0, err
    assert json.loads(out)["state"]["status"] == "COMPLETED"
    code, out, err = await noetl(stack, "ehdb", "query", "events", execution_id, "--limit", "200", "--json")
    assert code == 0, err
    assert json.loads(out)["events"][-1]["event_type"] == "playbook.completed"
    for words, shown in (
        (("executions",), execution_id),
        (("execution", execution_id), execution_id),
        (("events", execution_id), "playbook.completed"),
    ):
        code, out, err = await noetl(stack, "ehdb", "query", *words)
        assert (code, shown in out) == (0, True), (words, out, err)
