"""Warm child processes for python tools; a child that hangs, dies or grows old is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from services.worker.jsontext import encoded as json_bytes
from services.worker.limits import CHILD_EXIT_SECONDS, CHILD_RUNS_MAX, CHILD_START_SECONDS, RESPONSE_OVERHEAD_BYTES
from services.worker.metrics import CHILDREN_REPLACED
from services.worker.python_child import LENGTH
from services.worker.tools.base import ToolError, child_environment

log = logging.getLogger(__name__)

_ROOT = str(Path(__file__).resolve().parents[2])  # where `services` is found, installed or not


class ChildDiedError(Exception):
    """The child ended in the middle of a job."""


class _Child:
    """One process and its two pipes."""

    def __init__(self, process: Process, frame_max_bytes: int) -> None:
        self._process = process
        self._frame_max = frame_max_bytes
        self.runs = 0

    @classmethod
    async def start(cls, memory_bytes: int, frame_max_bytes: int) -> _Child:
        environment = child_environment()
        paths = [environment.get("PYTHONPATH", ""), _ROOT]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # the working directory is not searched for modules
            "-m",
            "services.worker.python_child",
            str(os.getpid()),
            str(memory_bytes),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env=environment,
            start_new_session=True,
        )
        child = cls(process, frame_max_bytes)
        try:
            async with asyncio.timeout(CHILD_START_SECONDS):
                await child._read()
        except BaseException:
            await child.kill()
            raise
        return child

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode

    async def ask(self, job: bytes) -> dict[str, Any]:
        assert self._process.stdin is not None
        self.runs += 1
        try:
            self._process.stdin.write(LENGTH.pack(len(job)) + job)
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ChildDiedError from error
        answer: dict[str, Any] = orjson.loads(await self._read())
        return answer

    async def _read(self) -> bytes:
        assert self._process.stdout is not None
        try:
            (length,) = LENGTH.unpack(await self._process.stdout.readexactly(LENGTH.size))
            if length > self._frame_max:
                raise ChildDiedError
            return await self._process.stdout.readexactly(length)
        except asyncio.IncompleteReadError as error:
            raise ChildDiedError from error

    async def kill(self) -> None:
        """Kill the child and what it started, and wait until it is reaped."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHILD_EXIT_SECONDS):
                await self._process.wait()


class PythonPool:
    """Runs jobs in `processes` children, each with `memory_bytes` of address space. An async context manager."""

    def __init__(self, *, processes: int, memory_bytes: int, result_max_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._result_max_bytes = result_max_bytes
        self._processes = processes
        self._slots: asyncio.LifoQueue[_Child | None] = asyncio.LifoQueue(processes)
        self._living: set[_Child] = set()

    async def __aenter__(self) -> PythonPool:
        async with asyncio.TaskGroup() as group:
            starting = [group.create_task(self._start()) for _ in range(self._processes)]
        for task in starting:
            self._slots.put_nowait(task.result())
        return self

    async def __aexit__(self, *_: object) -> None:
        async with asyncio.TaskGroup() as group:
            for child in list(self._living):
                group.create_task(child.kill())
        self._living.clear()

    @property
    def pids(self) -> list[int]:
        """Process ids of the children that live now."""
        return [child._process.pid for child in self._living if child.is_alive]

    async def run(self, job: Mapping[str, Any], timeout_seconds: float) -> dict[str, Any]:
        """Run a job (see `python_child`) in the next free child; cancelling the caller kills that child.

        The time limit starts when a child is free.

        Raises:
            TimeoutError: the job took longer; its child is killed.
            ToolError: the child died, as it does when memory runs out in native code.
        """
        body = json_bytes({**job, "result_max_bytes": self._result_max_bytes})
        child = await self._slots.get()
        keep: _Child | None = None
        try:
            if child is None or not child.is_alive:
                old, child = child, None
                child = await self._replaced(old)
            async with asyncio.timeout(timeout_seconds):
                answer = await child.ask(body)
            keep = child
        except ChildDiedError as error:
            code = child.exit_code if child else None
            text = "the python process died" + (f" with exit code {code}" if code is not None else "")
            raise ToolError("python", "PROCESS_DIED", text, retryable=True) from error
        finally:
            if keep is not None and keep.runs >= CHILD_RUNS_MAX:
                CHILDREN_REPLACED.labels(reason="old").inc()
                keep = None
            self._slots.put_nowait(keep)
            if keep is None and child is not None:
                self._living.discard(child)
                await child.kill()
        return answer

    async def _start(self) -> _Child:
        child = await _Child.start(self._memory_bytes, self._result_max_bytes + RESPONSE_OVERHEAD_BYTES)
        self._living.add(child)
        return child

    async def _replaced(self, old: _Child | None) -> _Child:
        if old is not None:
            self._living.discard(old)
            await old.kill()
        CHILDREN_REPLACED.labels(reason="died" if old else "stopped").inc()
        try:
            return await self._start()
        except (ChildDiedError, OSError, TimeoutError) as error:
            text = f"no python process could be started: {type(error).__name__}"
            raise ToolError("python", "PROCESS_START", text, retryable=True) from error
