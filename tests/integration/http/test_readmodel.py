"""The read model that the CLI's `ehdb query` reads: no payload is in it."""

from __future__ import annotations

from tests.e2e.playbooks import LINEAR, SLEEPING
from tests.support.api import RunningApi


async def test_the_read_model_shows_state_and_events_without_payloads(api: RunningApi) -> None:
    running, gone = await api.start(LINEAR, {"name": "secret-word"}), await api.start(SLEEPING)
    await api.request("POST", f"/api/executions/{gone}/cancel")
    status, listed = await api.request("GET", "/api/ehdb/executions?limit=10")
    assert (status, listed["action"], listed["returned"]) == (200, "ehdb.executions.list", 2)
    assert [item["execution_id"] for item in listed["executions"]] == [str(gone), str(running)]
    assert [item["terminal"] for item in listed["executions"]] == [True, False]
    _, chosen = await api.request("GET", "/api/ehdb/executions?status=running&path=e2e/linear")
    assert [item["execution_id"] for item in chosen["executions"]] == [str(running)]
    _, one = await api.request("GET", f"/api/ehdb/executions/{running}")
    assert one["exists"] is True
    assert (one["state"]["current_node"], one["state"]["event_count"]) == ("start", 3)
    _, first = await api.request("GET", f"/api/ehdb/executions/{running}/events?limit=2")
    assert [item["event_type"] for item in first["events"]] == ["playbook.initialized", "workflow.initialized"]
    _, rest = await api.request("GET", f"/api/ehdb/executions/{running}/events?after={first['next_cursor']}")
    assert ([item["event_type"] for item in rest["events"]], rest["next_cursor"]) == (["command.issued"], None)
    assert "secret-word" not in str((listed, one, first, rest))
    assert (await api.request("GET", "/api/ehdb"))[1]["read_only"] is True


async def test_an_unknown_execution_does_not_exist_and_wrong_filters_are_named(api: RunningApi) -> None:
    status, answer = await api.request("GET", "/api/ehdb/executions/111")
    assert (status, answer["exists"], answer["state"]) == (200, False, None)
    _, answer = await api.request("GET", "/api/ehdb/executions/111/events")
    assert (answer["exists"], answer["events"]) == (False, [])
    for query in ("limit=0", "limit=1001", "catalog_id=x", "offset=-1"):
        status, answer = await api.request("GET", f"/api/ehdb/executions?{query}")
        assert (status, answer["detail"][0]["loc"]) == (422, ["query", query.partition("=")[0]])
