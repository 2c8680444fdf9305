"""`playhead dev` in a process of its own, in a temporary directory, on free ports."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS_MAX = 90.0
STOP_SECONDS_MAX = 15.0
END_SECONDS_MAX = 90.0
POLL_SECONDS = 0.05
TERMINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED"})


class Stack:
    """The whole stack as a user runs it."""

    def __init__(self, *, workers: int = 1, env: Mapping[str, str] | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="playhead-stack-"))
        self.directory.chmod(0o711)  # run by root, Postgres is another user
        self.data_dir = self.directory / "data"
        self._ready_file = self.directory / "ready.json"
        self._workers = workers
        self._env = {**os.environ, **(env or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self.session: aiohttp.ClientSession | None = None

    def command(self) -> list[str]:
        """Return the command line."""
        words = [sys.executable, "-m", "services.dev.cli", "dev", "--quiet", "--data-dir", str(self.data_dir)]
        words += ["--port", "0", "--nats-port", "0", "--monitor-port", "0", "--workers", str(self._workers)]
        return [*words, "--ready-file", str(self._ready_file)]

    async def start(self) -> None:
        """Start and wait until everything is ready."""
        with (self.directory / "dev.log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), cwd=ROOT, env=self._env, stdout=log, stderr=log)  # noqa: ASYNC220
        async with asyncio.timeout(READY_SECONDS_MAX):
            while not self._ready_file.exists():
                assert self.process.poll() is None, self.logs()
                await asyncio.sleep(POLL_SECONDS)
        self.session = aiohttp.ClientSession()

    @property
    def ready(self) -> dict[str, Any]:
        """The ready file as it is now."""
        document: dict[str, Any] = json.loads(self._ready_file.read_text())
        return document

    @property
    def is_ready(self) -> bool:
        """Whether the ready file is there."""
        return self._ready_file.exists()

    @property
    def url(self) -> str:
        """The API."""
        return str(self.ready["api_url"])

    def token(self) -> str:
        """The bearer token of the internal routes."""
        return Path(self.ready["internal_api_token_file"]).read_text().strip()

    def logs(self) -> str:
        """Return the ends of all logs, for failure messages."""
        files = [self.directory / "dev.log", *sorted((self.data_dir / "logs").glob("*.log"))]
        return "\n".join(
            f"== {file.name}\n{file.read_text(errors='replace')[-2000:]}" for file in files if file.exists()
        )

    def kill(self, service: str) -> int:
        """SIGKILL one service and return the pid it had."""
        pid = int(self.ready["services"][service])
        os.kill(pid, signal.SIGKILL)
        return pid

    async def until_restarted(self, service: str, old_pid: int) -> None:
        """Wait until the supervisor has replaced a killed service."""
        async with asyncio.timeout(READY_SECONDS_MAX):
            while self.ready["services"].get(service) in (None, old_pid):  # noqa: ASYNC110 - a file has no event
                await asyncio.sleep(POLL_SECONDS)

    async def request(self, method: str, path: str, body: object = None, **options: Any) -> tuple[int, Any]:
        """Return status and JSON of one request; a connection that breaks because the API restarts is tried again."""
        assert self.session is not None
        async with asyncio.timeout(END_SECONDS_MAX):
            while True:
                try:
                    async with self.session.request(method, self.url + path, json=body, **options) as response:
                        answer = await response.json(content_type=None)
                    if response.status != 503:
                        return response.status, answer
                except (aiohttp.ClientError, OSError, json.JSONDecodeError, FileNotFoundError):
                    pass
                await asyncio.sleep(POLL_SECONDS)

    async def register(self, content: str) -> str:
        """Register a playbook and return its catalog id."""
        status, answer = await self.request("POST", "/api/catalog/register", {"content": content})
        assert status == 200, answer
        return str(answer["catalog_id"])

    async def execute(self, catalog_id: str, payload: dict[str, Any] | None = None) -> str:
        """Start an execution and return its id."""
        body = {"catalog_id": catalog_id, "payload": payload or {}}
        status, answer = await self.request("POST", "/api/execute", body)
        assert status == 200, answer
        return str(answer["execution_id"])

    async def until_ended(self, execution_id: str) -> dict[str, Any]:
        """Wait for a terminal status and return the status document."""
        async with asyncio.timeout(END_SECONDS_MAX):
            while True:
                status, answer = await self.request("GET", f"/api/executions/{execution_id}/status")
                assert status == 200, answer
                if answer["status"] in TERMINAL:
                    document: dict[str, Any] = answer
                    return document
                await asyncio.sleep(POLL_SECONDS)

    async def events(self, execution_id: str) -> list[dict[str, Any]]:
        """Return every event in log order."""
        found: list[dict[str, Any]] = []
        page = 1
        while True:
            path = f"/api/executions/{execution_id}/events?page={page}&page_size=500"
            status, answer = await self.request("GET", path)
            assert status == 200, answer
            found += answer["events"]
            if not answer["pagination"]["has_next"]:
                return found[::-1]
            page += 1

    async def until_rows(self, sql: str, *arguments: object, count: int) -> list[asyncpg.Record]:
        """Return the rows of a query once there are `count` of them."""
        connection = await asyncpg.connect(self.ready["postgres_dsn"])
        try:
            async with asyncio.timeout(END_SECONDS_MAX):
                while True:
                    rows = await connection.fetch(sql, *arguments)
                    if len(rows) == count:
                        return list(rows)
                    await asyncio.sleep(POLL_SECONDS)
        finally:
            await connection.close()

    async def sql(self, sql: str, *arguments: object) -> None:
        """Run one statement."""
        connection = await asyncpg.connect(self.ready["postgres_dsn"])
        try:
            await connection.execute(sql, *arguments)
        finally:
            await connection.close()

    async def stop(self) -> int:
        """SIGTERM the supervisor and return its exit code."""
        if self.session is not None:
            await self.session.close()
            self.session = None
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, STOP_SECONDS_MAX)

    async def close(self) -> None:
        """Stop and delete everything."""
        if self.process is not None and self.process.poll() is None:
            await self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
