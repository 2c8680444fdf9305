"""Starts: options, duplicates, batches and reruns."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from tests.e2e.playbooks import CHOICE, LINEAR
from tests.support.api import RunningApi, running_api

AGENT = LINEAR.replace("kind: Playbook", "kind: Agent").replace("e2e/linear", "e2e/agent")
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}


@pytest.fixture
def api(shared_api: RunningApi) -> RunningApi:
    """One API for all of these tests."""
    return shared_api


async def register(api: RunningApi, text: str = LINEAR) -> str:
    status, entry = await api.request("POST", "/api/catalog/register", {"content": text})
    assert status == 200, entry
    return str(entry["catalog_id"])


async def execute(api: RunningApi, **body: Any) -> dict[str, Any]:
    status, answer = await api.request("POST", "/api/execute", body)
    assert status == 200, answer
    return dict(answer)


async def test_a_path_of_digits_is_a_catalog_id_unless_it_is_a_path(api: RunningApi) -> None:
    catalog_id = await register(api)
    started = await execute(api, path=catalog_id)
    _, shown = await api.request("GET", f"/api/executions/{started['execution_id']}")
    assert shown["catalog_id"] == catalog_id
    other = await register(api, CHOICE.replace("path: e2e/choice", f"path: '{catalog_id}'"))
    started = await execute(api, path=catalog_id)
    _, shown = await api.request("GET", f"/api/executions/{started['execution_id']}")
    assert shown["catalog_id"] == other
    status, answer = await api.request("POST", "/api/execute", {"path": "766785101903429634"})
    assert (status, answer) == (404, {"detail": "Executable catalog entry not found: 766785101903429634"})


async def test_a_resource_kind_picks_playbook_or_agent(api: RunningApi) -> None:
    await register(api)
    await register(api, AGENT)
    assert (await execute(api, path="e2e/linear", resource_kind="Playbook"))["status"] == "started"
    assert (await execute(api, path="e2e/agent", resource_kind="agents"))["status"] == "started"
    assert (await api.request("POST", "/api/execute", {"path": "e2e/agent", "resource_kind": "playbook"}))[0] == 404
    wrong = await api.request("POST", "/api/execute", {"path": "e2e/linear", "resource_kind": "mcp"})
    assert wrong == (422, {"detail": "Catalog kind 'mcp' is not executable"})


async def test_trace_and_pool_are_kept_on_the_first_event_and_commands_go_to_the_pool(database_dsn: str) -> None:
    async with running_api(database_dsn, noetl_command_routing_enabled=True) as api:
        await register(api)
        execution = int((await execute(api, path="e2e/linear", trace=TRACE, execution_pool="gpu"))["execution_id"])
        first = (await api.log(execution))[0]
        assert first["meta"]["trace"] == TRACE
        assert first["meta"]["execution_pool"] == "gpu"
        connection = await asyncpg.connect(database_dsn)
        subjects = await connection.fetch(
            "SELECT subject FROM noetl.outbox WHERE execution_id = $1 AND subject LIKE 'noetl.commands%'", execution
        )
        await connection.close()
    assert [row["subject"] for row in subjects] == [f"noetl.commands.gpu.{execution}"]


async def test_of_many_starts_under_one_key_one_runs(api: RunningApi) -> None:
    catalog_id = await register(api)
    dedup = {"key": "message-1", "window_secs": 60}
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(execute(api, path="e2e/linear", dedup=dedup)) for _ in range(12)]
    answers = [task.result() for task in tasks]
    assert len({item["execution_id"] for item in answers}) == 1
    assert sorted(item["status"] for item in answers) == ["duplicate"] * 11 + ["started"]
    assert {item["commands_generated"] for item in answers if item["status"] == "duplicate"} == {0}
    _, listed = await api.request("GET", "/api/executions")
    assert [item["catalog_id"] for item in listed].count(catalog_id) == 1


async def test_a_key_counts_within_its_parent_and_its_window(api: RunningApi) -> None:
    await register(api)
    dedup = {"key": "k"}
    first = await execute(api, path="e2e/linear", dedup=dedup)
    under = await execute(api, path="e2e/linear", dedup=dedup, parent_execution_id=first["execution_id"])
    assert under["status"] == "started"
    connection = await asyncpg.connect(api.dsn)
    await connection.execute("UPDATE noetl.subscription_dedup SET seen_at = seen_at - interval '301 s'")
    await connection.close()
    again = await execute(api, path="e2e/linear", dedup=dedup)
    assert (again["status"], again["execution_id"] != first["execution_id"]) == ("started", True)
    assert (await execute(api, path="e2e/linear", dedup=dedup))["execution_id"] == again["execution_id"]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"dedup": {"key": ""}}, ["body", "dedup", "key"]),
        ({"dedup": {"key": "k", "window_secs": 0}}, ["body", "dedup", "window_secs"]),
        ({"dedup": {"key": "k", "window_secs": 10**9}}, ["body", "dedup", "window_secs"]),
        ({"dedup": "k"}, ["body", "dedup"]),
        ({"execution_pool": "a.b"}, ["body", "execution_pool"]),
        ({"trace": {"traceparent": 5}}, ["body", "trace", "traceparent"]),
        ({"trace": []}, ["body", "trace"]),
        ({"payload": []}, ["body", "payload"]),
    ],
)
async def test_a_wrong_option_is_named(api: RunningApi, body: dict[str, Any], place: list[str]) -> None:
    status, answer = await api.request("POST", "/api/execute", {"path": "e2e/linear", **body})
    assert (status, answer["detail"][0]["loc"]) == (422, place)


async def test_a_batch_starts_what_is_right_and_says_what_is_not(api: RunningApi) -> None:
    await register(api)
    dedup = {"key": "same"}
    items: list[dict[str, Any]] = [
        {"path": "e2e/linear", "payload": {"name": "A"}, "dedup": dedup},
        {"path": "no/where"},
        {"path": "e2e/linear", "dedup": dedup},
        {"path": "e2e/linear", "version": "x"},
        {},
        {"path": "e2e/linear", "dedup": {"key": 5}},
    ]
    status, answer = await api.request("POST", "/api/execute/batch", {"executions": items})
    assert status == 200
    assert {key: answer[key] for key in ("count", "started", "duplicates", "failed")} == {
        "count": 6,
        "started": 1,
        "duplicates": 1,
        "failed": 4,
    }
    results = answer["results"]
    assert [item["index"] for item in results] == list(range(6))
    assert [item["status"] for item in results] == ["started", "error", "duplicate", "error", "error", "error"]
    assert results[2]["execution_id"] == results[0]["execution_id"]
    assert "execution_id" not in results[1]
    assert "error" not in results[0]
    errors = [item["error"] for item in results if item["status"] == "error"]
    assert errors[0] == "Executable catalog entry not found: no/where"
    assert errors[1].startswith("version: ")
    assert "Either 'path' or 'catalog_id' must be provided" in errors[2]
    assert errors[3].startswith("dedup.key: ")


async def test_a_batch_has_one_to_a_thousand_items(api: RunningApi) -> None:
    for body in ({}, {"executions": []}):
        assert await api.request("POST", "/api/execute/batch", body) == (
            422,
            {"detail": "execute batch requires a non-empty 'executions' array"},
        )
    status, answer = await api.request("POST", "/api/execute/batch", {"executions": [{}] * 1001})
    assert (status, answer["detail"]) == (422, "execute batch size 1001 exceeds the 1000 cap")
    status, answer = await api.request("POST", "/api/execute/batch", {"executions": ["x"]})
    assert (status, answer["detail"][0]["loc"]) == (422, ["body", "executions", 0])


async def test_a_rerun_repeats_the_version_and_the_workload_of_the_run(api: RunningApi) -> None:
    catalog_id = await register(api)
    _, entry = await api.request("POST", "/api/catalog/resource", {"catalog_id": catalog_id})
    before = (await execute(api, path="e2e/linear", payload={"name": "Ada", "nested": {"a": 5}}))["execution_id"]
    await register(api)
    cli = {"workload": {}, "resource_kind": "playbook"}
    status, again = await api.request("POST", f"/api/executions/{before}/rerun", cli)
    assert (status, again["status"], again["commands_generated"]) == (200, "started", 1)
    assert again["execution_id"] != before
    first = (await api.log(int(again["execution_id"])))[0]
    assert first["context"]["result"]["workload"] == {"name": "Ada", "nested": {"a": 5}}
    assert first["meta"]["rerun_of"] == before
    _, shown = await api.request("GET", f"/api/executions/{again['execution_id']}")
    assert (shown["catalog_id"], shown["version"]) == (catalog_id, entry["version"])
    _, changed = await api.request("POST", f"/api/executions/{before}/rerun", {"workload": {"nested": {"b": 9}}})
    first = (await api.log(int(changed["execution_id"])))[0]
    assert first["context"]["result"]["workload"] == {"name": "Ada", "nested": {"b": 9}}


async def test_a_rerun_needs_an_execution_and_a_kind_that_runs(api: RunningApi) -> None:
    assert await api.request("POST", "/api/executions/111/rerun") == (404, {"detail": "Execution 111 not found"})
    await register(api)
    before = (await execute(api, path="e2e/linear"))["execution_id"]
    path = f"/api/executions/{before}/rerun"
    assert (await api.request("POST", path))[0] == 200
    assert (await api.request("POST", path, {"resource_kind": "mcp"}))[0] == 422
    status, answer = await api.request("POST", path, {"workload": "x"})
    assert (status, answer["detail"][0]["loc"]) == (422, ["body", "workload"])
