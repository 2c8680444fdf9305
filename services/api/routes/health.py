"""Health and metrics. `/health` and `/livez` say that the process serves, `/readyz` that it can store events."""

from __future__ import annotations

import logging
import time
from importlib.metadata import version

import asyncpg
from aiohttp import web
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, REGISTRY, generate_latest

from services.api.auth.roles import Access
from services.api.http import Call, RouteTable, reply
from services.api.metrics import BATCH_QUEUE_DEPTH, INFO, POOL_IN_USE, POOL_WAITING, STARTED, UP
from services.api.store import runtime

routes = RouteTable("health")
log = logging.getLogger(__name__)

VERSION = version("playhead")
INFO.labels(VERSION, "playhead-api").set(1)
STARTED.set_to_current_time()


@routes.add("GET", "/", "Say hello", role=Access.PUBLIC)
async def root(_: Call) -> web.StreamResponse:
    """Answer the original's words: a client that looks here must not notice the difference. `/docs` has more for people."""
    return reply({"message": "NoETL API is running (Standalone GUI available externally)"})


@routes.add("GET", "/health", "Liveness, as in the original", role=Access.PUBLIC)
async def health(_: Call) -> web.StreamResponse:
    """Answer without touching the database."""
    return reply({"status": "ok"})


@routes.add("GET", "/api/health", "Liveness, as in the original", role=Access.PUBLIC)
async def api_health(_: Call) -> web.StreamResponse:
    """Answer without touching the database."""
    return reply({"status": "ok"})


@routes.add("GET", "/livez", "Liveness", role=Access.PUBLIC)
async def livez(call: Call) -> web.StreamResponse:
    """Answer how long the process has served."""
    return reply({"status": "ok", "uptime_seconds": round(time.monotonic() - call.context.started_at_monotonic, 3)})


@routes.add("GET", "/readyz", "Readiness", role=Access.PUBLIC, errors=(503,))
async def readyz(call: Call) -> web.StreamResponse:
    """Answer 503 while the database or a key of stored secrets is missing, or it is stopping. NATS may be away: rows wait."""
    problems = ["stopping"] if call.context.stopping.is_set() else []
    problems += call.context.wallet.problems
    try:
        await runtime.ping(call.context.database)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        log.warning("not ready", extra={"error": type(error).__name__})
        problems.append("database unavailable")
    document = {
        "status": "not ready" if problems else "ok",
        "problems": problems,
        "nats": "connected" if call.context.bus.is_connected else "disconnected",
    }
    return reply(document, status=503 if problems else 200)


@routes.add("GET", "/metrics", "Prometheus metrics", role=Access.METRICS, media_type="text/plain")
async def metrics(call: Call) -> web.StreamResponse:
    """Answer every metric of this process."""
    database = call.context.database
    UP.set(1)
    BATCH_QUEUE_DEPTH.set(call.context.writer.queue_depth)
    POOL_IN_USE.set(database.size - database.idle)
    POOL_WAITING.set(database.waiting)
    return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
