"""The worker's own `main` against the real API, orchestrator, outbox and NATS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.worker.app import main
from shared.platform.settings import WorkerSettings
from tests.support.api import RunningApi, running_api
from tests.support.nats import NatsServer
from tests.support.original_workers import WAIT_SECONDS_MAX, services_running

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: p, path: worker/%s}\nworkflow:\n"
NOOP = HEAD % "noop" + "  - {step: start, tool: {kind: noop}}\n"
WAITING = (
    HEAD % "waiting"
    + """
  - step: start
    tool:
      - name: once
        kind: python
        code: "raise ValueError('not yet')"
        spec: {policy: {rules: [{when: "{{ output.status == 'error' }}", then: {do: retry, backoff: fixed, delay: 3600}}]}}
"""
)
BLOCKED = (
    HEAD % "blocked"
    + "  - {step: start, tool: {kind: shell, cmd: 'until [ -e %s ]; do sleep 0.05; done; echo done'}}\n"
)
LARGE = (
    HEAD % "large"
    + """
  - step: start
    tool:
      - {name: make, kind: python, code: "result = {'count': 3, 'rows': [{'id': n, 'text': 'x' * 2000} for n in range(3)]}"}
      - name: keep
        kind: python
        input: {rows: "{{ make.rows }}"}
        code: "result = {'n': len(rows), 'rows': rows}"
        spec: {policy: {rules: [{then: {do: continue, set: {ctx.first: "{{ output.data.rows[0].id }}"}}}]}}
    output: {select: [{path: "rows[2].id", as: last}]}
    next: {arcs: [{step: use}]}
  - step: use
    tool:
      - name: look
        kind: python
        input: {n: "{{ start.n }}", first: "{{ ctx.first }}", last: "{{ start.last }}", text: "{{ start.rows[1].text }}",
                made: "{{ start.results.make.count }}"}
        code: "result = {'seen': [n, first, last, len(text), made]}"
"""
)
TOO_LARGE = HEAD % "too-large" + "  - {step: start, tool: {kind: python, code: \"result = 'x' * 3_000_000\"}}\n"
POOLS = (
    HEAD % "pools"
    + """
  - step: start
    tool: {kind: noop}
    next: {arcs: [{step: special}]}
  - step: special
    execution_pool: gpu
    tool: {kind: noop}
    next: {arcs: [{step: tasks}]}
  - step: tasks
    tool: [{name: one, kind: noop}]
"""
)


class Platform:
    """Everything but workers, and workers on demand."""

    def __init__(self, api: RunningApi, nats: NatsServer, directory: Path) -> None:
        self.api = api
        self._nats = nats
        self._directory = directory

    @asynccontextmanager
    async def worker(self, **values: Any) -> AsyncIterator[asyncio.Event]:
        """Run a worker until the block is left; yields what stops it earlier."""
        settings = WorkerSettings(
            nats_url=self._nats.url,
            noetl_server_url=self.api.url,
            noetl_worker_metrics_port=0,
            noetl_worker_python_processes=1,
            noetl_worker_data_dir=str(self._directory / "data"),
            **{"noetl_shutdown_seconds": 2.0, **values},
        )
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(main(settings, stop))
            try:
                yield stop
            finally:
                stop.set()

    async def ended(self, execution: int) -> dict[str, Any]:
        """Wait for the end of an execution and return its status."""
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while True:
                _, status = await self.api.request("GET", f"/api/executions/{execution}/status")
                if status["status"] in ("COMPLETED", "FAILED", "CANCELLED"):
                    return dict(status)
                await asyncio.sleep(0.05)

    async def until(self, execution: int, event_type: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until the log has so many events of a type, and return them."""
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while True:
                found = [item for item in await self.api.log(execution) if item["event_type"] == event_type]
                if len(found) >= count:
                    return found
                await asyncio.sleep(0.05)


@pytest.fixture
async def platform(database_dsn: str, own_nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Platform]:
    async with (
        running_api(database_dsn, nats_url=own_nats_server.url, noetl_command_reaper_pending_retry_seconds=1.0) as api,
        services_running(api, own_nats_server),
    ):
        yield Platform(api, own_nats_server, tmp_path)


@pytest.fixture
async def routed(database_dsn: str, own_nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Platform]:
    async with (
        running_api(database_dsn, nats_url=own_nats_server.url, noetl_command_routing_enabled=True) as api,
        services_running(api, own_nats_server),
    ):
        yield Platform(api, own_nats_server, tmp_path)


async def test_a_retry_that_sleeps_blocks_nobody_and_ends_with_its_execution(platform: Platform) -> None:
    """Given a worker for one command at once, when a task waits an hour for its retry, then others run and a cancel ends it."""
    async with platform.worker(noetl_worker_max_inflight_commands=1):
        waiting = await platform.api.start(WAITING)
        await platform.until(waiting, "command.started")
        for _ in range(2):
            assert (await platform.ended(await platform.api.start(NOOP)))["status"] == "COMPLETED"
        await platform.api.request("POST", f"/api/executions/{waiting}/cancel", {})
        (late,) = await platform.until(waiting, "call.error")
    assert late["context"]["response"]["code"] == "CANCELLED"
    assert (await platform.ended(waiting))["status"] == "CANCELLED"


async def test_a_worker_that_stops_hands_its_command_to_another(platform: Platform, tmp_path: Path) -> None:
    flag = tmp_path / "go"
    async with platform.worker(worker_id="first", noetl_shutdown_seconds=1.0) as stop:
        execution = await platform.api.start(BLOCKED % flag)
        await platform.until(execution, "command.started")
        stop.set()
    flag.touch()
    async with platform.worker(worker_id="second"):
        assert (await platform.ended(execution))["status"] == "COMPLETED"
    claims = await platform.until(execution, "command.claimed", 2)
    assert [claim["worker_id"] for claim in claims] == ["first", "second"]
    assert len(await platform.until(execution, "call.done")) == 1


async def test_a_large_sequence_is_stored_and_every_part_of_it_is_reached(platform: Platform) -> None:
    async with platform.worker(noetl_inline_max_bytes=4096):
        execution = await platform.api.start(LARGE)
        assert (await platform.ended(execution))["status"] == "COMPLETED"
    first, second = await platform.until(execution, "call.done", 2)
    assert first["result"]["reference"]["type"] == "result_ref"
    assert "rows" not in first["result"]["context"]
    assert second["context"]["response"]["_prev"] == {"seen": [3, 0, 2, 2000, 3]}


async def test_an_output_over_the_limit_fails_its_step_and_nothing_else(platform: Platform) -> None:
    async with platform.worker(noetl_worker_result_max_bytes=1_000_000):
        large = await platform.api.start(TOO_LARGE)
        status = await platform.ended(large)
        assert (status["status"], "at most 1000000 are allowed" in str(status["error"])) == ("FAILED", True)
        assert (await platform.ended(await platform.api.start(NOOP)))["status"] == "COMPLETED"


async def test_each_step_runs_in_its_pool(routed: Platform) -> None:
    routing = {"noetl_command_routing_enabled": True}
    async with (
        routed.worker(worker_id="any", **routing),
        routed.worker(worker_id="special", noetl_worker_pool_name="gpu", **routing),
    ):
        execution = await routed.api.start(POOLS)
        assert (await routed.ended(execution))["status"] == "COMPLETED"
    claims = await routed.until(execution, "command.claimed", 3)
    assert [(claim["node_name"], claim["worker_id"]) for claim in claims] == [
        ("start", "any"),
        ("special", "special"),
        ("tasks:task_sequence", "any"),
    ]


async def test_a_step_over_its_time_frees_its_worker(platform: Platform) -> None:
    """Given a worker for one command at once, when a step's time is over, then its tool is stopped and others run."""
    slow = "  - {step: start, spec: {timeout: 1}, tool: {kind: shell, cmd: 'sleep 3600', timeout: 3600}}\n"
    async with platform.worker(noetl_worker_max_inflight_commands=1):
        execution = await platform.api.start(HEAD % "slow" + slow)
        assert (await platform.ended(execution))["status"] == "FAILED"
        assert (await platform.ended(await platform.api.start(NOOP)))["status"] == "COMPLETED"
