"""The baseline of the benchmark answers as the route it stands for: without it (a) compares with nothing."""

from __future__ import annotations

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from bench.baseline import application


async def test_the_baseline_answers_an_event() -> None:
    async with TestClient(TestServer(application())) as client:
        body = {"execution_id": "1", "step": "s", "name": "call.done", "payload": {}}
        response: web.Response = await client.post("/api/events", json=body)  # type: ignore[assignment]
        assert response.status == 200
