"""A Python module run in a process of its own for one job: killed with all it started when the call ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from services.worker.limits import CHILD_EXIT_SECONDS, HTTP_CHUNK_BYTES
from services.worker.tools.base import ToolError, child_environment
from services.worker.tools.limits import CHILD_ERROR_TAIL_BYTES

_ROOT = str(Path(__file__).resolve().parents[3])  # where `services` is found, installed or not


async def _tail(stream: asyncio.StreamReader) -> bytes:
    kept = b""
    chunk = await stream.read(HTTP_CHUNK_BYTES)
    while chunk:
        kept = (kept + chunk)[-CHILD_ERROR_TAIL_BYTES:]
        chunk = await stream.read(HTTP_CHUNK_BYTES)
    return kept


async def _bounded(stream: asyncio.StreamReader, limit: int, kind: str) -> bytes:
    body = bytearray()
    chunk = await stream.read(HTTP_CHUNK_BYTES)
    while chunk:
        body += chunk
        if len(body) > limit:
            raise ToolError(kind, "RESULT_TOO_LARGE", f"the answer of the {kind} process is over {limit} bytes")
        chunk = await stream.read(HTTP_CHUNK_BYTES)
    return bytes(body)


async def _send(stream: asyncio.StreamWriter, job: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died: its exit code says more
        stream.write(job)
        await stream.drain()
        stream.close()


async def run_child(module: str, job: bytes, *, kind: str, answer_max_bytes: int) -> bytes:
    """Run `python -m module <our pid>` with `job` on its standard input, and return its standard output.

    Raises:
        ToolError: it cannot be started, died, or answers more than `answer_max_bytes`.
    """
    environment = child_environment()
    environment["PYTHONPATH"] = os.pathsep.join(path for path in (environment.get("PYTHONPATH", ""), _ROOT) if path)
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", module, str(os.getpid())),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise ToolError(
            kind, "PROCESS_START", f"no {kind} process could be started: {error}", retryable=True
        ) from error
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_send(process.stdin, job))
            answer = group.create_task(_bounded(process.stdout, answer_max_bytes, kind))
            errors = group.create_task(_tail(process.stderr))
            code = await process.wait()
    except* ToolError as failures:
        raise failures.exceptions[0] from None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHILD_EXIT_SECONDS):
                await process.wait()
    if code != 0 or not answer.result():
        last = errors.result().decode(errors="replace").strip().rsplit("\n", 1)[-1]
        text = f"the {kind} process died with exit code {code}" + (f": {last}" if last else "")
        raise ToolError(kind, "PROCESS_DIED", text, retryable=True)
    return answer.result()
