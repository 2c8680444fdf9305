"""`/metrics`, `/livez` and `/readyz` of services that serve nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest


@asynccontextmanager
async def serve_metrics(host: str, port: int, *, ready: Callable[[], bool]) -> AsyncIterator[None]:
    """Serve until the block is left.

    Args:
        host: address to bind.
        port: port to bind; 0 = any free port.
        ready: whether the service does its work now; false answers 503 on `/readyz`.

    Raises:
        OSError: the port is taken.
    """

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_: web.Request) -> web.Response:
        fine = ready()
        return web.json_response({"status": "ok" if fine else "not ready"}, status=200 if fine else 503)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()
