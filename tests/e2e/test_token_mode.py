"""A stack that asks who calls, as an operator sets it up: tokens by the command line, then every client with its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e import playbooks
from tests.support.stack import ROOT, Stack

COMMAND_SECONDS_MAX = 60
ISOLATED = {"NOETL_API_TOKEN", "NOETL_SESSION_TOKEN", "NOETL_ADMIN_TOKEN", "NOETL_ADMIN_TOKEN_FILE", "NOETL_SERVER_URL"}


@pytest.fixture(scope="module")
async def tokens() -> AsyncIterator[Stack]:
    """`playhead dev` that asks for tokens and whose worker has credentials sealed for it."""
    made = Stack(env={"NOETL_AUTH_MODE": "token", "NOETL_SEALED_CREDENTIALS": "true"})
    await made.start()
    yield made
    await made.close()


async def called(words: list[str], **env: str) -> tuple[int, str, str]:
    """Run a command without the tokens of whoever runs the tests; return code, stdout and stderr."""
    inherited = {name: value for name, value in os.environ.items() if name not in ISOLATED}

    def call() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            env={**inherited, **env},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
        )

    done = await asyncio.to_thread(call)
    return done.returncode, done.stdout, done.stderr


async def playhead(stack: Stack, *words: str, **env: str) -> tuple[int, str, str]:
    return await called([sys.executable, "-m", "services.dev.cli", *words, "--server", stack.url], **env)


async def created(stack: Stack, name: str, role: str, *words: str) -> str:
    """Create a token with the admin token that `playhead dev` keeps beside its data."""
    code, out, err = await playhead(
        stack, "token", "create", name, "--role", role, "--data-dir", str(stack.data_dir), *words
    )
    assert code == 0, err
    assert "shown this once" in err
    return out.strip()


async def test_a_run_needs_a_token_and_has_one_from_the_environment(tokens: Stack) -> None:
    file = tokens.directory / "linear.yaml"
    file.write_text(playbooks.LINEAR)
    code, _, err = await playhead(tokens, "run", str(file), "--json")
    assert code == 1
    assert "a token is required" in err
    viewer, operator = await created(tokens, "look", "viewer"), await created(tokens, "ops", "operator")
    code, _, err = await playhead(tokens, "run", str(file), "--json", NOETL_API_TOKEN=viewer)
    assert code == 1
    assert "needs the role admin or operator" in err
    code, out, err = await playhead(tokens, "run", str(file), "--json", NOETL_API_TOKEN=operator)
    assert code == 0, err
    assert json.loads(out)["status"] == "COMPLETED"


async def test_the_official_cli_gives_its_session_token(tokens: Stack) -> None:
    operator = await created(tokens, "cli", "operator")
    file = tokens.directory / "choice.yaml"
    file.write_text(playbooks.LINEAR)
    cli = [str(Path(sys.executable).with_name("noetl")), "--server-url", tokens.url]
    words = ["register", "playbook", "--file", str(file)]
    code, out, _ = await called([*cli, "--session-token", operator, *words])
    assert code == 0, out
    code, _, err = await called([*cli, *words])
    assert code != 0
    assert "401" in err


async def test_tokens_are_listed_and_revoked_by_the_command_line(tokens: Stack) -> None:
    place = ("--data-dir", str(tokens.data_dir))
    text = await created(tokens, "pipeline", "viewer", "--expires", "90d")
    code, out, _ = await playhead(tokens, "token", "list", *place)
    (line,) = [line for line in out.splitlines() if "pipeline" in line]
    token_id = line.split()[0]
    assert (code, "viewer" in line, "expires 20" in line, text.split("_", 2)[2] in out) == (0, True, True, False)
    code, out, err = await playhead(tokens, "token", "revoke", token_id, *place)
    assert code == 0, err
    assert "revoked" in out
    status, _ = await tokens.request("GET", "/api/executions", headers={"Authorization": f"Bearer {text}"})
    assert status == 401
    code, _, err = await playhead(tokens, "token", "list", "--data-dir", "/nonexistent")
    assert code == 1
    assert "a token is required" in err


async def test_keys_are_shown_and_rotated_by_the_command_line(tokens: Stack) -> None:
    operator = await created(tokens, "secrets", "operator")
    headers = {"Authorization": f"Bearer {operator}"}
    body = {"name": "db", "data": {"password": "x"}}
    assert (await tokens.request("POST", "/api/credentials", body, headers=headers))[0] == 200
    place = ("--data-dir", str(tokens.data_dir))
    code, out, err = await playhead(tokens, "keys", "rotate", *place)
    assert code == 0, err
    assert "0 failed" in err
    code, out, err = await playhead(tokens, "keys", "status", *place)
    assert code == 0, err
    key_id = out.splitlines()[0].split()[-1]
    assert f"1 by {key_id}" in out


SEALED = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: sealed, path: e2e/sealed}
workload: {url: ""}
workflow:
  - step: start
    tool: {kind: http, url: "{{ workload.url }}/api/executions", auth: {api: {type: bearer, key: own_api}}}
"""


async def test_a_worker_reads_credentials_that_are_sealed_for_it(tokens: Stack) -> None:
    operator, viewer = await created(tokens, "sealing", "operator"), await created(tokens, "reading", "viewer")
    headers = {"Authorization": f"Bearer {operator}"}
    body = {"name": "own_api", "type": "bearer", "data": {"token": viewer}}
    assert (await tokens.request("POST", "/api/credentials", body, headers=headers))[0] == 200
    assert tokens.session is not None
    tokens.session.headers.update(headers)
    execution_id = await tokens.execute(await tokens.register(SEALED), {"url": tokens.url})
    ended = await tokens.until_ended(execution_id)
    tokens.session.headers.popall("Authorization")
    assert ended["status"] == "COMPLETED", ended
    admin = {"Authorization": f"Bearer {(tokens.data_dir / 'admin-token').read_text().strip()}"}
    _, answer = await tokens.request("GET", "/api/internal/secret-audit?credential=own_api", headers=admin)
    assert [row["operation"] for row in answer["rows"]] == ["sealed", "write"]
    assert answer["rows"][0]["worker_id"].startswith("worker-")
