"""The supervisor with the real Postgres and NATS and a dummy in the place of every service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.dev import supervisor
from services.dev.postgres import run_psql
from services.dev.processes import http_status, process_start_time
from services.dev.supervisor import DevOptions, ReadyInfo, run_stack

DUMMY = """
import http.server, os, signal, sys
service = sys.argv[1]
if sys.argv[2:] == ["migrate"]:
    sys.exit(int(os.environ.get("DUMMY_MIGRATE_CODE", "0")))
if os.environ.get("DUMMY_BROKEN") == service:
    sys.exit("cannot find my head")
signal.signal(signal.SIGTERM, signal.SIG_IGN if os.environ.get("DUMMY_DEAF") == service else lambda *_: sys.exit(0))
port = os.environ["NOETL_PORT" if service == "api" else f"NOETL_{service.upper()}_METRICS_PORT"]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if os.environ.get("DUMMY_UNREADY") != service else 503)
        self.end_headers()
    def log_message(self, *_): pass
print("dummy of", service, "dsn" if "NOETL_POSTGRES_DSN" in os.environ else "no dsn", flush=True)
http.server.HTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
"""
NAMES = ["postgres", "nats", "api", "outbox", "orchestrator", "projector", "worker", "worker-2"]


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> Iterator[DevOptions]:
    monkeypatch.setattr(
        supervisor, "service_command", lambda service, *words: [sys.executable, "-c", DUMMY, service, *words]
    )
    with tempfile.TemporaryDirectory(prefix="playhead-test-") as made:
        directory = Path(made)
        directory.chmod(0o711)
        ready_file = directory / "ready.json"
        yield DevOptions(directory / "data", 0, 0, 0, workers=2, ready_file=ready_file, quiet=True)


class Running:
    def __init__(self, options: DevOptions) -> None:
        self.options = options
        self.stop = asyncio.Event()
        self.infos: list[ReadyInfo] = []
        self.code = -1
        self.pids: set[int] = set()

    def ready(self) -> dict[str, Any]:
        assert self.options.ready_file is not None
        return json.loads(self.options.ready_file.read_text())  # type: ignore[no-any-return]

    async def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - files and processes have no event
                await asyncio.sleep(0.02)

    async def run(self) -> None:
        self.code = await run_stack(self.options, self.stop, on_ready=self.infos.append)


@asynccontextmanager
async def running(options: DevOptions) -> AsyncIterator[Running]:
    stack = Running(options)
    async with asyncio.TaskGroup() as group:
        group.create_task(stack.run())
        try:
            await stack.until(lambda: bool(stack.infos) or stack.code >= 0)
            yield stack
        finally:
            if stack.infos:
                stack.pids |= set(stack.ready()["services"].values())
            stack.stop.set()


async def test_everything_starts_restarts_and_leaves_nothing_behind(options: DevOptions) -> None:
    assert options.ready_file is not None
    async with running(options) as stack:
        ready = stack.ready()
        assert list(ready["services"]) == NAMES
        assert options.ready_file.stat().st_mode & 0o777 == 0o600
        assert (await run_psql(ready["postgres_dsn"], "SELECT 1"))[1] == "1"
        assert await http_status(int(ready["api_url"].rpartition(":")[2]), "/readyz") == 200
        logs = {path.stem: path.read_text() for path in (options.data_dir / "logs").glob("*.log")}
        assert logs["api"] == "dummy of api dsn\n"
        assert logs["outbox"] == "dummy of outbox no dsn\n"
        for name in ("outbox", "postgres", "nats"):
            pid = stack.ready()["services"][name]
            os.kill(pid, signal.SIGKILL)
            await stack.until(lambda name=name, pid=pid: stack.ready()["services"][name] != pid)  # type: ignore[misc]
        async with asyncio.timeout(60):
            while (await run_psql(ready["postgres_dsn"], "SELECT 1"))[1] != "1":
                pass  # psql itself waits; the new server recovers meanwhile
        assert "outbox ended: signal SIGKILL" in (options.data_dir / "logs" / "playhead.log").read_text()
    assert stack.code == 0
    assert len(stack.infos) == 1
    assert [pid for pid in stack.pids if process_start_time(pid) is not None] == []
    assert not options.ready_file.exists()
    assert not (options.data_dir / "run" / "processes.json").exists()


async def test_the_second_start_keeps_the_secrets_and_the_data(options: DevOptions) -> None:
    def secrets() -> list[str]:
        return [(options.data_dir / name).read_text() for name in ("internal-api-token", "encryption-key")]

    async with running(options) as first:
        await run_psql(first.ready()["postgres_dsn"], "CREATE TABLE kept (n int)")
        before = secrets()
        assert (options.data_dir / "encryption-key").stat().st_mode & 0o777 == 0o600
    async with running(options) as second:
        assert (await run_psql(second.ready()["postgres_dsn"], "SELECT count(*) FROM kept"))[1] == "0"
        assert secrets() == before


async def test_a_deaf_service_does_not_hold_up_the_stop(options: DevOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUMMY_DEAF", "worker")
    async with running(options) as stack:
        pass
    assert [pid for pid in stack.pids if process_start_time(pid) is not None] == []


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("DUMMY_BROKEN", "projector", r"projector does not start(.|\n)*cannot find my head"),
        ("DUMMY_MIGRATE_CODE", "4", r"database cannot be migrated \(exit code 4\)"),
        ("DUMMY_UNREADY", "api", r"not ready after 15 s: api\n(.|\n)*dummy of api"),
    ],
)
async def test_what_does_not_start_is_named(
    options: DevOptions,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    said: str,
) -> None:

    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(supervisor, "READY_SECONDS_MAX", 15.0 if variable == "DUMMY_UNREADY" else 60.0)
    async with running(options) as stack:
        assert stack.code == 1
    assert re.search(said, capsys.readouterr().err)
    assert not (options.data_dir / "run" / "processes.json").exists()


async def test_a_port_in_use_is_named_with_its_option(options: DevOptions, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert await run_stack(replace(options, monitor_port=port), asyncio.Event()) == 1
    message = capsys.readouterr().err
    assert str(port) in message
    assert "--monitor-port" in message


async def test_a_second_stack_on_the_same_directory_is_refused(
    options: DevOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(options) as stack:
        assert await run_stack(options, asyncio.Event()) == 1
        assert f"pid {os.getpid()}" in capsys.readouterr().err
        assert stack.ready()


async def test_a_stop_in_the_middle_of_the_start_is_a_clean_stop(options: DevOptions) -> None:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run_stack(options, stop))
        async with asyncio.timeout(60):
            while not (options.data_dir / "postgres").exists():  # noqa: ASYNC110 - a directory has no event
                await asyncio.sleep(0.01)
        stop.set()
    assert task.result() == 0
    assert not (options.data_dir / "run" / "processes.json").exists()


async def test_a_cancelled_stack_stops_its_children_too(options: DevOptions) -> None:
    stack = Running(options)
    with contextlib.suppress(asyncio.CancelledError):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(stack.run())
            await stack.until(lambda: bool(stack.infos))
            pids = stack.ready()["services"].values()
            task.cancel()
    assert [pid for pid in pids if process_start_time(pid) is not None] == []
