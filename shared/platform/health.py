"""`/metrics`, `/livez` and `/readyz` of services that serve nothing else."""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

log = logging.getLogger(__name__)


@asynccontextmanager
async def serve_metrics(host: str, port: int, *, ready: Callable[[], bool]) -> AsyncIterator[None]:
    """Serve until the block is left.

    Args:
        host: address to bind.
        port: port to bind; 0 = any free port. One that is taken, as by a second worker on one machine, is replaced by a
            free one with a warning: a service must not stay down for its metrics.
        ready: whether the service does its work now; false answers 503 on `/readyz`.

    Raises:
        OSError: `host` cannot be bound.
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
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port == 0:
                raise
            await web.TCPSite(runner, host, 0).start()
            found = runner.addresses[-1][1]
            log.warning("metrics port is taken; another is used", extra={"wanted": port, "port": found})
        yield
    finally:
        await runner.cleanup()
