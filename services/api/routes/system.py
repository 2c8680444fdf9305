"""The API process itself: what it uses, what its threads do, and its memory profile."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
import tempfile
import threading
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from aiohttp import web
from pydantic import BaseModel

from services.api.auth.roles import Access
from services.api.http import Call, HttpError, RouteTable, reply

routes = RouteTable("system")

MEBIBYTE = 1024 * 1024
NO_MEMRAY = "Memray is not installed. Install it to use memory profiler."
STACK_LINES_MAX = 100  # of each thread


class SystemFigures(BaseModel):
    """Of the machine."""

    cpu_percent: float
    memory_percent: float
    net_io_sent_mb: float
    net_io_recv_mb: float


class ProcessFigures(BaseModel):
    """Of this process; zero where the system does not tell."""

    pid: int
    cpu_percent: float
    user_cpu_time: float
    system_cpu_time: float
    memory_rss_mb: float
    memory_vms_mb: float
    memory_shared_mb: float
    num_threads: int
    io_read_mb: float
    io_write_mb: float


class StatusReply(BaseModel):
    """Answer of `GET /api/status`."""

    system: SystemFigures
    process: ProcessFigures


class ThreadReply(BaseModel):
    """One thread, with its stack from the outside in."""

    thread_id: int
    name: str
    is_alive: bool
    stack_trace: list[str]


class ProfilerReply(BaseModel):
    """Answer of `GET /api/profiler/status`."""

    memray_available: bool
    profiling_active: bool
    file_path: str | None
    start_time: datetime | None


class ReportReply(BaseModel):
    """Answer of `POST /api/profiler/memory/start`."""

    status: str
    message: str
    file_path: str | None


class MemoryProfiler:
    """At most one memory profile of this process."""

    def __init__(self) -> None:
        self._tracker: Any = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self.file: Path | None = None
        self.started_at: datetime | None = None

    @staticmethod
    def available() -> bool:
        """Whether Memray is installed."""
        return importlib.util.find_spec("memray") is not None

    def start(self) -> Path:
        """Begin a profile and return its file.

        Raises:
            HttpError: 503 without Memray, 409 when a profile is being made.
        """
        if not self.available():
            raise HttpError(503, NO_MEMRAY)
        if self._tracker is not None:
            raise HttpError(409, "a memory profile is being made; stop it first")
        import memray

        self._directory = tempfile.TemporaryDirectory(prefix="playhead-profile-")
        file = Path(self._directory.name) / f"memory-{os.getpid()}.bin"
        self._tracker = memray.Tracker(file)
        self._tracker.__enter__()
        self.file, self.started_at = file, datetime.now(UTC)
        return file

    def stop(self) -> bytes:
        """End the profile and return it.

        Raises:
            HttpError: 503 without Memray, 409 when none is being made.
        """
        if not self.available():
            raise HttpError(503, NO_MEMRAY)
        if self._tracker is None or self.file is None or self._directory is None:
            raise HttpError(409, "no memory profile is being made; start it first")
        self._tracker.__exit__(None, None, None)
        data = self.file.read_bytes()
        self._directory.cleanup()
        self._tracker = self._directory = self.file = self.started_at = None
        return data


def _figures() -> dict[str, Any]:
    process = psutil.Process()
    with process.oneshot():
        times, memory = process.cpu_times(), process.memory_info()
        io = process.io_counters() if hasattr(process, "io_counters") else None
        own = {
            "pid": process.pid,
            "cpu_percent": process.cpu_percent(),
            "user_cpu_time": times.user,
            "system_cpu_time": times.system,
            "memory_rss_mb": memory.rss / MEBIBYTE,
            "memory_vms_mb": memory.vms / MEBIBYTE,
            "memory_shared_mb": getattr(memory, "shared", 0) / MEBIBYTE,
            "num_threads": process.num_threads(),
            "io_read_mb": io.read_bytes / MEBIBYTE if io else 0.0,
            "io_write_mb": io.write_bytes / MEBIBYTE if io else 0.0,
        }
    net = psutil.net_io_counters()
    machine = {
        "cpu_percent": psutil.cpu_percent(),
        "memory_percent": psutil.virtual_memory().percent,
        "net_io_sent_mb": net.bytes_sent / MEBIBYTE if net else 0.0,
        "net_io_recv_mb": net.bytes_recv / MEBIBYTE if net else 0.0,
    }
    return {"system": machine, "process": own}


@routes.add("GET", "/api/status", "What machine and process use", role=Access.VIEWER, response=StatusReply)
async def status(_: Call) -> web.StreamResponse:
    """Answer figures of now; shares of CPU are since the question before."""
    return reply(await asyncio.to_thread(_figures))


@routes.add("GET", "/api/threads", "What the threads do", role=Access.ADMIN)
async def threads(_: Call) -> web.StreamResponse:
    """Answer every thread with its stack."""
    frames = sys._current_frames()
    found = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        stack = traceback.format_stack(frame)[-STACK_LINES_MAX:] if frame is not None else []
        found.append(
            {
                "thread_id": thread.ident or 0,
                "name": thread.name,
                "is_alive": thread.is_alive(),
                "stack_trace": stack,
            }
        )
    return reply(found)


@routes.add(
    "GET", "/api/profiler/status", "Is a memory profile being made?", role=Access.VIEWER, response=ProfilerReply
)
async def profiler_status(call: Call) -> web.StreamResponse:
    """Answer whether Memray is there and at work."""
    profiler = call.context.profiler
    started = profiler.started_at
    return reply(
        {
            "memray_available": profiler.available(),
            "profiling_active": profiler.file is not None,
            "file_path": None if profiler.file is None else str(profiler.file),
            "start_time": None if started is None else started.isoformat(),
        }
    )


@routes.add(
    "POST",
    "/api/profiler/memory/start",
    "Begin a memory profile",
    role=Access.ADMIN,
    response=ReportReply,
    errors=(409, 503),
)
async def profiler_start(call: Call) -> web.StreamResponse:
    """Begin to record allocations of this process into a file; it becomes slower."""
    file = call.context.profiler.start()
    return reply({"status": "success", "message": "Memory profiling started", "file_path": str(file)})


@routes.add(
    "POST",
    "/api/profiler/memory/stop",
    "End a memory profile and fetch it",
    role=Access.ADMIN,
    media_type="application/octet-stream",
    errors=(409, 503),
)
async def profiler_stop(call: Call) -> web.StreamResponse:
    """Answer the recording, for `memray flamegraph`."""
    data = call.context.profiler.stop()
    headers = {"Content-Disposition": 'attachment; filename="memory.bin"'}
    return web.Response(body=data, content_type="application/octet-stream", headers=headers)
