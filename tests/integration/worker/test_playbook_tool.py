"""The playbook and agent tools against a loopback API."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.worker.slots import Slots
from services.worker.tools import ToolBox, ToolCall, ToolError, run_tool
from tests.integration.worker.conftest import EXECUTION, Call, FakeApi

CHILD = 901


def status(state: str, **more: Any) -> tuple[int, dict[str, Any]]:
    return 200, {"execution_id": str(CHILD), "status": state, "completed_steps": ["start"], "variables": {}, **more}


def child(api: FakeApi, *states: str, result: Any = None, error: str | None = None) -> None:
    api.answers["POST /api/execute"] = [
        (200, {"execution_id": str(CHILD), "status": "started", "commands_generated": 1})
    ]
    api.answers[f"GET /api/executions/{CHILD}/status"] = [status(state, error=error) for state in states]
    detail = {
        "execution_id": str(CHILD),
        "path": "a/b",
        "version": 3,
        "result": {"status": "COMPLETED", "context": result},
    }
    api.answers[f"GET /api/executions/{CHILD}"] = [(200, detail)]


async def test_start_only(call: Call, api: FakeApi) -> None:
    child(api, "RUNNING")
    output = await call("playbook", path="a/b", version=2, input={"x": 1}, given={"y": 2, "__loop_id": "l"})
    assert (output["status"], output["execution_id"], output["async"]) == ("success", str(CHILD), True)
    assert output["data"]["commands_generated"] == 1
    body = {"path": "a/b", "version": 2, "payload": {"x": 1, "y": 2}, "parent_execution_id": EXECUTION}
    assert api.asked == [("POST", "/api/execute", body)]


@pytest.mark.parametrize("flag", [{"return_step": "end"}, {"wait": "true"}])
async def test_wait_gives_the_result_of_the_child(call: Call, api: FakeApi, flag: dict[str, Any]) -> None:
    child(api, "RUNNING", "RUNNING", "COMPLETED", result={"total": 7})
    output = await call("playbook", path="a/b", **flag)
    assert output["total"] == output["result"]["total"] == output["data"]["total"] == 7
    assert (output["status"], output["completed"], output["failed"]) == ("COMPLETED", True, False)
    assert (output["execution_id"], output["path"], output["version"]) == (str(CHILD), "a/b", 3)
    assert api.times("GET", f"/api/executions/{CHILD}/status") == 3


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED"])
async def test_a_failed_child_fails_the_tool(call: Call, api: FakeApi, state: str) -> None:
    child(api, state, error="boom" if state == "FAILED" else None)
    with pytest.raises(ToolError) as failure:
        await call("playbook", path="a/b", wait=True)
    assert failure.value.code == f"PLAYBOOK_{state}"
    assert ("boom" if state == "FAILED" else "cancelled") in failure.value.message
    assert failure.value.data is not None
    assert failure.value.data["status"] == state


async def test_a_failure_can_be_ignored(call: Call, api: FakeApi) -> None:
    child(api, "FAILED", error="boom")
    output = await call("playbook", path="a/b", wait=True, ignore_failure="true")
    assert (output["status"], output["child_status"], output["error"]) == ("ok", "FAILED", "boom")


async def test_no_such_playbook_and_no_path(call: Call, api: FakeApi) -> None:
    with pytest.raises(ToolError) as failure:
        await call("playbook", path="nowhere")
    assert failure.value.code == "PLAYBOOK_NOT_FOUND"
    with pytest.raises(ToolError) as failure:
        await call("playbook")
    assert failure.value.code == "BAD_CONFIG"


async def test_a_start_that_is_not_answered_is_not_repeated(call: Call, api: FakeApi) -> None:
    api.answers["POST /api/execute"] = [(503, {})]
    with pytest.raises(ToolError) as failure:
        await call("playbook", path="a/b")
    assert (failure.value.code, failure.value.retryable) == ("API_UNAVAILABLE", True)
    assert api.times("POST", "/api/execute") == 1


async def test_an_api_that_is_away_while_waiting_is_waited_for(call: Call, api: FakeApi) -> None:
    child(api, "COMPLETED", result={})
    api.answers[f"GET /api/executions/{CHILD}/status"].insert(0, (503, {}))
    assert (await call("playbook", path="a/b", wait=True))["status"] == "COMPLETED"


async def test_waiting_has_the_time_limit_of_the_tool(call: Call, api: FakeApi) -> None:
    child(api, "RUNNING")
    with pytest.raises(ToolError) as failure:
        await call("playbook", path="a/b", wait=True, seconds=0.4)
    assert failure.value.code == "TIMEOUT"


async def test_a_waiting_parent_leaves_its_place_to_its_child(box: ToolBox, api: FakeApi) -> None:
    child(api, "RUNNING")
    slots = Slots(1)
    slots.take()
    made = ToolCall(
        kind="playbook",
        step="s",
        config={"path": "a/b", "wait": True},
        input={},
        context={},
        timeout_seconds=10.0,
        idle=slots.given_up,
    )
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        task = group.create_task(run_tool(made, box))
        assert await slots.wait_free() == 1
        task.cancel()
    assert slots.free == 0


async def test_an_agent_answers_its_failure(call: Call, api: FakeApi) -> None:
    child(api, "COMPLETED", result={"text": "hi"})
    output = await call("agent", framework="noetl", entrypoint="a/b", payload={"q": 1})
    assert (output["status"], output["data"], output["framework"]) == ("ok", {"text": "hi"}, "noetl")
    child(api, "FAILED", error="boom")
    output = await call("agent", entrypoint="a/b")
    assert (output["status"], output["error"]["code"]) == ("error", "PLAYBOOK_FAILED")
    api.answers.clear()
    output = await call("agent", entrypoint="nowhere")
    assert (output["status"], output["error"]["code"]) == ("error", "PLAYBOOK_NOT_FOUND")


@pytest.mark.parametrize(("config", "code"), [({"framework": "adk"}, "NOT_AVAILABLE"), ({}, "BAD_CONFIG")])
async def test_agents_that_cannot_run(call: Call, config: dict[str, Any], code: str) -> None:
    with pytest.raises(ToolError) as failure:
        await call("agent", **config)
    assert failure.value.code == code
