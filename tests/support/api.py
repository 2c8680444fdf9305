"""The API service in this process, on a real database: its own `main`, on a free port."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from pydantic import SecretStr

from services.api.app import main
from services.dev.processes import free_port
from shared.platform.api_client import ApiClient, open_api
from shared.platform.settings import ApiSettings, CommonSettings

TOKEN = "token-of-the-tests"
READY_SECONDS_MAX = 20.0
UNREACHABLE_NATS = "nats://127.0.0.1:1"


class RunningApi:
    """A running API: `request` for the public routes, `client` for the internal ones."""

    def __init__(self, url: str, session: aiohttp.ClientSession, client: ApiClient, dsn: str = "") -> None:
        self.dsn = dsn
        self.url = url
        self.session = session
        self.client = client

    async def request(self, method: str, path: str, body: object = None, **options: Any) -> tuple[int, Any]:
        """Return status and JSON."""
        async with self.session.request(method, self.url + path, json=body, **options) as response:
            return response.status, await response.json(content_type=None)

    async def start(self, text: str, payload: dict[str, Any] | None = None) -> int:
        """Register a playbook, start it, and return the execution id."""
        status, entry = await self.request("POST", "/api/catalog/register", {"content": text})
        assert status == 200, entry
        body = {"catalog_id": entry["catalog_id"], "payload": payload or {}}
        status, started = await self.request("POST", "/api/execute", body)
        assert status == 200, started
        return int(started["execution_id"])

    async def log(self, execution_id: int) -> list[dict[str, Any]]:
        """Return the envelopes of an execution in order."""
        answer = await self.client.load({execution_id: 0}, snapshots=False)
        events: list[dict[str, Any]] = answer["executions"][0]["events"]
        return events

    async def work(self, execution_id: int, step: str, response: object = None, *, error: str | None = None) -> None:
        """Do what a worker does for the open command of `step`: claim it and report its end."""
        issued = next(
            item
            for item in reversed(await self.log(execution_id))
            if item["event_type"] == "command.issued" and item["node_name"] == step
        )
        path = f"/api/commands/{issued['event_id']}/claim"
        status, answer = await self.request("POST", path, {"worker_id": "w1"})
        assert status == 200, answer
        payload: dict[str, Any] = {"command_id": issued["command_id"], "response": {} if response is None else response}
        kinds = ("call.error", "command.failed") if error else ("call.done", "step.exit", "command.completed")
        if error:
            payload |= {"error": error, "status": "FAILED"}
        events = [
            {"step": step, "name": kind, "payload": payload, "actionable": kind.startswith("call")} for kind in kinds
        ]
        body = {"execution_id": str(execution_id), "worker_id": "w1", "events": events}
        status, answer = await self.request("POST", "/api/events/batch", body)
        assert status == 202, answer


@asynccontextmanager
async def running_api(
    dsn: str,
    *,
    nats_url: str = UNREACHABLE_NATS,
    internal_token: str = TOKEN,
    ready: str = "/readyz",
    **settings: Any,
) -> AsyncIterator[RunningApi]:
    """Run the API until the block is left; it has started when the path `ready` answers 200."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    made = ApiSettings(
        nats_url=nats_url,
        noetl_port=port,
        noetl_server_url=url,
        noetl_postgres_dsn=SecretStr(dsn),
        noetl_internal_api_token=SecretStr(internal_token),
        **{"noetl_encryption_key": SecretStr(base64.b64encode(b"k" * 32).decode()), **settings},
    )
    common = CommonSettings(noetl_server_url=url, noetl_internal_api_token=SecretStr(TOKEN))
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group, aiohttp.ClientSession() as session, open_api(common) as client:
        group.create_task(main(made, stop))
        try:
            await _until_ready(session, url, ready)
            yield RunningApi(url, session, client, dsn)
        finally:
            stop.set()


async def _until_ready(session: aiohttp.ClientSession, url: str, path: str) -> None:
    async with asyncio.timeout(READY_SECONDS_MAX):
        while True:
            try:
                async with session.get(url + path) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.02)
