"""Numbers of the front page, the schema check, and test suites."""

from __future__ import annotations

from typing import Any

import pytest

from services.api.routes import dashboard
from tests.e2e.playbooks import LINEAR, SLEEPING
from tests.support.api import RunningApi


@pytest.fixture
def shared(shared_api: RunningApi) -> RunningApi:
    """One API for the tests that need no empty database."""
    return shared_api


async def test_the_front_page_counts_by_status(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "FRESH_SECONDS", 0.0)
    _, empty = await api.request("GET", "/api/dashboard/stats")
    assert empty["stats"] == {
        "total_executions": 0,
        "successful_executions": 0,
        "failed_executions": 0,
        "total_playbooks": 0,
        "active_workflows": 0,
    }
    running, failed, done, gone = [await api.start(text) for text in (LINEAR, SLEEPING, SLEEPING, SLEEPING)]
    await api.request("POST", f"/api/executions/{failed}/finalize")
    await api.request("POST", f"/api/executions/{done}/finalize", {"status": "COMPLETED"})
    await api.request("POST", f"/api/executions/{gone}/cancel")
    status, stats = await api.request("GET", "/api/dashboard/stats")
    assert status == 200
    assert stats["stats"] == {
        "total_executions": 4,
        "successful_executions": 1,
        "failed_executions": 1,
        "total_playbooks": 2,
        "active_workflows": 1,
    }
    assert {key: stats[key] for key in stats["stats"]} == stats["stats"]
    assert (stats["active_executions"], stats["success_rate"]) == (1, 33.3)
    assert [item["execution_id"] for item in stats["recent_executions"]] == [
        str(item) for item in (gone, done, failed, running)
    ]


async def test_the_schema_is_ready(shared: RunningApi) -> None:
    needed = ["catalog", "credential", "event", "command", "execution", "keychain", "runtime"]
    assert await shared.request("POST", "/api/db/init") == (
        200,
        {"status": "ok", "message": "Database schema ready", "tables": needed},
    )
    _, answer = await shared.request("GET", "/api/db/validate")
    assert (answer["status"], answer["valid"], answer["tables"], answer["missing"]) == ("ok", True, needed, [])
    assert set(needed) < set(answer["all_tables"])


async def test_a_suite_is_stored_read_and_deleted(shared: RunningApi) -> None:
    path = "/api/playbook-tests/suites/a/b"
    body = {"playbook_path": "a/b", "tests": [{"n": 1}]}
    status, stored = await shared.request("PUT", path, body)
    assert status == 200
    assert (stored["suite_id"], stored["playbook_path"], stored["metadata"]) == ("a/b", "a/b", {})
    assert stored["file_path"].endswith("/a/b.json")
    assert stored["updated_at"].endswith("+00:00")
    assert await shared.request("GET", path) == (200, stored)
    _, again = await shared.request("PUT", path, {**body, "tests": [], "metadata": {"by": "me"}})
    assert (again["tests"], again["metadata"]) == ([], {"by": "me"})
    status, gone = await shared.request("DELETE", path)
    assert (status, gone["status"], gone["suite_id"]) == (200, "success", "a/b")
    for method in ("GET", "DELETE"):
        assert await shared.request(method, path) == (404, {"detail": "Test suite 'a/b' not found"})


@pytest.mark.parametrize(
    ("suite", "body", "loc"),
    [
        ("hg", {"name": "hg", "cases": []}, ["body", "playbook_path"]),
        ("hg", {"playbook_path": "x", "tests": ["y"]}, ["body", "tests", 0]),
        ("a/..b", {"playbook_path": "x"}, ["path", "suite_id"]),
        ("a%00", {"playbook_path": "x"}, ["path", "suite_id"]),
    ],
)
async def test_a_suite_that_is_wrong_is_refused(shared: RunningApi, suite: str, body: Any, loc: list[Any]) -> None:
    status, answer = await shared.request("PUT", f"/api/playbook-tests/suites/{suite}", body)
    assert (status, answer["detail"][0]["loc"]) == (422, loc)
