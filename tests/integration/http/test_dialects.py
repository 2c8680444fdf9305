"""One API, every client unchanged: what each sends is taken, and what each reads is there in the type it wants.

The bodies are those of clients.md (Python worker 4.26, Rust worker 5.0 to 5.20, CLI 5.3.2, gateway 3.4, GUI 1.11). Whole runs
of both workers are in test_original_workers.py.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conftest import TEMPLATE
from tests.e2e.playbooks import LINEAR
from tests.support.api import RunningApi, running_api
from tests.support.nats import NatsServer
from tests.support.postgres import PostgresServer

DATABASE = "dialects"


@dataclass(frozen=True)
class World:
    """An API with a registered playbook, a running execution and its first command."""

    api: RunningApi
    catalog_id: str
    execution: int
    command: int
    event: int

    def filled(self, value: Any) -> Any:
        """Put the ids of this world in place of their names: `EXECUTION`, `"EXECUTION"` as text, and so on."""
        ids = {
            "CATALOG": int(self.catalog_id),
            "EXECUTION": self.execution,
            "COMMAND": self.command,
            "EVENT": self.event,
        }
        if isinstance(value, dict):
            return {key: self.filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.filled(item) for item in value]
        if isinstance(value, str):
            if value.startswith("int:"):
                return ids[value[4:]]
            for name, number in ids.items():
                value = value.replace(name, str(number))
        return value


@pytest.fixture(scope="module")
async def shared(postgres_server: PostgresServer, nats_server: NatsServer) -> AsyncIterator[tuple[RunningApi, str]]:
    """An API for all tests of this file, with a registered playbook."""
    dsn = await postgres_server.create_database(DATABASE, TEMPLATE)
    async with running_api(dsn, nats_url=nats_server.url) as api:
        _, entry = await api.request("POST", "/api/catalog/register", {"content": LINEAR})
        yield api, entry["catalog_id"]
    await postgres_server.drop_database(DATABASE)


@pytest.fixture
async def world(shared: tuple[RunningApi, str]) -> World:
    api, catalog_id = shared
    _, started = await api.request("POST", "/api/execute", {"path": "e2e/linear"})
    execution = int(started["execution_id"])
    issued = next(item for item in await api.log(execution) if item["event_type"] == "command.issued")
    return World(api, catalog_id, execution, issued["command_id"], issued["event_id"])


PYTHON_REGISTER = {
    "name": "worker-398f2a91", "component_type": "worker_pool", "runtime": "python", "status": "ready", "capacity": 1,
    "pid": 3424, "hostname": "unknown", "labels": {"nats_consumer": "noetl_worker_pool"}, "meta": {"nats_url": "nats://x"},
}  # fmt: skip
RUST_REGISTER = {
    "name": "rust-1", "component_type": "worker_pool", "runtime": {"kind": "rust", "worker_public_key": "AAAA"},
    "status": "ready", "hostname": "h", "labels": {"pool_name": "default"},
}  # fmt: skip
BASE64_LINEAR = base64.b64encode(LINEAR.encode()).decode()

# client, method, path, body, status, what the answer must have: a type, or a value
CALLS: list[tuple[str, str, str, Any, int, dict[str, Any]]] = [
    # starting
    ("CLI", "POST", "/api/execute", {"path": "e2e/linear", "workload": {}, "resource_kind": "playbook"}, 200,
     {"execution_id": str, "status": "started"}),
    ("CLI with version", "POST", "/api/execute", {"path": "e2e/linear", "version": 1, "workload": {}}, 200,
     {"execution_id": str}),
    ("CLI with an id", "POST", "/api/execute", {"path": "CATALOG", "workload": {}}, 200, {"execution_id": str}),
    ("GUI", "POST", "/api/execute",
     {"catalog_id": "CATALOG", "version": "1.0", "workload": {}, "resource_kind": "playbook", "merge": False}, 200,
     {"execution_id": str}),
    ("GUI latest", "POST", "/api/execute", {"path": "e2e/linear", "version": "latest", "workload": {}}, 200,
     {"execution_id": str}),
    ("gateway", "POST", "/api/execute",
     {"path": "e2e/linear", "workload": {"request_id": "r"}, "resource_kind": "playbook", "execution_pool": "shared",
      "trace": {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}, 200, {"execution_id": str}),
    ("Rust subscription", "POST", "/api/execute",
     {"path": "e2e/linear", "payload": {}, "parent_execution_id": "int:EXECUTION", "dedup": {"key": "m1", "window_secs": 60}},
     200, {"execution_id": str, "commands_generated": int}),
    ("Python playbook tool", "POST", "/api/execute",
     {"path": "e2e/linear", "payload": {"job": {"id": "1"}}, "parent_execution_id": None}, 200, {"execution_id": str}),
    # the status document is one for all
    ("everybody", "GET", "/api/executions/EXECUTION/status", None, 200,
     {"execution_id": "EXECUTION", "completed": False, "failed": False, "completion_inferred": False, "status": "RUNNING",
      "is_cancelled": False, "cancelled": False, "completed_steps": list, "variables": dict, "progress": dict,
      "start_time": str, "end_time": None, "duration_seconds": (int, float), "duration_human": str, "error": None}),
    ("CLI fallback, GUI", "GET", "/api/executions/EXECUTION?page=1&page_size=10", None, 200,
     {"execution_id": "EXECUTION", "status": "RUNNING", "events": list, "pagination": dict, "catalog_id": str}),
    ("agent tool", "GET", "/api/executions/EXECUTION/events?page_size=500&page=1", None, 200, {"events": list}),
    ("Python worker", "GET", "/api/executions/EXECUTION/cancellation-check", None, 200, {"cancelled": False}),
    # commands
    ("Python claim", "POST", "/api/commands/EVENT/claim",
     {"worker_id": "w", "locality": {"worker_pool": "worker-cpu-01", "runtime": "cpu"}}, 200,
     {"execution_id": int, "event_id": int, "node_id": str, "node_name": str, "action": "python", "context": dict,
      "meta": dict}),
    ("Rust claim", "POST", "/api/commands/EVENT/claim", {"worker_id": "w"}, 200,
     {"execution_id": int, "node_id": str, "node_name": str, "action": str, "context": dict, "meta": dict}),
    ("Rust fallback", "GET", "/api/commands/EVENT", None, 200, {"execution_id": int, "action": "python"}),
    ("a dead command", "POST", "/api/commands/1/claim", {"worker_id": "w"}, 404, {"detail": str}),
    # events
    ("Python start", "POST", "/api/events/batch",
     {"execution_id": "EXECUTION", "worker_id": "w", "events": [
         {"step": "start", "name": "command.started", "payload": {"command_id": "int:COMMAND", "worker_id": "w"},
          "actionable": False, "informative": True},
         {"step": "start", "name": "step.enter", "payload": {"status": "started"}, "actionable": False, "informative": True},
     ]}, 202,
     {"status": "accepted", "request_id": str, "event_ids": list, "commands_generated": 0, "queue_depth": int,
      "duplicate": False}),
    ("Python heartbeat", "POST", "/api/events",
     {"execution_id": "EXECUTION", "step": "start", "name": "command.heartbeat",
      "payload": {"command_id": "int:COMMAND", "worker_id": "w"}, "worker_id": "w", "actionable": False, "informative": True},
     200, {"status": "ok", "event_id": int, "commands_generated": int}),
    ("Python after a republish", "POST", "/api/events",
     {"execution_id": "EXECUTION", "step": "start", "name": "command.started", "payload": {"command_id": "COMMAND"}}, 200,
     {"event_id": int}),
    ("Rust started", "POST", "/api/events",
     {"execution_id": "int:EXECUTION", "event_type": "command.started", "step": "start", "status": "STARTED",
      "created_at": "2026-06-12T06:35:28.123456789Z", "context": {"command_id": "COMMAND"}, "event_id": 312345678901234567,
      "worker_id": "rust-1", "meta": {"attempts": 0}}, 200, {"event_id": 312345678901234567}),
    ("Rust done", "POST", "/api/events",
     {"execution_id": "int:EXECUTION", "event_type": "call.done", "step": "start", "status": "COMPLETED",
      "created_at": "2026-06-12T06:35:28.123456789Z", "event_id": 312345678901234568, "worker_id": "rust-1",
      "meta": {"attempts": 0}, "context": {"command_id": "COMMAND", "call_index": 0, "result": {
          "status": "success", "context": {"status": "success", "data": {"greeting": "Hi", "sum": 1}, "duration_ms": 12}}}},
     200, {"event_id": 312345678901234568}),
    ("gateway audit", "POST", "/api/events",
     {"execution_id": "EXECUTION", "step": "gateway", "name": "ingress.accepted", "payload": {"listener": "x"}}, 200,
     {"status": "ok"}),
    # workers
    ("Python worker", "POST", "/api/worker/pool/register", PYTHON_REGISTER, 200,
     {"status": "ok", "name": "worker-398f2a91", "runtime_id": str, "runtime": "python", "kind": "worker_pool"}),
    ("Rust worker 5.13", "POST", "/api/worker/pool/register", RUST_REGISTER, 200, {"status": "ok", "runtime": "rust"}),
    ("Rust worker 5.1", "POST", "/api/worker/pool/register", {**RUST_REGISTER, "runtime": "rust"}, 200, {"runtime": "rust"}),
    ("Rust worker 5.0", "POST", "/api/worker/pool/register", {"worker_id": "r0", "pool_name": "p", "hostname": "h"}, 200,
     {"name": "r0"}),
    ("Rust heartbeat", "POST", "/api/worker/pool/heartbeat", {"name": "nobody"}, 404, {"detail": dict}),
    ("both workers", "POST", "/api/worker/pool/deregister", {"name": "x", "component_type": "worker_pool"}, 200,
     {"status": "ok"}),
    ("Python probe", "GET", "/api/pool/status", None, 200,
     {"pool_min": int, "pool_max": int, "requests_waiting": int, "slots_available": int, "utilization": (int, float)}),
    # variables and keychain
    ("Python variables", "POST", "/api/vars/EXECUTION", {"variables": {"a": 1}, "var_type": "user_defined"}, 200,
     {"execution_id": int, "variables_set": 1, "var_names": ["a"]}),
    ("Rust worker variables", "POST", "/api/vars/EXECUTION", {"name": "value"}, 200, {"var_names": ["name"]}),
    ("Rust server variables", "POST", "/api/vars/EXECUTION",
     {"variables": [{"var_name": "a", "var_value": 1, "var_type": "computed", "source_step": "s"}]}, 200,
     {"var_names": ["a"]}),
    ("Python keychain", "POST", "/api/keychain/CATALOG/k",
     {"token_data": {"t": 1}, "credential_type": "oauth2_client_credentials", "cache_type": "token",
      "scope_type": "global", "ttl_seconds": 60, "auto_renew": True, "renew_config": {"endpoint": "http://x"}}, 200,
     {"status": "success", "catalog_id": int, "cache_key": str, "expires_at": str, "auto_renew": True}),
    ("Rust server keychain", "POST", "/api/keychain/CATALOG/k",
     {"data": {"t": 1}, "scope_type": "global", "expires_in": 60, "auto_renew": False, "renew_config": None}, 200,
     {"status": "success", "cache_key": str, "expires_at": str, "ttl_seconds": 60}),
    ("Python keychain miss", "GET", "/api/keychain/CATALOG/none?scope_type=global", None, 200, {"status": "not_found"}),
    # catalog and credentials
    ("CLI base64", "POST", "/api/catalog/register", {"content": BASE64_LINEAR, "resource_type": "Playbook"}, 200,
     {"status": "success", "path": "e2e/linear", "version": int, "catalog_id": str, "kind": "playbook"}),
    ("GUI raw", "POST", "/api/catalog/register", {"content": LINEAR, "resource_type": "Playbook"}, 200, {"kind": "playbook"}),
    ("GUI list", "POST", "/api/catalog/list", {"resource_type": "Playbook"}, 200, {"entries": list}),
    ("workbook tool", "POST", "/api/catalog/resource", {"catalog_id": "int:CATALOG"}, 200,
     {"path": "e2e/linear", "version": int, "content": str}),
    ("Rust subscription", "POST", "/api/catalog/resource", {"path": "e2e/linear", "version": "latest"}, 200,
     {"content": str}),
    ("CLI credential", "POST", "/api/credentials", {"name": "c", "type": "generic", "data": {"k": "v"}}, 200,
     {"id": str, "name": "c", "tags": []}),
    # ends
    ("CLI cancel", "POST", "/api/executions/EXECUTION/cancel", {"cascade": False}, 200,
     {"status": "cancelled", "execution_id": "EXECUTION", "cancelled_executions": ["EXECUTION"], "message": str}),
    ("GUI stop", "POST", "/api/executions/EXECUTION/stop", None, 200, {"execution_id": "EXECUTION"}),
    ("CLI rerun", "POST", "/api/executions/EXECUTION/rerun", {"workload": {}, "resource_kind": "playbook"}, 200,
     {"execution_id": str, "status": "started"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("client", "method", "path", "body", "status", "wanted"), CALLS, ids=[f"{call[0]} {call[2]}" for call in CALLS]
)
async def test_a_call_of_a_client_is_answered_as_it_wants(
    world: World, client: str, method: str, path: str, body: Any, status: int, wanted: dict[str, Any]
) -> None:
    got, answer = await world.api.request(method, world.filled(path), world.filled(body))
    assert got == status, (client, answer)
    for key, want in world.filled(wanted).items():
        assert key in answer, (client, key, answer)
        if isinstance(want, type | tuple):
            assert isinstance(answer[key], want), (client, key, answer[key])
        else:
            assert answer[key] == want, (client, key)


async def test_a_cancelled_run_reads_as_one_to_everybody(world: World) -> None:
    await world.api.request("POST", f"/api/executions/{world.execution}/cancel")
    _, status = await world.api.request("GET", f"/api/executions/{world.execution}/status")
    assert (status["completed"], status["failed"]) == (True, False)  # the CLI, Python tools
    assert (status["status"], status["is_cancelled"], status["cancelled"]) == (
        "CANCELLED",
        True,
        True,
    )  # Rust tool, GUI


async def test_a_failed_run_reads_as_one_to_everybody(world: World) -> None:
    body = {"status": "FAILED", "error": "boom"}
    await world.api.request("POST", f"/api/executions/{world.execution}/finalize", body)
    _, status = await world.api.request("GET", f"/api/executions/{world.execution}/status")
    assert (status["completed"], status["failed"]) == (
        True,
        True,
    )  # the CLI prints FAILED, Python tools read `failed` first
    assert (status["status"], status["is_cancelled"]) == ("FAILED", False)
    assert "boom" in status["error"]


async def test_a_claim_that_is_refused_has_a_code_that_both_workers_know(world: World) -> None:
    path = f"/api/commands/{world.event}/claim"
    await world.api.request("POST", path, {"worker_id": "one"})
    status, answer = await world.api.request("POST", path, {"worker_id": "two"})
    assert (status, answer["detail"]["code"]) == (409, "active_claim")
    await world.api.request("POST", f"/api/executions/{world.execution}/cancel")
    status, answer = await world.api.request("POST", path, {"worker_id": "two"})
    assert (status, answer["detail"]["code"] in ("execution_cancelled", "already_terminal")) == (409, True)


async def test_late_events_of_a_cancelled_run_are_accepted(world: World) -> None:
    await world.api.request("POST", f"/api/executions/{world.execution}/cancel")
    event = {"step": "start", "name": "call.done", "payload": {"command_id": world.command, "response": {}}}
    body = {"execution_id": str(world.execution), "worker_id": "w", "events": [event]}
    assert (await world.api.request("POST", "/api/events/batch", body))[0] == 202
    assert (await world.api.request("POST", "/api/events", {"execution_id": world.execution, **event}))[0] == 200
