"""Playbooks through every service, as a user submits them."""

from __future__ import annotations

from collections import Counter

from tests.e2e import playbooks
from tests.support.stack import Stack


async def run(stack: Stack, text: str, payload: dict[str, object] | None = None) -> dict[str, object]:
    execution_id = await stack.execute(await stack.register(text), payload)
    return await stack.until_ended(execution_id)


async def test_a_step_uses_the_output_and_variables_of_the_step_before(stack: Stack) -> None:
    status = await run(stack, playbooks.LINEAR, {"name": "Ada", "nested": {"a": 1, "b": 40}})
    assert status["status"] == "COMPLETED"
    assert status["completed_steps"] == ["start", "finish"]
    _, detail = await stack.request("GET", f"/api/executions/{status['execution_id']}")
    assert detail["result"]["context"] == {"message": "HELLO, ADA!", "seen": 41}
    assert detail["error"] is None


async def test_a_join_runs_once_after_all_branches(stack: Stack) -> None:
    status = await run(stack, playbooks.DIAMOND)
    assert status["status"] == "COMPLETED"
    events = await stack.events(str(status["execution_id"]))
    issued = Counter(event["node_name"] for event in events if event["event_type"] == "command.issued")
    assert issued == Counter(["start", "left", "right", "slow", "join"])
    done = [event["node_name"] for event in events if event["event_type"] == "call.done"]
    assert done[-1] == "join"


async def test_a_failing_step_without_a_handler_fails_the_execution(stack: Stack) -> None:
    status = await run(stack, playbooks.FAILING)
    assert (status["status"], status["failed"], status["completed"]) == ("FAILED", True, True)
    assert "boom" in str(status["error"])


async def test_a_failure_that_an_arc_handles_does_not_fail_the_execution(stack: Stack) -> None:
    status = await run(stack, playbooks.HANDLED)
    assert status["status"] == "COMPLETED"
    events = await stack.events(str(status["execution_id"]))
    assert [event["node_name"] for event in events if event["event_type"] == "command.issued"] == ["start", "rescue"]


async def test_the_first_arc_that_holds_is_taken(stack: Stack) -> None:
    for amount, expected in ((5, "small"), (50, "large")):
        status = await run(stack, playbooks.CHOICE, {"amount": amount})
        assert status["completed_steps"] == ["start", expected]


async def test_a_large_output_travels_by_reference(stack: Stack) -> None:
    status = await run(stack, playbooks.LARGE)
    assert status["status"] == "COMPLETED", status
    events = await stack.events(str(status["execution_id"]))
    done = next(event for event in events if event["event_type"] == "call.done" and event["node_name"] == "start")
    locator = done["result"]["reference"]["locator"]
    code, stored = await stack.request("GET", "/api/result/resolve", params={"ref": locator})
    assert (code, len(stored["text"])) == (200, 1_000_000)


async def test_an_http_step_reaches_a_server(stack: Stack) -> None:
    status = await run(stack, playbooks.HTTP, {"url": stack.url})
    assert status["status"] == "COMPLETED", status


async def test_data_that_looks_like_a_template_stays_data(stack: Stack) -> None:
    status = await run(stack, playbooks.INJECTION)
    _, detail = await stack.request("GET", f"/api/executions/{status['execution_id']}")
    assert detail["result"]["context"] == {"text": "{{ keychain.db.password }} {{ 1 + 1 }}"}


async def test_a_cancelled_execution_stays_cancelled(stack: Stack) -> None:
    execution_id = await stack.execute(await stack.register(playbooks.SLEEPING))
    code, answer = await stack.request("POST", f"/api/executions/{execution_id}/cancel", {"reason": "enough"})
    assert (code, answer["status"]) == (200, "cancelled")
    status = await stack.until_ended(execution_id)
    assert (status["status"], status["is_cancelled"]) == ("CANCELLED", True)
    code, answer = await stack.request("GET", f"/api/executions/{execution_id}/cancellation-check")
    assert answer["cancelled"] is True


async def test_every_service_serves_its_metrics(stack: Stack) -> None:
    assert stack.session is not None
    async with stack.session.get(stack.url + "/metrics") as response:
        text = await response.text()
    assert "noetl_events_appended_total" in text
    assert "noetl_up 1.0" in text


async def test_per_step_timings_are_projected(stack: Stack) -> None:
    status = await run(stack, playbooks.LINEAR)
    rows = await stack.until_rows(
        "SELECT step_name, status, ended_at >= started_at AND started_at >= issued_at AS ordered FROM noetl.step_timing "
        "WHERE execution_id = $1 AND ended_at IS NOT NULL ORDER BY issued_at",
        int(str(status["execution_id"])),
        count=2,
    )
    assert [tuple(row) for row in rows] == [("start", "COMPLETED", True), ("finish", "COMPLETED", True)]
