"""Replay, templates and lookups, on the original's own database and on our own executions."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.api.store.migrate import migrate
from tests.e2e.playbooks import LINEAR
from tests.support.api import RunningApi, running_api
from tests.support.postgres import PostgresServer, load_original_dump

LINEAR_RUN = "766820737834287572"  # executions of the dump
LOOP_RUN = "766817053305995598"
CURSOR_RUN = "766818391356080880"
DATABASE = "original_replay"


@pytest.fixture(scope="module")
async def original(postgres_server: PostgresServer) -> AsyncIterator[RunningApi]:
    """The API on the original's database, migrated in place."""
    dsn = await postgres_server.create_database(DATABASE)
    await load_original_dump(dsn)
    await migrate(dsn)
    async with running_api(dsn) as api:
        yield api
    await postgres_server.drop_database(DATABASE)


@pytest.mark.parametrize(
    ("query", "events", "checksum"),
    [
        (f"execution_id={LINEAR_RUN}", 30, "a3bd1857ec66bb27e869bd2479879e2419e5d20102b96a909b6afd7e74f760fd"),
        (
            f"execution_id={LINEAR_RUN}&projection=frame",
            30,
            "ac4e5bceb7644fcffb447e41b4b38c2fc8c7bad7acee2cfc5080a18643deb786",
        ),
        (f"execution_id={LOOP_RUN}", 83, "c4a74313b789e825c011326869a43e15144f8cd3eb47751701ed15b034852cba"),
        (
            f"execution_id={LINEAR_RUN}&as_of_event_id=766820738404712929",
            10,
            "aa196fdd8da5ecf50766cc31609b2a81e45ddbe94f7a3d0d1643188c2515b3d8",
        ),
        ("execution_id=1", 0, "249eabf600e917d6031a1c70d35823cfaec1cfcda22b48dfee57ffd18d4cb6a6"),
    ],
)
async def test_a_replay_has_the_checksum_that_the_original_computed(
    original: RunningApi, query: str, events: int, checksum: str
) -> None:
    status, state = await original.request("GET", f"/api/replay/state?{query}")
    assert (status, state["event_count"], state["checksum"]) == (200, events, checksum)


async def test_a_replay_shows_stages_and_frames_of_a_cursor_loop(original: RunningApi) -> None:
    _, state = await original.request("GET", f"/api/replay/state?execution_id={CURSOR_RUN}")
    (stage,) = state["stages"].values()
    assert (stage["status"], stage["frame_count"], stage["row_count"]) == ("COMPLETED", 6, 6)
    assert len(state["frames"]) == 6
    assert {frame["status"] for frame in state["frames"].values()} == {"COMPLETED"}


@pytest.mark.parametrize(
    ("template", "extra", "rendered"),
    [
        ({"c": "{{ start.status }}", "d": ["{{ 1 + 1 }}"]}, None, {"c": "COMPLETED", "d": [2]}),
        ("{{ q }}-{{ start.status }}", {"q": 5}, "5-COMPLETED"),
        ("{{ nope }}", None, "{{ nope }}"),
        ("{{ nope ", None, "{{ nope "),
    ],
)
async def test_a_template_is_rendered_as_the_original_does(
    original: RunningApi, template: object, extra: object, rendered: object
) -> None:
    body = {"execution_id": LINEAR_RUN, "template": template, "extra_context": extra}
    status, answer = await original.request("POST", "/api/context/render", body)
    assert (status, answer["status"], answer["rendered"]) == (200, "ok", rendered)
    nodes = ["start", "events.batch", "end", "workflow", "test/simple_python"]
    assert answer["context_keys"] == [
        *("work", "workload", "results", "vars"),
        *nodes,
        *(["q"] if extra else []),
        *("execution_id", "context", "job"),
    ]


async def test_a_template_sees_the_workload(original: RunningApi) -> None:
    body = {"execution_id": LINEAR_RUN, "template": "{{ workload.message }}"}
    _, answer = await original.request("POST", "/api/context/render", body)
    assert answer["rendered"] != body["template"]


async def test_a_batch_request_of_the_original_is_found(original: RunningApi) -> None:
    status, found = await original.request("GET", "/api/events/batch/766820738253717978/status")
    assert status == 200
    assert found == {
        "request_id": "766820738253717978",
        "execution_id": LINEAR_RUN,
        "state": "completed",
        "status": "COMPLETED",
        "error_code": None,
        "message": None,
        "commands_generated": 0,
        "idempotency_key": "worker-fc100086:766820737834287572:325d26f4b74e4252bd6835b05f327b5b",
        "updated_at": "2026-11-24T00:15:55.433531+00:00",
    }
    for unknown in ("1", "abc"):
        status, answer = await original.request("GET", f"/api/events/batch/{unknown}/status")
        assert (status, answer) == (404, {"detail": f"Batch request not found: {unknown}"})


async def test_a_replay_of_ours_follows_the_run_and_can_stop_anywhere(api: RunningApi) -> None:
    execution = await api.start(LINEAR, {"name": "Ada"})
    await api.work(execution, "start", {"greeting": "Hi", "sum": 1})
    _, running = await api.request("GET", f"/api/replay/state?execution_id={execution}")
    assert running["execution"]["status"] == "RUNNING"
    (command,) = running["commands"].values()
    assert (command["status"], command["worker_id"]) == ("COMPLETED", "w1")
    _, early = await api.request("GET", f"/api/replay/state?execution_id={execution}&as_of_position=3")
    assert (early["event_count"], next(iter(early["commands"].values()))["status"]) == (3, "PENDING")
    await api.request("POST", f"/api/executions/{execution}/cancel")
    _, over = await api.request("GET", f"/api/replay/state?execution_id={execution}")
    assert over["execution"]["status"] == "CANCELLED"
    status, _ = await api.request("GET", "/api/replay/state?execution_id=1&as_of_position=1&as_of_event_id=1")
    assert status == 400


async def test_a_cut_replay_says_so(api: RunningApi) -> None:
    execution = await api.start(LINEAR)
    url = f"{api.url}/api/replay/state?execution_id={execution}&limit=2"
    async with api.session.get(url) as response:
        assert response.headers["X-Playhead-More"] == "true"
        assert (await response.json())["event_count"] == 2


async def test_a_template_sees_outputs_and_variables_of_ours(api: RunningApi) -> None:
    execution = await api.start(LINEAR, {"name": "Ada"})
    await api.work(execution, "start", {"greeting": "Hi", "sum": 1})
    await api.request("POST", f"/api/vars/{execution}", {"variables": {"limit": 7}})
    template = {"a": "{{ start.greeting }} {{ workload.name }}", "b": "{{ vars.limit }}", "c": "{{ start.sum + 1 }}"}
    _, answer = await api.request("POST", "/api/context/render", {"execution_id": execution, "template": template})
    assert answer["rendered"] == {"a": "Hi Ada", "b": 7, "c": 2}


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, "execution_id is required"),
        ({"execution_id": "1"}, "template is required"),
        ({"execution_id": "abc", "template": "x"}, "execution_id must be an integer value, got 'abc'"),
        ({"execution_id": 1.5, "template": "x"}, "execution_id must be an integer value, got float"),
    ],
)
async def test_a_rendering_without_its_parts_is_refused(api: RunningApi, body: object, detail: str) -> None:
    assert await api.request("POST", "/api/context/render", body) == (400, {"detail": detail})


async def test_a_batch_of_ours_is_found_with_and_without_a_key(api: RunningApi) -> None:
    execution = await api.start(LINEAR)
    body = {"execution_id": str(execution), "events": [{"step": "start", "name": "note", "payload": {}}]}
    for headers, key in (({"Idempotency-Key": "k1"}, "k1"), ({}, None)):
        status, accepted = await api.request("POST", "/api/events/batch", body, headers=headers)
        assert (status, accepted["idempotency_key"]) == (202, key)
        status, found = await api.request("GET", f"/api/events/batch/{accepted['request_id']}/status")
        assert (status, found["state"], found["idempotency_key"]) == (200, "completed", key)
        assert found["execution_id"] == str(execution)


async def test_the_stream_of_a_batch_ends_with_its_final_state(api: RunningApi) -> None:
    execution = await api.start(LINEAR)
    body = {"execution_id": str(execution), "events": [{"step": "start", "name": "note", "payload": {}}]}
    _, accepted = await api.request("POST", "/api/events/batch", body)
    async with api.session.get(f"{api.url}/api/events/batch/{accepted['request_id']}/stream") as response:
        text = await response.text()
    assert "event: status\n" in text
    assert '"state":"completed"' in text


async def test_an_event_and_its_output_are_found_by_its_id(api: RunningApi) -> None:
    execution = await api.start(LINEAR)
    await api.work(execution, "start", {"greeting": "Hi", "password": "hunter2"})
    done = next(item for item in await api.log(execution) if item["event_type"] == "call.done")
    status, event = await api.request("GET", f"/api/events/{done['event_id']}")
    assert (status, event["event_type"], event["execution_id"]) == (200, "call.done", str(execution))
    status, output = await api.request("GET", f"/api/events/{done['event_id']}/result")
    assert (status, output["result"]) == (200, {"greeting": "Hi", "password": "[REDACTED]"})
    assert await api.request("GET", "/api/events/12345/result") == (404, {"detail": "event not found: 12345"})
