"""The original's two workers, as far as a server can tell: NATS objects, HTTP calls, bodies (clients.md, sections 1 and 2).

Neither is run here: what they send is written down from the reference, field by field.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import uuid
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from services.orchestrator.app import main as orchestrator_main
from services.outbox.app import main as outbox_main
from shared.messaging.topology import commands_stream, ensure_stream
from shared.platform.settings import OrchestratorSettings, OutboxSettings
from tests.support.api import TOKEN, RunningApi
from tests.support.nats import NatsServer, result_bucket

STREAM = "NOETL_COMMANDS"
WAIT_SECONDS_MAX = 20.0


@asynccontextmanager
async def services_running(api: RunningApi, nats: NatsServer) -> AsyncIterator[None]:
    """Run the outbox publisher and the orchestrator beside an API."""
    common: dict[str, Any] = {"nats_url": nats.url, "noetl_server_url": api.url, "noetl_internal_api_token": TOKEN}
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(outbox_main(OutboxSettings(**common, noetl_outbox_metrics_port=0), stop))
        group.create_task(orchestrator_main(OrchestratorSettings(**common, noetl_orchestrator_metrics_port=0), stop))
        try:
            yield
        finally:
            stop.set()


class _Worker:
    """What both have in common: a durable of the command stream, and claims.

    `mine` has the executions of the test; what its durable still has of others is dropped, as if somebody else had done it.
    """

    def __init__(self, api: RunningApi, connection: Client, worker_id: str, mine: Set[int] = frozenset()) -> None:
        self.api = api
        self.worker_id = worker_id
        self.mine = mine
        self.subscriptions: list[Any] = []
        self._connection = connection

    async def next_message(self) -> Any:
        """Return the next message of any of its durables."""
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while True:
                for subscription in self.subscriptions:
                    try:
                        (message,) = await subscription.fetch(1, timeout=0.3)
                    except (nats.errors.TimeoutError, TimeoutError):
                        continue
                    if json.loads(message.data)["execution_id"] in self.mine:
                        return message
                    await message.ack()

    async def is_idle(self) -> bool:
        """Whether no message waits for it."""
        for subscription in self.subscriptions:
            info = await subscription.consumer_info()
            if info.num_pending or info.num_ack_pending:
                return False
        return True


class PythonWorker(_Worker):
    """`python -m noetl.worker` 4.26."""

    async def start(self, segments: tuple[str, ...] = ("legacy",)) -> None:
        """Register, look at the pool, find the stream by its bare subject, and make a durable per segment."""
        status, _ = await self.register()
        assert status == 200
        status, pool = await self.api.request("GET", "/api/pool/status")
        assert status == 200
        assert pool["slots_available"] > 0, "the worker would throttle itself to one command"
        assert {"utilization", "pool_max", "requests_waiting"} <= pool.keys()
        js = self._connection.jetstream()
        await ensure_stream(self._connection, commands_stream(STREAM))  # the outbox publisher does this, at any time
        assert await js.find_stream_name_by_subject("noetl.commands") == STREAM
        for segment in segments:
            name = "noetl_worker_pool" if segment == "legacy" else f"noetl_worker_pool_{segment}"
            subject = None if segment == "legacy" else f"noetl.commands.{segment}.>"
            config = ConsumerConfig(
                durable_name=name,
                deliver_policy=DeliverPolicy.NEW,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=300,
                max_deliver=1000,
                max_ack_pending=64,
                filter_subject=subject,
            )
            await js.add_consumer(STREAM, config)
            self.subscriptions.append(await js.pull_subscribe_bind(name, STREAM))

    async def register(self) -> tuple[int, Any]:
        """Register, which is also its heartbeat."""
        body = {
            "name": self.worker_id,
            "component_type": "worker_pool",
            "runtime": "python",
            "status": "ready",
            "capacity": 1,
            "pid": 3424,
            "hostname": "unknown",
            "labels": {"nats_consumer": "noetl_worker_pool"},
            "meta": {"nats_url": "nats://127.0.0.1:4222", "started_at": datetime.now(UTC).isoformat()},
        }
        return await self.api.request("POST", "/api/worker/pool/register", body)

    async def claim(self, notification: dict[str, Any]) -> tuple[int, Any]:
        """Claim with the original's body."""
        body = {"worker_id": self.worker_id, "locality": {"worker_pool": "worker-cpu-01", "runtime": "cpu"}}
        return await self.api.request("POST", f"/api/commands/{notification['event_id']}/claim", body)

    async def take(self) -> tuple[dict[str, Any], dict[str, Any], Any]:
        """Return notification, claimed command and message of the next command, begun but not ended."""
        message = await self.next_message()
        notification = json.loads(message.data)
        status, command = await self.claim(notification)
        assert status == 200, command
        for key in ("execution_id", "node_id", "node_name", "action", "context", "meta"):
            assert key in command, f"the worker's KeyError: {key}"
        started = [
            self._event(
                command, "command.started", {"command_id": notification["command_id"], "worker_id": self.worker_id}
            ),
            self._event(command, "step.enter", {"status": "started"}),
        ]
        await self.batch(command, started)
        return notification, command, message

    @staticmethod
    def _event(command: dict[str, Any], name: str, payload: dict[str, Any], **more: Any) -> dict[str, Any]:
        event = {
            "step": command["node_name"],
            "name": name,
            "payload": payload,
            "actionable": False,
            "informative": True,
        }
        return {**event, **more}

    async def batch(self, command: dict[str, Any], events: list[dict[str, Any]], key: str = "") -> Any:
        """Send a batch as it does: under a key of worker, execution and a random number."""
        execution = str(command["execution_id"])
        body = {"execution_id": execution, "worker_id": self.worker_id, "events": events}
        key = key or f"{self.worker_id}:{execution}:{uuid.uuid4().hex}"
        status, answer = await self.api.request("POST", "/api/events/batch", body, headers={"Idempotency-Key": key})
        assert 200 <= status < 300, answer
        return answer

    async def heartbeat(self, command: dict[str, Any]) -> None:
        """Renew the lease."""
        ids = {"command_id": command["meta"]["command_id"], "worker_id": self.worker_id}
        event = self._event(command, "command.heartbeat", ids)
        body = {"execution_id": str(command["execution_id"]), "worker_id": self.worker_id, **event}
        status, _ = await self.api.request("POST", "/api/events", body)
        assert status == 200

    def _loop(self, command: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        meta = command["meta"]
        ids = {"loop_event_id": meta.get("loop_event_id"), "loop_iteration_index": meta.get("loop_iteration_index")}
        echoed = {key: meta[key] for key in ("__loop_epoch_id", "loop_iteration_index") if key in meta}
        return ids, {"command_id": meta["command_id"], **echoed}

    async def done(
        self, command: dict[str, Any], response: Any, context: dict[str, Any] | None = None, **result: Any
    ) -> None:
        """Report success; `reference=` instead of a response for a large one."""
        ids, meta = self._loop(command)
        command_id = meta["command_id"]
        result = {"status": "COMPLETED", "context": context or {}, **result}
        call = {"command_id": command_id, **ids, "result": result}
        if "reference" not in result:
            call["response"] = response
        leave = {"status": "COMPLETED", "result": result, "error": None, "command_id": command_id}
        end = {"command_id": command_id, "worker_id": self.worker_id, "result": result}
        events = [
            self._event(command, "call.done", call, actionable=True, meta=meta),
            self._event(command, "step.exit", leave, meta=meta),
            self._event(command, "command.completed", end),
        ]
        await self.batch(command, events)

    async def keep_result(self, execution: int, step: str, data: Any) -> str:
        """Keep a large result in the worker's own store and return its place."""
        locator = f"noetl://execution/{execution}/result/{step}/{uuid.uuid4().hex[:8]}"
        raw = json.dumps(data).encode()
        bucket = await result_bucket(self._connection)
        await bucket.put(
            locator.removeprefix("noetl://").replace("/", "_"), gzip.compress(raw) if len(raw) > 10_240 else raw
        )
        return locator

    async def failed(self, command: dict[str, Any], error: str, response: Any) -> None:
        """Report a tool that failed."""
        ids, meta = self._loop(command)
        command_id, result = meta["command_id"], {"status": "FAILED", "context": {}}
        call = {"command_id": command_id, **ids, "error": error, "response": response, "result": result}
        leave = {"status": "FAILED", "result": result, "error": error, "command_id": command_id}
        end = {"command_id": command_id, "worker_id": self.worker_id, "result": result, "error": error}
        events = [
            self._event(command, "call.error", call, actionable=True, meta=meta),
            self._event(command, "step.exit", leave, meta=meta),
            self._event(command, "command.failed", end),
        ]
        await self.batch(command, events)

    async def broke(self, command: dict[str, Any], error: str) -> None:
        """Report an exception inside the worker: its `call.error` names no command and has no meta."""
        command_id = command["meta"]["command_id"]
        events = [
            self._event(
                command, "call.error", {"error": error, "result": {"status": "FAILED"}}, actionable=True, meta=None
            ),
            self._event(command, "step.exit", {"status": "FAILED", "error": error, "command_id": command_id}),
            self._event(
                command,
                "command.failed",
                {"command_id": command_id, "worker_id": self.worker_id, "error": error, "error_type": "ValueError"},
            ),
        ]
        await self.batch(command, events)


class RustWorker(_Worker):
    """`noetl-worker` 5.20."""

    async def start(self, subject: str = "noetl.commands") -> None:
        """Register (anything but 2xx ends the process), and make a durable with the defaults of its library."""
        runtime = {"kind": "rust", "worker_public_key": "A" * 43 + "="}
        body = {
            "name": self.worker_id,
            "component_type": "worker_pool",
            "runtime": runtime,
            "status": "ready",
            "hostname": "h",
            "labels": {"pool_name": "default"},
        }
        status, answer = await self.api.request("POST", "/api/worker/pool/register", body)
        assert 200 <= status < 300, answer
        js = self._connection.jetstream()
        await ensure_stream(self._connection, commands_stream(STREAM))
        config = ConsumerConfig(
            durable_name="noetl_rust_pool", ack_policy=AckPolicy.EXPLICIT, ack_wait=30, filter_subject=subject
        )
        await js.add_consumer(STREAM, config)
        self.subscriptions.append(await js.pull_subscribe_bind("noetl_rust_pool", STREAM))

    async def heartbeat(self) -> int:
        """Say that it lives."""
        status, _ = await self.api.request("POST", "/api/worker/pool/heartbeat", {"name": self.worker_id})
        return status

    async def claim(self, notification: dict[str, Any]) -> tuple[int, Any]:
        """Claim with the original's body."""
        body = {"worker_id": self.worker_id}
        return await self.api.request("POST", f"/api/commands/{notification['event_id']}/claim", body)

    async def take(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return notification and claimed command of the next command; the message is acknowledged before it runs."""
        message = await self.next_message()
        notification = json.loads(message.data)
        for key in ("execution_id", "event_id"):
            assert type(notification[key]) is int, f"the process exits: {key} is no integer"
        assert {"command_id", "step", "server_url"} <= notification.keys()
        status, command = await self.claim(notification)
        assert status in (200, 201), command
        await message.ack()
        assert type(command["execution_id"]) is int
        assert isinstance(command["context"], dict)
        await self.event(command, "command.started", "STARTED", {})
        return notification, command

    @staticmethod
    def tool_config(command: dict[str, Any]) -> dict[str, Any]:
        """Return the configuration as it deserialises it: `kind` from the action, `args` from the context when absent."""
        context = command["context"]
        config: dict[str, Any] = {"kind": command["action"], **context["tool_config"]}
        if "args" not in config and context.get("args") is not None:
            config["args"] = context["args"]
        assert not ("args" in config and "input" in config), "duplicate field: `input` is an alias of `args`"
        timeout = config.get("timeout")
        assert timeout is None or isinstance(timeout, int), "malformed tool config: timeout is no integer"
        return config

    async def event(self, command: dict[str, Any], kind: str, status: str, context: dict[str, Any]) -> None:
        """Send one event per request, with an id of its own."""
        body = {
            "execution_id": command["execution_id"],
            "event_type": kind,
            "step": command["node_name"],
            "status": status,
            "created_at": "2026-06-12T06:35:28.123456789Z",
            "context": {"command_id": str(command["meta"]["command_id"]), **context},
            "event_id": uuid.uuid4().int >> 66,
            "worker_id": self.worker_id,
            "meta": {"attempts": 0},
        }
        status_code, answer = await self.api.request("POST", "/api/events", body)
        assert 200 <= status_code < 300, answer

    async def done(self, command: dict[str, Any], data: Any, *, status: str = "success", reference: Any = None) -> None:
        """Report the end of a tool, good or bad: it says `call.done` either way."""
        result: dict[str, Any] = {
            "status": status,
            "context": {"status": status, "data": data, "stdout": "", "stderr": ""},
        }
        if reference is not None:
            result = {"status": status, "context": {"data": {"_ref": reference["ref"]}}, "reference": reference}
        await self.event(command, "call.done", "COMPLETED", {"call_index": 0, "result": result})
        await self.event(command, "command.completed", status, {"status": status})

    async def broke(self, command: dict[str, Any], error: str) -> None:
        """Report a tool that could not be run."""
        await self.event(command, "call.error", "FAILED", {"call_index": 0, "error": error})
        await self.event(command, "command.failed", "FAILED", {"error": error})
