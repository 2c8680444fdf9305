"""The same HTTP loop as `POST /api/events`, without a database: read, validate, answer. The yardstick of bench (a)."""

from __future__ import annotations

import sys

import uvloop
from aiohttp import web

from services.api.auth.roles import Access
from services.api.http import RouteSpec, build_call, reply
from services.api.ingest import normalise
from services.api.models import EventBody

SPEC: web.AppKey[RouteSpec] = web.AppKey("spec", RouteSpec)


async def handle(request: web.Request) -> web.Response:
    spec: RouteSpec = request.app[SPEC]
    call = await build_call(None, spec, request)  # type: ignore[arg-type]
    normalise(call.body.model_dump(exclude={"execution_id"}), worker_id=None)
    return reply({"status": "ok", "event_id": 1, "commands_generated": 0})


def application() -> web.Application:
    """Return the loop without a database."""
    app = web.Application()
    app[SPEC] = RouteSpec(
        method="POST",
        path="/api/events",
        handler=handle,  # type: ignore[arg-type]
        summary="",
        tag="",
        role=Access.WORKER,
        body=EventBody,
    )
    app.router.add_post("/api/events", handle)
    return app


def main() -> None:
    uvloop.install()
    web.run_app(application(), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)


if __name__ == "__main__":
    main()
