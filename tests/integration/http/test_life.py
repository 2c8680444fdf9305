"""An execution over HTTP, from its start to its end, as clients and workers of the original drive it."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.e2e.playbooks import DIAMOND, LINEAR
from tests.support.api import TOKEN, RunningApi

BEARER = {"Authorization": f"Bearer {TOKEN}"}


async def issued(api: RunningApi, execution: int) -> dict[str, Any]:
    return next(item for item in await api.log(execution) if item["event_type"] == "command.issued")


async def test_a_start_is_answered_as_the_original_does(api: RunningApi) -> None:
    _, entry = await api.request("POST", "/api/catalog/register", {"content": LINEAR, "resource_type": "Playbook"})
    assert entry["status"] == "success"
    status, answer = await api.request("POST", "/api/execute", {"path": "e2e/linear", "workload": {"name": "Ada"}})
    assert status == 200
    assert answer["status"] == "started"
    assert answer["commands_generated"] == 1
    assert isinstance(answer["execution_id"], str)


async def test_a_command_is_claimed_once(api: RunningApi) -> None:
    execution = await api.start(LINEAR, {"name": "Ada"})
    event = await issued(api, execution)
    path = f"/api/commands/{event['event_id']}/claim"
    status, command = await api.request("POST", path, {"worker_id": "w1"})
    assert status == 200
    assert command["action"] == "python"
    assert command["node_name"] == "start"
    assert command["context"]["tool_config"]["input"]["name"] == "Ada"
    status, refused = await api.request("POST", path, {"worker_id": "w2"})
    assert (status, refused["detail"]["code"]) == (409, "active_claim")


async def test_both_dialects_of_workers_are_understood(api: RunningApi) -> None:
    python, rust = await api.start(LINEAR), await api.start(LINEAR)
    command = (await issued(api, python))["command_id"]
    body: dict[str, Any] = {"execution_id": str(python), "step": "start", "name": "call.done", "worker_id": "w"}
    body["payload"] = {"command_id": command, "response": {"greeting": "Hi", "sum": 1}}
    assert (await api.request("POST", "/api/events", body))[0] == 200
    command = (await issued(api, rust))["command_id"]
    inner = {"status": "COMPLETED", "context": {"data": {"greeting": "Hi", "sum": 1}}}
    body = {
        "execution_id": rust,
        "event_type": "call.done",
        "node_name": "start",
        "worker_id": "w",
        "status": "COMPLETED",
    }
    body["context"] = {"command_id": str(command), "result": inner}
    body["meta"] = {"command_id": str(command)}
    assert (await api.request("POST", "/api/events", body))[0] == 200
    for execution in (python, rust):
        last = (await api.log(execution))[-1]
        assert (last["event_type"], last["status"], last["node_name"]) == ("call.done", "COMPLETED", "start")
        assert last["command_id"] == (await issued(api, execution))["command_id"]


async def test_a_batch_repeated_under_its_key_is_stored_once_and_answered_as_before(api: RunningApi) -> None:
    execution = await api.start(LINEAR)
    command = (await issued(api, execution))["command_id"]
    events = [
        {"step": "start", "name": kind, "payload": {"command_id": command, "response": {}}} for kind in ("a.b", "c.d")
    ]
    body = {"execution_id": str(execution), "worker_id": "w", "events": events}
    answers = [
        await api.request("POST", "/api/events/batch", body, headers={"Idempotency-Key": "k1"}) for _ in range(3)
    ]
    assert [status for status, _ in answers] == [202, 202, 202]
    assert len({str(answer["event_ids"]) for _, answer in answers}) == 1
    assert len(await api.log(execution)) == 5


async def test_versions_have_no_gaps_under_concurrency(api: RunningApi) -> None:
    executions = [await api.start(LINEAR) for _ in range(2)]

    async def post(execution: int, number: int) -> None:
        body = {"execution_id": execution, "step": "s", "name": "note", "payload": {"n": number}}
        assert (await api.request("POST", "/api/events", body))[0] == 200

    async with asyncio.TaskGroup() as group:
        for number in range(60):
            group.create_task(post(executions[number % 2], number))
    for execution in executions:
        log = await api.log(execution)
        assert [item["stream_version"] for item in log] == list(range(1, 3 + 1 + 30))
        assert len({item["event_id"] for item in log}) == len(log)


async def test_detail_events_and_list_agree(api: RunningApi) -> None:
    execution = await api.start(DIAMOND)
    await api.work(execution, "start", {})
    _, detail = await api.request("GET", f"/api/executions/{execution}")
    _, events = await api.request("GET", f"/api/executions/{execution}/events?page_size=10")
    _, listed = await api.request("GET", "/api/executions")
    log = await api.log(execution)
    assert [item["event_id"] for item in detail["events"]] == [item["event_id"] for item in reversed(log)]
    assert events["pagination"]["total_events"] == len(log)
    assert [item["execution_id"] for item in listed] == [str(execution)]
    assert detail["status"] == listed[0]["status"] == "RUNNING"


async def read_stream(api: RunningApi, execution: int, last: int, count: int) -> list[int]:
    """Return the versions of the next `count` events after `last`."""
    found: list[int] = []
    headers = {"Last-Event-ID": str(last)}
    async with (
        asyncio.timeout(30),
        api.session.get(f"{api.url}/api/executions/{execution}/events/stream", headers=headers) as response,
    ):
        assert response.headers["Content-Type"].startswith("text/event-stream")
        async for line in response.content:
            if line.startswith(b"id: "):
                found.append(int(line[4:]))
            if len(found) == count:
                return found
    return found


async def test_the_event_stream_shows_what_comes_and_resumes_where_it_broke(api: RunningApi) -> None:
    execution = await api.start(LINEAR)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read_stream(api, execution, 0, 7))
        await api.work(execution, "start", {"greeting": "Hi", "sum": 1})
    assert reading.result() == [1, 2, 3, 4, 5, 6, 7]
    assert await read_stream(api, execution, 5, 2) == [6, 7]


async def test_the_event_stream_of_an_ended_execution_ends(api: RunningApi) -> None:
    execution = await api.start(LINEAR)
    await api.request("POST", f"/api/executions/{execution}/cancel")
    assert await read_stream(api, execution, 0, 100) == [1, 2, 3, 4]
    headers = {"Last-Event-ID": "4"}
    async with api.session.get(f"{api.url}/api/executions/{execution}/events/stream", headers=headers) as response:
        assert response.status == 204  # a browser does not reconnect


async def test_a_cancelled_execution_refuses_claims_and_a_second_cancel_changes_nothing(api: RunningApi) -> None:
    execution = await api.start(LINEAR)
    event = await issued(api, execution)
    _, answer = await api.request("POST", f"/api/executions/{execution}/cancel", {"reason": "enough"})
    assert answer["status"] == "cancelled"
    status, refused = await api.request("POST", f"/api/commands/{event['event_id']}/claim", {"worker_id": "w"})
    assert (status, refused["detail"]["code"]) == (409, "execution_cancelled")
    _, answer = await api.request("POST", f"/api/executions/{execution}/cancel")
    assert answer["status"] == "already_completed"
    _, answer = await api.request("GET", f"/api/executions/{execution}/cancellation-check")
    assert (answer["status"], answer["cancelled"]) == ("CANCELLED", True)


async def test_outbox_rows_are_leased_and_marked(api: RunningApi) -> None:
    await api.start(LINEAR)
    rows = await api.client.claim_outbox(2)
    rest = await api.client.claim_outbox(100, published=[row["outbox_id"] for row in rows])
    assert len(rows) == 2
    assert not {row["outbox_id"] for row in rows} & {row["outbox_id"] for row in rest}
    assert await api.client.claim_outbox(100) == []
    assert await api.client.mark_published([row["outbox_id"] for row in [*rows, *rest]]) == len(rest)
    assert await api.client.pending_count() == 0


async def test_a_projection_repeated_changes_nothing(api: RunningApi) -> None:
    execution = await api.start(LINEAR)
    log = await api.log(execution)
    for _ in range(2):
        answer = await api.client.project(log, None)
        assert answer == {"projected": 0, "duplicates": len(log)}
    foreign = {**log[0], "stream_id": None, "stream_version": None, "event_id": 99, "event_type": "custom.thing"}
    assert (await api.client.project([foreign], None))["projected"] == 1
    assert (await api.client.project([foreign], None))["projected"] == 0


async def test_a_malformed_decision_is_refused_with_its_place(api: RunningApi) -> None:
    decision = {
        "execution_id": 1,
        "expected_decided_version": 0,
        "decided_version": 0,
        "effects": [{"kind": "nonsense"}],
    }
    status, answer = await api.request(
        "POST", "/api/internal/executions/commit", {"decisions": [decision]}, headers=BEARER
    )
    assert status == 422
    assert answer["detail"][0]["loc"] == ["body", "decisions", 0, "effects", 0]
