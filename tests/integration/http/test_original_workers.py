"""Both workers of the original serve executions, with their own calls, bodies and NATS objects, beside and instead of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shared.messaging.connection import connect
from tests.conftest import TEMPLATE
from tests.e2e.playbooks import LINEAR
from tests.support.api import RunningApi, running_api
from tests.support.nats import NatsServer
from tests.support.original_workers import WAIT_SECONDS_MAX, PythonWorker, RustWorker, services_running
from tests.support.postgres import PostgresServer

PIPELINE = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: pipeline, path: e2e/pipeline}
workflow:
  - step: start
    tool:
      - {name: fetch, kind: http, url: "http://example.invalid/{{ ctx.page }}"}
      - {name: keep, kind: python, input: {rows: "{{ _prev.data }}"}, code: "result = rows"}
    next: {arcs: [{step: finish}]}
  - step: finish
    tool: {kind: python, input: {total: "{{ ctx.total }}", last: "{{ start.n }}"}, code: "result = total"}
"""
LOOP = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: loop, path: e2e/loop}
workload: {items: [a, b, c]}
workflow:
  - step: each
    loop: {in: "{{ workload.items }}", iterator: item, spec: {mode: parallel, max_in_flight: 3}}
    tool: {kind: python, input: {value: "{{ iter.item }}"}, code: "result = value"}
    next: {arcs: [{step: finish, when: "{{ event.name == 'loop.done' }}"}]}
  - step: finish
    tool: {kind: python, input: {all: "{{ each.results }}"}, code: "result = all"}
"""
STEP_INPUT = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: given, path: e2e/given}
workflow:
  - step: start
    input: {a: 1, b: 1}
    tool: {kind: python, input: {b: 2}, code: "result = a + b"}  # the step wins
"""
POOLS = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: pools, path: e2e/pools}
workflow:
  - step: start
    tool: {kind: noop}
    next: {spec: {mode: inclusive}, arcs: [{step: tasks}, {step: special}]}
  - step: tasks
    tool: [{name: one, kind: noop}]
  - step: special
    execution_pool: gpu
    tool: {kind: noop}
"""


class Original:
    """An API with its services, and the workers that a test wants."""

    def __init__(self, api: RunningApi, connection: Any) -> None:
        self.api = api
        self.mine: set[int] = set()
        self._connection = connection

    async def start(self, text: str, payload: dict[str, Any] | None = None) -> int:
        execution = await self.api.start(text, payload)
        self.mine.add(execution)
        return execution

    async def python(self, *segments: str) -> PythonWorker:
        worker = PythonWorker(self.api, self._connection, "worker-398f2a91", self.mine)
        await worker.start(segments or ("legacy",))
        return worker

    async def rust(self, subject: str = "noetl.commands") -> RustWorker:
        worker = RustWorker(self.api, self._connection, "1f0c6a1e-rust", self.mine)
        await worker.start(subject)
        return worker

    async def ended(self, execution: int) -> dict[str, Any]:
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while True:
                _, status = await self.api.request("GET", f"/api/executions/{execution}/status")
                if status["completed"] or status["failed"]:
                    return dict(status)
                await asyncio.sleep(0.05)


@asynccontextmanager
async def platform(server: PostgresServer, name: str, **settings: Any) -> AsyncIterator[tuple[RunningApi, Any]]:
    """Run API, orchestrator, outbox and NATS on a database of their own."""
    nats = NatsServer()
    await nats.start()
    dsn = await server.create_database(name, TEMPLATE)
    try:
        async with running_api(dsn, nats_url=nats.url, **settings) as api, services_running(api, nats):
            connection = await connect(nats.url, name="test")
            yield api, connection
            await connection.close()
    finally:
        await server.drop_database(name)
        await nats.close()


@pytest.fixture(scope="module")
async def shared(postgres_server: PostgresServer) -> AsyncIterator[tuple[RunningApi, Any]]:
    async with platform(postgres_server, "original_workers") as made:
        yield made


@pytest.fixture
def original(shared: tuple[RunningApi, Any]) -> Original:
    return Original(*shared)


@pytest.fixture
async def routed(postgres_server: PostgresServer) -> AsyncIterator[Original]:
    async with platform(postgres_server, "routed", noetl_command_routing_enabled=True) as made:
        yield Original(*made)


# --- Python -----------------------------------------------------------------------------------------------------------


async def test_the_python_worker_runs_an_execution_to_its_end(original: Original) -> None:
    worker = await original.python()
    execution = await original.start(LINEAR, {"name": "Ada"})
    notification, command, message = await worker.take()
    assert message.subject == "noetl.commands"
    assert set(notification) == {"execution_id", "event_id", "command_id", "step", "server_url"}
    assert notification["server_url"] == original.api.url
    assert notification["execution_id"] == command["execution_id"] == execution
    assert command["context"]["spec"] == {"next_mode": "exclusive"}
    assert command["context"]["render_context"]["server_url"] == original.api.url, "where it looks for the keychain"
    await worker.heartbeat(command)
    await worker.done(command, {"greeting": "Hello, Ada!", "sum": 3}, {"sum": 3})
    await message.ack()
    _, command, message = await worker.take()
    assert command["node_name"] == "finish"
    assert command["context"]["tool_config"]["input"] == {"greeting": "Hello, Ada!", "seen": 3}
    await worker.done(command, {"message": "HELLO"})
    status = await original.ended(execution)
    assert (status["status"], status["completed"], status["failed"]) == ("COMPLETED", True, False)


async def test_the_python_worker_runs_task_sequences(original: Original) -> None:
    worker = await original.python()
    execution = await original.start(PIPELINE)
    notification, command, _ = await worker.take()
    assert (notification["step"], command["action"]) == ("start:task_sequence", "task_sequence")
    tasks = command["context"]["tool_config"]["tasks"]
    assert [(task["name"], task["kind"]) for task in tasks] == [("fetch", "http"), ("keep", "python")]
    assert tasks[1]["input"] == {"rows": "{{ _prev.data }}"}, "the worker renders them"
    response = {"status": "ok", "_prev": {"n": 2}, "results": {"fetch": {}, "keep": {"n": 2}}, "ctx": {"total": 7}}
    await worker.done(command, {**response, "metrics": {"task_count": 2}})
    _, command, _ = await worker.take()
    assert command["context"]["tool_config"]["input"] == {"total": 7, "last": 2}
    await worker.done(command, 7)
    assert (await original.ended(execution))["status"] == "COMPLETED"


async def test_the_python_worker_runs_loops(original: Original) -> None:
    worker = await original.python()
    execution = await original.start(LOOP)
    taken = [await worker.take() for _ in range(3)]
    for _, command, _ in reversed(taken):
        assert command["meta"]["loop_event_id"] == command["meta"]["__loop_epoch_id"]
        await worker.done(command, command["context"]["tool_config"]["input"]["value"])
    _, command, _ = await worker.take()
    assert command["context"]["tool_config"]["input"] == {"all": ["a", "b", "c"]}
    await worker.done(command, {})
    assert (await original.ended(execution))["status"] == "COMPLETED"


async def test_the_python_worker_reports_failures_in_two_ways(original: Original) -> None:
    worker = await original.python()
    tool, inside = await original.start(LINEAR), await original.start(LINEAR)
    taken = {command["execution_id"]: command for _, command, _ in [await worker.take(), await worker.take()]}
    await worker.failed(taken[tool], "Tool returned error status", {"id": "t", "status": "error", "error": "no"})
    await worker.broke(taken[inside], "Tool kind 'x' not implemented")
    for execution, text in ((tool, "Tool returned error status"), (inside, "Tool kind 'x' not implemented")):
        status = await original.ended(execution)
        assert (status["status"], status["failed"]) == ("FAILED", True)
        assert text in str(status["error"])
        kinds = [event["event_type"] for event in await original.api.log(execution)]
        assert kinds.count("call.error") == kinds.count("playbook.failed") == 1


async def test_a_large_result_of_the_python_worker_is_read_from_its_own_store(original: Original) -> None:
    """It keeps results over its limit in a NATS bucket, packed when over 10 KiB, and tells scalars and the place."""
    worker = await original.python()
    execution = await original.start(LINEAR)
    _, command, _ = await worker.take()
    data = {"greeting": "Hi", "sum": 3, "blob": "x" * 20_000}
    locator = await worker.keep_result(execution, "start", data)
    reference = {"type": "nats", "locator": locator, "store": "kv", "bytes": 224, "compression": "gzip"}
    await worker.done(command, None, {"sum": 3}, reference=reference)
    _, command, _ = await worker.take()
    assert command["context"]["tool_config"]["input"] == {"greeting": "Hi", "seen": 3}


async def test_a_result_under_the_python_workers_own_limit_is_taken_inline(original: Original) -> None:
    worker = await original.python()
    await original.start(LINEAR)
    _, command, _ = await worker.take()
    await worker.done(command, {"greeting": "Hi", "sum": 3, "blob": "x" * 900_000}, {"sum": 3})
    _, command, _ = await worker.take()
    assert command["context"]["tool_config"]["input"] == {"greeting": "Hi", "seen": 3}


async def test_the_python_worker_drops_what_it_need_not_do(original: Original) -> None:
    """Each refusal has a code that the worker knows; without one it would ask every second for ever."""
    worker = await original.python()
    execution = await original.start(LINEAR)
    notification, command, _ = await worker.take()
    other = PythonWorker(original.api, None, "worker-other")  # type: ignore[arg-type] # claims only
    status, refused = await other.claim(notification)
    assert (status, refused["detail"]["code"]) == (409, "active_claim")
    status, again = await worker.claim(notification)  # the same message once more, while the command runs
    assert (status, again["detail"]["code"]) == (409, "active_claim")
    await worker.done(command, {"greeting": "", "sum": 1})
    status, ended = await worker.claim(notification)
    assert (status, ended["detail"]["code"]) == (409, "already_terminal")
    message = await worker.next_message()
    await original.api.request("POST", f"/api/executions/{execution}/cancel", {})
    status, cancelled = await worker.claim({"event_id": int(message.data.split(b'"event_id":')[1].split(b",")[0])})
    assert status == 409
    assert cancelled["detail"]["code"] in ("execution_cancelled", "already_terminal")
    late = await worker.batch(command, [{"step": "start", "name": "command.failed", "payload": {"error": "late"}}])
    assert late["status"] == "accepted"


async def test_a_batch_of_the_python_worker_repeated_after_a_lost_answer_counts_once(original: Original) -> None:
    worker = await original.python()
    execution = await original.start(LINEAR)
    _, command, _ = await worker.take()
    event = {"step": "start", "name": "command.heartbeat", "payload": {"command_id": command["meta"]["command_id"]}}
    first = await worker.batch(command, [event], key="k")
    second = await worker.batch(command, [event], key="k")
    assert first["event_ids"] == second["event_ids"]
    kinds = [item["event_type"] for item in await original.api.log(execution)]
    assert kinds.count("command.heartbeat") == 1


async def test_what_the_python_worker_reads_beside_commands(original: Original) -> None:
    api = original.api
    body = {"name": "pg", "type": "postgres", "data": {"db_host": "h", "db_password": "p"}}
    assert (await api.request("POST", "/api/credentials", body))[0] == 200
    status, credential = await api.request("GET", "/api/credentials/pg?include_data=true")
    assert (status, credential["type"], credential["data"]) == (200, "postgres", body["data"])
    assert (await api.request("GET", "/api/credentials/no?include_data=true"))[0] == 404
    execution = await original.start(LINEAR)
    catalog = (await api.log(execution))[0]["catalog_id"]
    token = {"token_data": {"t": "secret"}, "credential_type": "oauth2_client_credentials", "cache_type": "token"}
    token |= {"scope_type": "global", "ttl_seconds": 3000, "auto_renew": True, "renew_config": {"endpoint": "http://x"}}
    assert (await api.request("POST", f"/api/keychain/{catalog}/k", token))[0] == 200
    status, entry = await api.request("GET", f"/api/keychain/{catalog}/k?scope_type=global")
    assert (status, entry["status"], entry["token_data"]) == (200, "success", {"t": "secret"})
    status, entry = await api.request("GET", f"/api/keychain/{catalog}/other?scope_type=local&execution_id={execution}")
    assert (status, entry["status"]) == (200, "not_found")


async def test_a_child_that_the_python_worker_starts_and_polls(original: Original) -> None:
    """Its playbook tool sends everything it knows as the payload, wants exactly 200, and reads two booleans."""
    api = original.api
    parent = await original.start(LINEAR)
    body = {"path": "e2e/linear", "payload": {"name": "x", "job": {"id": "1"}}, "parent_execution_id": parent}
    status, started = await api.request("POST", "/api/execute", body)
    assert (status, isinstance(started["execution_id"], str)) == (200, True)
    status, child = await api.request("GET", f"/api/executions/{started['execution_id']}/status")
    assert (status, child["completed"], child["failed"]) == (200, False, False)


# --- Rust -------------------------------------------------------------------------------------------------------------


async def test_the_rust_worker_runs_an_execution_to_its_end(original: Original) -> None:
    worker = await original.rust()
    assert await worker.heartbeat() == 200
    execution = await original.start(LINEAR, {"name": "Ada"})
    _, command = await worker.take()
    config = worker.tool_config(command)
    assert (config["kind"], config["input"]["name"]) == ("python", "Ada")
    assert command["meta"]["command_id"]
    await worker.done(command, {"greeting": "Hello, Ada!", "sum": 3})
    _, command = await worker.take()
    assert worker.tool_config(command)["input"] == {"greeting": "Hello, Ada!", "seen": 3}
    await worker.done(command, {"message": "HELLO"})
    status = await original.ended(execution)
    assert (status["status"], status["is_cancelled"]) == ("COMPLETED", False)


async def test_a_failure_of_the_rust_worker_that_comes_as_success(original: Original) -> None:
    worker = await original.rust()
    failing, broken = await original.start(LINEAR), await original.start(LINEAR)
    commands = {command["execution_id"]: command for _, command in [await worker.take(), await worker.take()]}
    await worker.done(commands[failing], {"exit_code": 2, "stderr": "no"}, status="error")
    await worker.broke(commands[broken], "Tool not found: X")
    for execution in (failing, broken):
        assert (await original.ended(execution))["status"] == "FAILED"
    assert "Tool not found: X" in str((await original.ended(broken))["error"])


async def test_a_large_result_of_the_rust_worker_is_stored_and_reached_into(original: Original) -> None:
    worker = await original.rust()
    execution = await original.start(LINEAR)
    _, command = await worker.take()
    data = {"status": "success", "data": {"greeting": "Hi", "sum": 41, "blob": "x" * 200_000}}
    body = {"name": "start", "data": data, "scope": "execution", "source_step": "start"}
    status, stored = await original.api.request("PUT", f"/api/result/{execution}", body)
    assert 200 <= status < 300
    assert {"ref", "store", "scope"} <= stored.keys()
    reference = {
        "kind": "result_ref",
        **{key: stored[key] for key in ("ref", "store", "scope")},
        "meta": {"bytes": 200_000},
    }
    await worker.done(command, None, reference=reference)
    _, command = await worker.take()
    assert worker.tool_config(command)["input"] == {"greeting": "Hi", "seen": 41}


async def test_step_input_reaches_both_workers(original: Original) -> None:
    """The Rust worker reads `args` of the context only, and refuses a tool that has `args` and `input`."""
    worker = await original.rust()
    await original.start(STEP_INPUT)
    _, command = await worker.take()
    config = worker.tool_config(command)
    assert config.get("args", config.get("input")) == {"a": 1, "b": 1}


async def test_the_rust_worker_is_never_told_to_try_a_dead_command_again(original: Original) -> None:
    """It gives back everything that is no 409, at once and for ever."""
    worker = await original.rust()
    await original.start(LINEAR)
    notification, command = await worker.take()
    await worker.done(command, {"greeting": "", "sum": 1})
    assert (await worker.claim(notification))[0] == 409
    status, _ = await RustWorker(original.api, None, "other").claim(notification)  # type: ignore[arg-type]
    assert status == 409


async def test_a_credential_as_the_rust_worker_decodes_it(original: Original) -> None:
    body = {"name": "b", "type": "bearer", "data": {"token": "t"}}
    await original.api.request("POST", "/api/credentials", body)
    status, credential = await original.api.request("GET", "/api/credentials/b?include_data=true&execution_id=1")
    assert status == 200
    assert isinstance(credential["id"], str)
    assert (credential["name"], credential["type"], credential["data"]) == ("b", "bearer", {"token": "t"})
    assert credential.get("tags") is None or isinstance(credential["tags"], list)
    assert "tags" not in credential or credential["tags"] is not None, "null does not decode"


# --- pools ------------------------------------------------------------------------------------------------------------


async def test_with_routing_each_command_reaches_one_pool(routed: Original) -> None:
    """Given a Rust worker on the shared pool and Python workers on two others, each gets what only it may run."""
    rust = await routed.rust("noetl.commands.shared.>")
    python = await routed.python("python")
    special = await routed.python("gpu")
    execution = await routed.start(POOLS)
    notification, command = await rust.take()
    assert notification["step"] == "start"
    await rust.done(command, {})
    notification, command, message = await python.take()
    assert (notification["step"], message.subject) == ("tasks:task_sequence", f"noetl.commands.python.{execution}")
    await python.done(command, {"status": "ok", "_prev": {}, "results": {"one": {}}, "ctx": {}, "metrics": {}})
    await message.ack()
    notification, command, message = await special.take()
    assert (notification["step"], message.subject) == ("special", f"noetl.commands.gpu.{execution}")
    await special.done(command, {})
    await message.ack()
    assert (await routed.ended(execution))["status"] == "COMPLETED"
    for worker in (rust, python, special):
        assert await worker.is_idle()
