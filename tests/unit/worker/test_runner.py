"""A command from notification to last event, against a loopback API that records what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
import pytest_asyncio
from aiohttp import web

from services.worker.api import open_worker_api
from services.worker.app import Registration
from services.worker.runner import CommandRunner
from services.worker.tools import ToolBox
from shared.platform.settings import WorkerSettings

EXECUTION, EVENT, COMMAND = 700, 101, 9001
NOTIFICATION = {"execution_id": EXECUTION, "event_id": EVENT, "command_id": COMMAND, "step": "s", "server_url": "x"}


@dataclass
class Recorded:
    """What the API was told, and what it answers: the next of `answers[path]`, else success."""

    url: str = ""
    requests: list[tuple[str, str | None, Any]] = field(default_factory=list)
    answers: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    command: dict[str, Any] = field(default_factory=dict)
    on_request: Callable[[str], Awaitable[None]] | None = None

    def batches(self) -> list[list[dict[str, Any]]]:
        return [body["events"] for path, _, body in self.requests if path == "/api/events/batch"]

    def keys(self) -> list[str | None]:
        return [key for path, key, _ in self.requests if path == "/api/events/batch"]


@dataclass
class Delivered:
    """A notification that remembers how it was ended."""

    data: bytes = orjson.dumps(NOTIFICATION)
    headers: dict[str, str] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)

    async def ack(self) -> None:
        self.ended.append("ack")

    async def nak(self, delay_seconds: float = 0.0) -> None:
        self.ended.append("nak" if delay_seconds else "nak at once")

    async def term(self) -> None:
        self.ended.append("term")


def command(kind: str, config: dict[str, Any], *, given: Any = None, names: Any = None, **meta: Any) -> dict[str, Any]:
    return {
        "status": "ok",
        "event_id": EVENT,
        "execution_id": EXECUTION,
        "node_id": "s",
        "node_name": "s",
        "action": kind,
        "context": {"tool_config": config, "input": given or {}, "render_context": names or {}, "spec": {}},
        "meta": {"command_id": COMMAND, "attempt": 2, **meta},
    }


@pytest_asyncio.fixture
async def api() -> AsyncIterator[Recorded]:
    recorded = Recorded()

    async def handle(request: web.Request) -> web.Response:
        raw = await request.read()
        recorded.requests.append((request.path, request.headers.get("Idempotency-Key"), orjson.loads(raw or b"null")))
        if recorded.on_request is not None:
            await recorded.on_request(request.path)
        if recorded.answers.get(request.path):
            status, body = recorded.answers[request.path].pop(0)
            return web.json_response(body, status=status)
        if request.path.endswith("/claim"):
            return web.json_response(recorded.command)
        if request.path.startswith("/api/keychain/"):
            found = "scope_type=global" in request.query_string
            return web.json_response({"status": "success", "token_data": {"token": "very-secret"}} if found else {})
        if request.path.startswith("/api/result/"):
            return web.json_response({"ref": "noetl://execution/700/result/s/1", "store": "db", "bytes": len(raw)})
        return web.json_response({"status": "ok"})

    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    recorded.url = "http://{}:{}".format(*runner.addresses[0][:2])
    yield recorded
    await runner.cleanup()


def settings_for(api: Recorded, **values: Any) -> WorkerSettings:
    return WorkerSettings(noetl_server_url=api.url, **{"noetl_inline_max_bytes": 1024, **values})


async def handled(api: Recorded, box: ToolBox, message: Delivered | None = None, **values: Any) -> Delivered:
    message, settings = message or Delivered(), settings_for(api, **values)
    async with open_worker_api(settings, "w1") as client:
        await CommandRunner(client, box, settings).handle(message)
    return message


async def test_a_fast_tool_is_reported_in_one_batch(api: Recorded, box: ToolBox) -> None:
    api.command = command("noop", {}, __loop_epoch_id="E", loop_iteration_index=3)
    message = await handled(api, box)
    assert message.ended == ["ack"]
    (events,) = api.batches()
    assert [event["name"] for event in events] == [
        "command.started",
        "step.enter",
        "call.done",
        "step.exit",
        "command.completed",
    ]
    assert all(event["meta"]["attempt"] == 2 and event["meta"]["command_id"] == COMMAND for event in events)
    call = events[2]
    assert call["actionable"] is True
    assert call["payload"]["response"] == {"status": "noop", "step": "s"}
    assert call["payload"]["loop_event_id"] == "E"
    assert call["meta"]["loop_iteration_index"] == 3
    assert api.keys() == ["9001:2:2"]


async def test_a_slow_tool_is_reported_while_it_runs(api: Recorded, box: ToolBox, tmp_path: Any) -> None:
    flag = tmp_path / "started"

    async def release(path: str) -> None:
        if path == "/api/events/batch":
            flag.touch()

    api.on_request = release
    api.command = command("shell", {"cmd": f"until [ -e {flag} ]; do sleep 0.01; done"})
    await handled(api, box)
    assert [len(batch) for batch in api.batches()] == [2, 3]
    assert api.keys() == ["9001:2:1", "9001:2:2"]


async def test_heartbeats_while_a_tool_runs(api: Recorded, box: ToolBox, tmp_path: Any) -> None:
    flag = tmp_path / "beaten"

    async def release(path: str) -> None:
        if path == "/api/events":
            flag.touch()

    api.on_request = release
    api.command = command("shell", {"cmd": f"until [ -e {flag} ]; do sleep 0.01; done"})
    await handled(api, box, noetl_command_heartbeat_interval_seconds=0.05)
    beat = next(body for path, _, body in api.requests if path == "/api/events")
    assert beat["name"] == "command.heartbeat"
    assert beat["meta"] == {"command_id": COMMAND, "attempt": 2}


async def test_a_failing_tool(api: Recorded, box: ToolBox) -> None:
    api.command = command("python", {"code": "raise ValueError('boom')"})
    await handled(api, box)
    call, leave, end = api.batches()[-1][-3:]
    assert (call["name"], leave["name"], end["name"]) == ("call.error", "step.exit", "command.failed")
    assert call["payload"]["error"] == leave["payload"]["error"] == end["payload"]["error"] == "boom"
    assert call["payload"]["result"]["status"] == "FAILED"
    assert call["payload"]["response"]["code"] == "ValueError"


async def test_an_output_that_says_error_is_a_failure(api: Recorded, box: ToolBox) -> None:
    api.command = command("python", {"code": "result = {'status': 'error', 'error': {'message': 'no'}}"})
    await handled(api, box)
    assert api.batches()[-1][-3]["name"] == "call.error"
    assert api.batches()[-1][-3]["payload"]["error"] == "no"


@pytest.mark.parametrize("kind", ["abc", ""])
async def test_unknown_kind(api: Recorded, box: ToolBox, kind: str) -> None:
    api.command = command(kind, {})
    await handled(api, box)
    assert "not implemented" in api.batches()[-1][-3]["payload"]["error"]


async def test_a_large_output_goes_by_reference(api: Recorded, box: ToolBox) -> None:
    api.command = command("python", {"code": "result = {'n': 1, 'rows': ['x' * 2000]}"})
    await handled(api, box)
    stored = next(body for path, _, body in api.requests if path == f"/api/result/{EXECUTION}")
    assert stored["data"]["n"] == 1
    payload = api.batches()[-1][-3]["payload"]
    assert "response" not in payload
    assert payload["result"]["reference"]["locator"].startswith("noetl://")
    assert payload["result"]["context"] == {"n": 1}


async def test_an_output_that_cannot_be_stored_fails(api: Recorded, box: ToolBox) -> None:
    api.answers[f"/api/result/{EXECUTION}"] = [(413, {"detail": "too large"})]
    api.command = command("python", {"code": "result = 'x' * 2000"})
    await handled(api, box)
    assert "cannot be stored" in api.batches()[-1][-3]["payload"]["error"]


async def test_a_refused_output_becomes_a_failure(api: Recorded, box: ToolBox) -> None:
    api.answers["/api/events/batch"] = [(422, {"detail": "no"})]
    api.command = command("noop", {})
    await handled(api, box)
    assert [batch[-1]["name"] for batch in api.batches()] == ["command.completed", "command.failed"]
    assert len(set(api.keys())) == 2


async def test_events_are_repeated_under_the_same_key(api: Recorded, box: ToolBox) -> None:
    api.answers["/api/events/batch"] = [(503, {}), (429, {}), (500, {})]
    api.command = command("noop", {})
    await handled(api, box)
    assert api.keys() == ["9001:2:2"] * 4


@pytest.mark.parametrize(
    ("answers", "ended"),
    [
        ([(409, {"detail": {"code": "active_claim"}})], ["ack"]),
        ([(404, {"detail": "command not found"})], ["ack"]),
        ([(503, {})] * 3, ["nak"]),
    ],
)
async def test_claims_that_fail(api: Recorded, box: ToolBox, answers: list[Any], ended: list[str]) -> None:
    api.answers[f"/api/commands/{EVENT}/claim"] = list(answers)
    assert (await handled(api, box)).ended == ended
    assert api.batches() == []


async def test_no_api_gives_the_message_back(box: ToolBox, unused_tcp_port: int) -> None:
    message = await handled(Recorded(url=f"http://127.0.0.1:{unused_tcp_port}"), box)
    assert message.ended == ["nak"]


async def test_what_is_no_notification_is_dropped(api: Recorded, box: ToolBox) -> None:
    for data in (b"{", b"[]", b"{}"):
        assert (await handled(api, box, Delivered(data=data))).ended == ["term"]
    assert api.requests == []


async def test_a_notification_of_a_command_in_hand_is_acknowledged(api: Recorded, box: ToolBox) -> None:
    second = Delivered()
    settings = settings_for(api)
    api.command = command("noop", {})
    async with open_worker_api(settings, "w1") as client:
        runner = CommandRunner(client, box, settings)

        async def again(path: str) -> None:
            if path.endswith("/claim"):
                await runner.handle(second)

        api.on_request = again
        await runner.handle(Delivered())
    assert second.ended == ["ack"]
    assert len(api.batches()) == 1


async def test_keychain_is_resolved_and_kept_out_of_the_log(api: Recorded, box: ToolBox) -> None:
    code = "result = {'echo': token, 'whole': whole, 'n': n, 'none': none}"
    args = {
        "token": "Bearer {{ keychain.k.token }}",
        "whole": {"$noetl_ref": {"kind": "keychain", "name": "k", "field": "token"}},
        "n": "{{ workload.n + 1 }}",
        "none": "{{ nothing.at.all }}",
    }
    api.command = command("python", {"code": code, "args": args}, names={"catalog_id": "77", "workload": {"n": 1}})
    await handled(api, box)
    response = api.batches()[-1][-3]["payload"]["response"]
    assert response == {"echo": "Bearer [REDACTED]", "whole": "[REDACTED]", "n": 2, "none": None}
    assert sum(path == "/api/keychain/77/k" for path, _, _ in api.requests) == 1


async def test_only_the_places_that_the_server_names_are_rendered(api: Recorded, box: ToolBox) -> None:
    args = {"data": "{{ keychain.k.token }} and {{ 1 + 1 }}", "own": "{{ keychain.k.token }}"}
    code = "result = {'data': data, 'own': own}"
    api.command = command("python", {"code": code, "args": args}, names={"catalog_id": "77"})
    api.command["context"]["deferred"] = [["tool_config", "args", "own"], ["tool_config", "gone", 3]]
    await handled(api, box)
    response = api.batches()[-1][-3]["payload"]["response"]
    assert response == {"data": args["data"], "own": "[REDACTED]"}


async def test_a_tool_is_stopped_when_its_execution_is_cancelled(api: Recorded, box: ToolBox) -> None:
    api.answers[f"/api/executions/{EXECUTION}/cancellation-check"] = [
        (200, {"cancelled": False}),
        (200, {"cancelled": True}),
    ]
    api.command = command("python", {"code": "import time\ntime.sleep(60)"})
    async with asyncio.timeout(20):
        await handled(api, box, noetl_command_heartbeat_interval_seconds=0.05)
    call = next(event for event in api.batches()[-1] if event["name"] == "call.error")
    assert "cancelled" in str(call["payload"]["response"])


async def test_cancelling_a_command_stops_its_tool_and_reports_nothing(api: Recorded, box: ToolBox) -> None:
    running = asyncio.Event()

    async def started(path: str) -> None:
        if path == "/api/events/batch":
            running.set()

    api.on_request = started
    api.command = command("python", {"code": "import time\ntime.sleep(60)"})
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        task = group.create_task(handled(api, box))
        await running.wait()
        task.cancel()
    assert [len(batch) for batch in api.batches()] == [2]


async def test_registration_recovers(api: Recorded) -> None:
    stop = asyncio.Event()
    api.answers["/api/worker/pool/heartbeat"] = [(404, {"detail": {"status": "unknown"}})]

    async def count(_: str) -> None:
        if len(api.requests) == 3:
            stop.set()

    api.on_request = count
    async with asyncio.timeout(10), open_worker_api(settings_for(api), "w1") as client:
        registration = Registration(client, 0.01)
        await registration.keep(stop)
        await registration.leave()
    assert [path.rsplit("/", 1)[1] for path, _, _ in api.requests] == [
        "register",
        "heartbeat",
        "register",
        "deregister",
    ]


async def test_parts_that_the_originals_server_keeps_elsewhere_are_read(api: Recorded, box: ToolBox) -> None:
    """The original's server replaces each part of a command over 8 KiB by a placeholder."""
    stored = {"code": "result = {'big': len(text)}", "args": {"text": "{{ step.text }}"}}
    api.answers["/api/result/resolve"] = [(200, stored), (200, {"step": {"text": "x" * 9000}})]
    api.command = command("python", {"kind": "result_ref", "ref": "noetl://execution/700/result/s_tool_config/1"})
    api.command["context"]["render_context"] = {"kind": "result_ref", "ref": "noetl://execution/700/result/s_render/2"}
    await handled(api, box)
    assert api.batches()[-1][-3]["payload"]["response"] == {"big": 9000}


async def test_a_part_that_is_gone_fails_the_command_by_name(api: Recorded, box: ToolBox) -> None:
    api.answers["/api/result/resolve"] = [(404, {"detail": "not found"})]
    api.command = command("noop", {"kind": "result_ref", "ref": "noetl://execution/700/result/s_tool_config/1"})
    await handled(api, box)
    assert "`tool_config` of the command is stored as noetl://" in api.batches()[-1][-3]["payload"]["error"]


async def test_an_output_of_megabytes_is_stored(api: Recorded) -> None:
    async with open_worker_api(settings_for(api), "w1") as client:
        reference = await client.put_result(EXECUTION, "s", b'"' + b"x" * 3_000_000 + b'"')
    assert reference["locator"].startswith("noetl://")
    assert len(api.requests[-1][2]["data"]) == 3_000_000
