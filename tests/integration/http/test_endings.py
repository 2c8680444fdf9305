"""Ways to end an execution from outside, and what its log tells afterwards."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from tests.e2e.playbooks import LINEAR, SLEEPING
from tests.support.api import RunningApi, running_api


@pytest.fixture
def api(shared_api: RunningApi) -> RunningApi:
    """One API for all of these tests."""
    return shared_api


async def older(dsn: str, minutes: int) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "UPDATE noetl.execution SET start_time = start_time - make_interval(mins => $1::int)", minutes
    )
    await connection.close()


async def status_of(api: RunningApi, execution: int) -> str:
    _, answer = await api.request("GET", f"/api/executions/{execution}/status")
    return str(answer["status"])


async def test_stop_is_cancel(api: RunningApi) -> None:
    execution = await api.start(SLEEPING)
    status, answer = await api.request("POST", f"/api/executions/{execution}/stop")
    assert (status, answer["status"]) == (200, "cancelled")
    assert answer["cancelled_executions"] == [str(execution)]
    assert await status_of(api, execution) == "CANCELLED"


async def test_finalize_fails_a_running_execution_and_leaves_an_ended_one(api: RunningApi) -> None:
    execution = await api.start(SLEEPING)
    path = f"/api/executions/{execution}/finalize"
    status, answer = await api.request("POST", path, {"reason": "worker is gone"})
    assert (status, answer) == (
        200,
        {
            "status": "finalized",
            "execution_id": str(execution),
            "message": f"Emitted terminal events for execution {execution}",
        },
    )
    _, shown = await api.request("GET", f"/api/executions/{execution}")
    assert (shown["status"], shown["error"]) == ("FAILED", "worker is gone")
    assert [item["event_type"] for item in shown["events"][:2]] == ["playbook.failed", "workflow.failed"]
    _, again = await api.request("POST", path, {"status": "COMPLETED"})
    assert again["status"] == "already_completed"
    assert again["message"] == f"Execution {execution} is already completed"
    assert await status_of(api, execution) == "FAILED"


async def test_finalize_can_say_completed_as_the_rust_server_does(api: RunningApi) -> None:
    execution = await api.start(SLEEPING)
    _, answer = await api.request("POST", f"/api/executions/{execution}/finalize", {"status": "COMPLETED"})
    assert answer["status"] == "finalized"
    _, shown = await api.request("GET", f"/api/executions/{execution}")
    assert (shown["status"], shown["error"]) == ("COMPLETED", None)


async def test_finalize_answers_what_it_does_not_know_with_200(api: RunningApi) -> None:
    assert await api.request("POST", "/api/executions/1/finalize") == (
        200,
        {"status": "not_found", "execution_id": "1", "message": "Execution 1 not found in engine state store"},
    )
    status, answer = await api.request("POST", "/api/executions/1/finalize", {"status": "MAYBE"})
    assert (status, answer["detail"][0]["loc"]) == (422, ["body", "status"])


async def test_cleanup_cancels_what_is_old_and_has_no_end(database_dsn: str) -> None:
    async with running_api(database_dsn) as api:
        ended, old = await api.start(SLEEPING), await api.start(SLEEPING)
        await api.request("POST", f"/api/executions/{ended}/finalize")
        await older(database_dsn, 10)
        young = await api.start(LINEAR)
        body = {"older_than_minutes": 5, "dry_run": True}
        status, answer = await api.request("POST", "/api/executions/cleanup", body)
        assert (status, answer) == (
            200,
            {
                "cancelled_count": 1,
                "execution_ids": [str(old)],
                "message": "[DRY RUN] Would cancel 1 stuck executions older than 5 minutes",
            },
        )
        assert await status_of(api, old) == "RUNNING"
        _, answer = await api.request("POST", "/api/executions/cleanup", {})
        assert (answer["cancelled_count"], answer["execution_ids"]) == (1, [str(old)])
        assert answer["message"] == "Successfully cancelled 1 stuck executions older than 5 minutes"
        assert [await status_of(api, item) for item in (ended, old, young)] == ["FAILED", "CANCELLED", "RUNNING"]
        last = (await api.log(old))[-1]
        assert (last["event_type"], last["meta"]["auto_cancelled"]) == ("execution.cancelled", True)
        _, answer = await api.request("POST", "/api/executions/cleanup", {})
        assert answer["message"] == "No stuck executions found older than 5 minutes"


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"older_than_minutes": "x"}, ["body", "older_than_minutes"]),
        ({"older_than_minutes": 0}, ["body", "older_than_minutes"]),
        ({"dry_run": "perhaps"}, ["body", "dry_run"]),
        (None, ["body"]),
    ],
)
async def test_cleanup_wants_a_body_that_is_right(api: RunningApi, body: Any, loc: list[str]) -> None:
    status, answer = await api.request("POST", "/api/executions/cleanup", body)
    assert (status, answer["detail"][0]["loc"]) == (422, loc)


async def test_an_analysis_tells_of_a_failure_and_hides_secrets(api: RunningApi) -> None:
    execution = await api.start(LINEAR)
    await api.work(execution, "start", error="login failed: Bearer abcdefghijklmnop")
    await api.request("POST", f"/api/executions/{execution}/finalize", {"reason": "boom"})
    body = {"include_playbook_content": True}
    status, answer = await api.request("POST", f"/api/executions/{execution}/analyze", body)
    assert status == 200
    assert (answer["path"], answer["status"]) == ("e2e/linear", "failed")
    assert answer["summary"]["terminal_event_type"] == "playbook.failed"
    assert answer["summary"]["event_count"] == len(answer["event_sample"])
    assert "Failure Events Present" in [item["title"] for item in answer["findings"]]
    assert answer["playbook"]["content"] == LINEAR
    assert LINEAR in answer["ai_prompt"]
    assert "abcdefghijklmnop" not in str(answer)
    assert answer["cloud"]["configured"] is False


async def test_an_analysis_of_a_running_execution_says_that_its_end_is_missing(api: RunningApi) -> None:
    execution = await api.start(LINEAR)
    _, answer = await api.request("POST", f"/api/executions/{execution}/analyze")
    assert answer["status"] == "RUNNING"
    assert [item["title"] for item in answer["findings"]] == ["Missing Terminal Lifecycle Event"]
    assert answer["findings"][0]["evidence"] == {"latest_event_type": "command.issued"}


async def test_what_cannot_be_analysed_is_said(api: RunningApi) -> None:
    assert await api.request("POST", "/api/executions/1/analyze", {}) == (404, {"detail": "Execution 1 not found"})
    execution = await api.start(LINEAR)
    path = f"/api/executions/{execution}/analyze"
    status, answer = await api.request("POST", path, {"max_events": 1})
    assert (status, answer["detail"][0]["loc"]) == (422, ["body", "max_events"])
    for body, expected in (
        ({"auto_fix_mode": "zz"}, "Invalid auto_fix_mode 'zz'. Expected one of: ['apply', 'dry_run', 'report']"),
        ({"auto_fix_mode": "apply"}, "Apply mode requires approved=true when approval_required=true"),
    ):
        assert await api.request("POST", f"{path}/ai", body) == (400, {"detail": expected})


async def test_an_ai_playbook_that_is_not_registered_is_named(api: RunningApi) -> None:
    execution = await api.start(LINEAR)
    status, answer = await api.request("POST", f"/api/executions/{execution}/analyze/ai")
    assert status == 404
    assert answer["detail"].startswith("AI analysis playbook not found: ops/execution_ai_analyze. Register ")
    status, answer = await api.request("POST", "/api/catalog/playbooks/explain/ai", {"path": "e2e/linear"})
    assert status == 404
    assert answer["detail"].startswith("AI explain playbook not found: ops/playbook_ai_explain. Register ")
    status, answer = await api.request("POST", "/api/catalog/playbooks/explain/ai", {"path": "no/where"})
    assert (status, answer["detail"]) == (404, "Target playbook not found in catalog")
    status, answer = await api.request("POST", "/api/catalog/playbooks/generate/ai", {"prompt": "x"})
    assert status == 404
    assert answer["detail"].startswith("AI generator playbook not found: ops/playbook_ai_generate. Register ")


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("explain/ai", {}, "Value error, Either catalog_id or path must be provided"),
        ("generate/ai", {"prompt": "  "}, "Value error, prompt cannot be empty"),
        ("generate/ai", {"prompt": "x", "timeout_seconds": 5}, "Input should be greater than or equal to 30"),
    ],
)
async def test_a_wrong_request_for_ai_is_named(api: RunningApi, path: str, body: Any, message: str) -> None:
    status, answer = await api.request("POST", f"/api/catalog/playbooks/{path}", body)
    assert (status, answer["detail"][0]["msg"]) == (422, message)
