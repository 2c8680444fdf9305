"""`shell`: runs commands through a shell, in a process group of their own that never outlives the call."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shlex
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.worker.limits import (
    CHILD_EXIT_SECONDS,
    SHELL_COMMANDS_MAX,
    SHELL_ERROR_TAIL_CHARS,
    SHELL_OUTPUT_MAX_BYTES,
    SHELL_PREVIEW_MAX_CHARS,
)
from services.worker.tools.base import ToolBox, ToolCall, ToolError, child_environment
from services.worker.tools.script_source import script_text

KIND = "shell"
_SHELLS = ("/bin/bash", "/bin/sh")
_READ_BYTES = 65_536
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class _Ended:
    returncode: int
    stdout: str
    stderr: str
    truncated: bool
    duration_ms: int


def _commands(config: Mapping[str, Any], script: str | None) -> list[str]:
    given = next((config[key] for key in ("cmds", "cmd", "command", "commands") if config.get(key)), script)
    listed = given if isinstance(given, list) else [given]
    commands = [line for line in listed if isinstance(line, str) and line.strip()]
    if not commands or len(commands) != len(listed):
        raise ToolError(KIND, "BAD_CONFIG", "a shell tool needs `cmds`, a list of commands, or `command`, a text")
    if len(commands) > SHELL_COMMANDS_MAX:
        raise ToolError(KIND, "BAD_CONFIG", f"{len(commands)} commands; at most {SHELL_COMMANDS_MAX} are allowed")
    return commands


def _shell(config: Mapping[str, Any]) -> list[str]:
    given = config.get("shell")
    if isinstance(given, str) and given.strip() and given.lower() not in ("true", "false"):
        return [*shlex.split(given), "-c"]
    return [next((path for path in _SHELLS if Path(path).exists()), "sh"), "-c"]


def _environment(config: Mapping[str, Any]) -> dict[str, str]:
    given = config.get("env") or {}
    if not isinstance(given, Mapping):
        raise ToolError(KIND, "BAD_CONFIG", "`env` must be an object")
    return child_environment() | {str(key): "" if value is None else str(value) for key, value in given.items()}


def _die_with_worker() -> None:
    """Run between fork and exec: the kernel kills the shell when the worker ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


async def _bounded(stream: asyncio.StreamReader, into: bytearray) -> bool:
    """Read to the end, keeping the first `SHELL_OUTPUT_MAX_BYTES`; return whether something was dropped."""
    dropped = False
    chunk = await stream.read(_READ_BYTES)
    while chunk:
        room = SHELL_OUTPUT_MAX_BYTES - len(into)
        into += chunk[:room]
        dropped = dropped or len(chunk) > room
        chunk = await stream.read(_READ_BYTES)
    return dropped


async def _one(command: str, shell: list[str], environment: dict[str, str], directory: str | None) -> _Ended:
    began = time.monotonic()
    try:
        process = await asyncio.create_subprocess_exec(
            *shell,
            command,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            env=environment,
            cwd=directory,
            start_new_session=True,
            preexec_fn=_die_with_worker,
        )
    except (OSError, ValueError) as error:
        raise ToolError(KIND, "START", f"the shell cannot be started: {error}") from error
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = bytearray(), bytearray()
    try:
        async with asyncio.TaskGroup() as group:
            reading = [
                group.create_task(_bounded(process.stdout, out)),
                group.create_task(_bounded(process.stderr, err)),
            ]
            await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHILD_EXIT_SECONDS):
                await process.wait()
    return _Ended(
        returncode=process.returncode if process.returncode is not None else -1,
        stdout=out.decode(errors="replace"),
        stderr=err.decode(errors="replace"),
        truncated=any(task.result() for task in reading),
        duration_ms=round((time.monotonic() - began) * 1000),
    )


def _output(commands: list[str], ended: list[_Ended]) -> dict[str, Any]:
    output: dict[str, Any] = {
        "returncode": ended[-1].returncode,
        "exit_code": ended[-1].returncode,
        "stdout": "".join(one.stdout for one in ended),
        "stderr": "".join(one.stderr for one in ended),
        "duration_ms": sum(one.duration_ms for one in ended),
        "commands": [
            {
                "cmd_preview": command[:SHELL_PREVIEW_MAX_CHARS],
                "returncode": one.returncode,
                "stdout": one.stdout,
                "stderr": one.stderr,
                "duration_ms": one.duration_ms,
            }
            for command, one in zip(commands, ended, strict=False)
        ],
    }
    if any(one.truncated for one in ended):
        output["truncated"] = True
    return output


async def run(call: ToolCall, box: ToolBox) -> dict[str, Any]:
    """Run the commands one after the other until one fails, and return the original's output plus `exit_code`.

    Raises:
        ToolError: a command ended with a code other than 0; `data` has the output.
    """
    commands = _commands(call.config, await script_text(call, box))
    shell, environment = _shell(call.config), _environment(call.config)
    directory = call.config.get("working_dir") or call.config.get("cwd")
    ended: list[_Ended] = []
    for command in commands:
        ended.append(await _one(command, shell, environment, str(directory) if directory else None))
        code = ended[-1].returncode
        if code != 0:
            tail = ended[-1].stderr.strip()[-SHELL_ERROR_TAIL_CHARS:]
            text = f"command {len(ended)} of {len(commands)} ended with exit code {code}" + (
                f": {tail}" if tail else ""
            )
            raise ToolError(KIND, f"EXIT_{code}", text, data=_output(commands, ended))
    return _output(commands, ended)
