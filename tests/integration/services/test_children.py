"""Sub-playbooks between API and orchestrator: what starts, what ends, and that none starts without end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from services.orchestrator.orchestrator import Orchestrator
from tests.support.api import RunningApi, running_api
from tests.support.nats import NatsServer

CALLS_MAX = 6
SELF = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: selfish, path: services/selfish}
workflow:
  - step: start
    loop: {in: 3, iterator: n, spec: {mode: parallel}}
    tool: {kind: playbook, path: services/selfish, wait: WAIT}
"""
CHILD = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: child, path: services/child}
workflow:
  - step: start
    tool: {kind: noop}
"""
PARENT = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: parent, path: services/parent}
workflow:
  - step: start
    tool: {kind: playbook, path: services/child, wait: true}
"""


@pytest.fixture
async def api(database_dsn: str, nats_server: NatsServer) -> AsyncIterator[RunningApi]:
    async with running_api(database_dsn, nats_url=nats_server.url, noetl_recursive_calls_max=CALLS_MAX) as running:
        yield running


async def executions(dsn: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return list(
            await connection.fetch(
                "SELECT execution_id, parent_execution_id, status, error, decided_version < actionable_version AS undecided "
                "FROM noetl.execution ORDER BY execution_id"
            )
        )
    finally:
        await connection.close()


async def decide_all(api: RunningApi, dsn: str) -> list[asyncpg.Record]:
    """Decide until nothing is to be decided and nothing runs; the reconciler tells parents of their children."""
    orchestrator = Orchestrator(api.client, cache_max=100)
    async with asyncio.timeout(60):
        while True:
            await api.client.reconcile(100)
            rows = await executions(dsn)
            open_ids = [row["execution_id"] for row in rows if row["status"] == "RUNNING"]
            if not open_ids:
                return rows
            await orchestrator.reconcile(open_ids)


@pytest.mark.parametrize("wait", ["true", "false"])
async def test_a_playbook_that_calls_itself_many_times_over_is_stopped(
    api: RunningApi, database_dsn: str, wait: str
) -> None:
    execution = await api.start(SELF.replace("WAIT", wait))
    rows = await decide_all(api, database_dsn)
    assert len(rows) == 1 + CALLS_MAX
    failed = [row["status"] == "FAILED" for row in rows]
    assert all(failed) if wait == "true" else any(failed), "who waits for one that failed has failed"
    errors = " ".join(str(row["error"]) for row in rows)
    assert f"called themselves {CALLS_MAX} times below execution {execution}" in errors


async def test_an_execution_is_not_started_too_deep_by_hand(api: RunningApi) -> None:
    _, entry = await api.request("POST", "/api/catalog/register", {"content": CHILD})
    parent: str | None = None
    for _ in range(CALLS_MAX + 2):
        body: dict[str, Any] = {"catalog_id": entry["catalog_id"], "parent_execution_id": parent}
        status, answer = await api.request("POST", "/api/execute", body)
        if status != 200:
            break
        parent = answer["execution_id"]
    assert status == 422
    assert "parent_execution_id" in answer["detail"]


async def test_cancelling_a_parent_cancels_its_child_and_a_cancelled_child_fails_its_parent(
    api: RunningApi, database_dsn: str
) -> None:
    await api.request("POST", "/api/catalog/register", {"content": CHILD})
    first, second = await api.start(PARENT), await api.start(PARENT)
    rows = await executions(database_dsn)
    children = {row["parent_execution_id"]: row["execution_id"] for row in rows if row["parent_execution_id"]}
    await api.request("POST", f"/api/executions/{first}/cancel", {"cascade": False})
    await api.request("POST", f"/api/executions/{children[second]}/cancel")
    rows = await decide_all(api, database_dsn)
    status = {row["execution_id"]: row["status"] for row in rows}
    assert status == {first: "CANCELLED", children[first]: "CANCELLED", second: "FAILED", children[second]: "CANCELLED"}
    assert "was cancelled" in next(row["error"] for row in rows if row["execution_id"] == second)


async def test_a_child_and_its_command_are_one_transaction(api: RunningApi, database_dsn: str) -> None:
    await api.request("POST", "/api/catalog/register", {"content": CHILD})
    execution = await api.start(PARENT)
    log = await api.log(execution)
    command = next(item for item in log if item["event_type"] == "command.issued")
    rows = [row for row in await executions(database_dsn) if row["parent_execution_id"] == execution]
    assert len(rows) == 1
    status, answer = await api.request("POST", f"/api/commands/{command['event_id']}/claim", {"worker_id": "w1"})
    assert status == 409, "no worker runs it"
    assert answer["detail"]["code"] == "active_claim"


@pytest.mark.parametrize(
    ("version", "status"), [("1", "COMPLETED"), ("latest", "COMPLETED"), ("one", "FAILED"), ("99999", "FAILED")]
)
async def test_the_version_of_a_sub_playbook_is_read_as_that_of_an_execution(
    api: RunningApi, database_dsn: str, version: str, status: str
) -> None:
    await api.request("POST", "/api/catalog/register", {"content": CHILD})
    execution = await api.start(PARENT.replace("wait: true", f"wait: false, version: '{version}'"))
    rows = {row["execution_id"]: row for row in await decide_parent(api, database_dsn, execution)}
    assert rows[execution]["status"] == status
    if status == "FAILED":
        assert "version must be an integer from 1 to" in rows[execution]["error"]
        assert len(rows) == 1, "no other version is run instead"


async def decide_parent(api: RunningApi, dsn: str, execution: int) -> list[asyncpg.Record]:
    await Orchestrator(api.client, cache_max=10).reconcile([execution])
    return await executions(dsn)


async def test_a_path_that_the_database_refuses_fails_its_step_and_nobody_else(
    api: RunningApi, database_dsn: str
) -> None:
    await api.request("POST", "/api/catalog/register", {"content": CHILD})
    path = r"""'{{ "services/\x00child" }}'"""
    refused = await api.start(PARENT.replace("services/child", path).replace("wait: true", "wait: false"))
    neighbour = await api.start(PARENT.replace("wait: true", "wait: false"))
    await Orchestrator(api.client, cache_max=10).reconcile([refused, neighbour])
    status = {row["execution_id"]: row["status"] for row in await executions(database_dsn)}
    assert (status[refused], status[neighbour]) == ("FAILED", "COMPLETED")
