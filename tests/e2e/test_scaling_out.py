"""Every service runs more than once: executions complete as with one of each, each step once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping

import aiohttp
import pytest

from services.dev.processes import free_port
from tests.e2e.playbooks import DIAMOND
from tests.e2e.test_nothing_is_lost import SHORT_LEASES, check
from tests.support.stack import ROOT, Stack

EXECUTIONS = 40
READY_SECONDS_MAX = 30
STOP_SECONDS_MAX = 15


def spawn(service: str, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "services.dev.cli", service],
        cwd=ROOT,
        env={**os.environ, **SHORT_LEASES, **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture
async def doubled() -> AsyncIterator[tuple[Stack, str]]:
    """A stack, and a second process of every service, which use a second API; its URL."""
    stack = Stack(env=SHORT_LEASES)
    await stack.start()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    common = {"NATS_URL": stack.ready["nats_url"], "NOETL_INTERNAL_API_TOKEN": stack.token(), "NOETL_SERVER_URL": url}
    database = {
        "NOETL_POSTGRES_DSN": stack.ready["postgres_dsn"],
        "NOETL_PORT": str(port),
        "NOETL_ENCRYPTION_KEY_FILE": str(stack.data_dir / "encryption-key"),
    }
    processes = [spawn("api", {**common, **database})]
    processes += [
        spawn(name, {**common, f"NOETL_{name.upper()}_METRICS_PORT": "0"})
        for name in ("outbox", "orchestrator", "orchestrator", "projector", "worker")
    ]
    async with asyncio.timeout(READY_SECONDS_MAX), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url + "/readyz") as response:
                    if response.status == 200:
                        break
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)
    yield stack, url
    for process in processes:
        process.terminate()
    codes = [await asyncio.to_thread(process.wait, STOP_SECONDS_MAX) for process in processes]
    await stack.close()
    assert codes == [0] * len(processes)


@pytest.mark.timeout(240)
async def test_two_of_everything_do_what_one_does(doubled: tuple[Stack, str]) -> None:
    stack, second = doubled
    catalog_id = await stack.register(DIAMOND)
    found: list[str] = []

    async def run(url: str) -> None:
        assert stack.session is not None
        async with stack.session.post(url + "/api/execute", json={"catalog_id": catalog_id}) as response:
            execution_id = (await response.json())["execution_id"]
        found.append(execution_id)
        assert (await stack.until_ended(execution_id))["status"] == "COMPLETED"

    async with asyncio.TaskGroup() as group:
        for number in range(EXECUTIONS):
            group.create_task(run(second if number % 2 else stack.url))
    assert len(found) == EXECUTIONS
    await check(stack, found)
    rows = await stack.until_rows("SELECT name FROM noetl.runtime WHERE status = 'ready'", count=2)
    assert len({row["name"] for row in rows}) == 2
