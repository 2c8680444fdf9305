"""The API process: opens its resources, mounts the routes, serves until told to stop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote

import asyncpg
from aiohttp import web

from services.api.access import check_mode, open_access
from services.api.auth.actor import NOBODY
from services.api.bus import Bus
from services.api.children import ChildWatch
from services.api.context import ApiContext
from services.api.crypto import Cipher
from services.api.housekeeping import housekeeping
from services.api.http import HttpError, RouteSpec, RouteTable, build_call, error_reply
from services.api.identity import lease_ids
from services.api.metrics import REQUEST_SECONDS, REQUESTS
from services.api.openapi import DOCUMENT, openapi_document
from services.api.playbooks import PlaybookCatalog
from services.api.routes import (
    analysis,
    assistants,
    audit,
    batches,
    catalog,
    commands,
    credentials,
    cross_region,
    dashboard,
    documents,
    editor,
    endings,
    events,
    execution,
    executions,
    frames,
    gcp,
    health,
    internal,
    internal_hooks,
    keychain,
    lookups,
    mcp,
    readmodel,
    rendering,
    replay,
    results,
    runtime,
    runtimes,
    sql,
    stream,
    subscriptions,
    suites,
    system,
    temp,
    tokens,
    variables,
)
from services.api.routes import (
    database as database_routes,
)
from services.api.routes import wallet as wallet_routes
from services.api.store.database import Database
from services.api.store.migrate import MigrationError, require_current_schema
from services.api.store.migrate import migrate as migrate_database
from services.api.store.stream_batch import WireOptions
from services.api.store.stream_writer import Committed, StreamWriter
from services.api.stream_watch import watch
from services.api.timers import TimerClock
from services.api.user_sql import UserSql
from services.api.wallet import Wallet
from shared.messaging.connection import connect
from shared.platform.lifecycle import BAD_SETTINGS, read_settings, run_service
from shared.platform.logging import LOG_FIELDS, configure_logging
from shared.platform.settings import ApiSettings
from shared.platform.tracing import extract, span
from shared.wire.ids import SnowflakeLayout
from shared.wire.subjects import STREAM_WAKE_SUBJECT

log = logging.getLogger(__name__)

KEEPALIVE_SECONDS = 75.0  # aiohttp's AppRunner default is 3630 s (libraries.md section 5)
RECONNECT_SECONDS = 1.0  # between attempts to reach NATS at start; afterwards the client reconnects itself
SLASHED = ("path", "playbook", "suite_id")  # path parameters that match slashes
CORS_MAX_AGE_SECONDS = 600  # the original's preflight lifetime

TABLES: tuple[RouteTable, ...] = (
    health.routes,
    documents.routes,
    execution.routes,
    stream.routes,
    endings.routes,
    analysis.routes,
    executions.routes,
    events.routes,
    batches.routes,
    lookups.routes,
    commands.routes,
    catalog.routes,
    assistants.routes,
    editor.routes,
    suites.routes,
    runtime.routes,
    credentials.routes,
    gcp.routes,
    keychain.routes,
    variables.routes,
    rendering.routes,
    results.routes,
    sql.routes,
    database_routes.routes,
    dashboard.routes,
    system.routes,
    mcp.routes,
    readmodel.routes,
    internal.routes,
    tokens.routes,
    audit.routes,
    wallet_routes.routes,
    temp.routes,
    replay.routes,
    frames.routes,
    runtimes.routes,
    subscriptions.routes,
    internal_hooks.routes,
    cross_region.routes,
)

CONTEXT: web.AppKey[ApiContext] = web.AppKey("context", ApiContext)


def database_dsn(settings: ApiSettings) -> str:
    """Return the DSN in force: NOETL_POSTGRES_DSN, or one built from the POSTGRES_* settings."""
    given = settings.noetl_postgres_dsn.get_secret_value()
    if given:
        return given
    user, password = (
        quote(settings.postgres_user, safe=""),
        quote(settings.postgres_password.get_secret_value(), safe=""),
    )
    login = f"{user}:{password}" if password else user
    return (
        f"postgresql://{login}@{settings.postgres_host}:{settings.postgres_port}/{quote(settings.postgres_db, safe='')}"
    )


def _mounted(spec: RouteSpec) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        context = request.app[CONTEXT]
        access = context.access
        started = time.perf_counter()
        status, actor = 500, NOBODY
        LOG_FIELDS.set({})
        try:
            with span(f"{spec.method} {spec.path}", parent=extract(request.headers)):
                actor = await access.admit(request, spec)
                LOG_FIELDS.set({"actor": actor.label})
                limit = access.body_bytes_max(actor)
                call = await build_call(context, spec, request, actor, body_bytes_max=limit)
                access.check_elevated(actor, spec, call.query)
                response = await spec.handler(call)
                status = response.status
                return response
        except HttpError as error:
            status = error.status
            return error_reply(error, rust=spec.rust_errors)
        except (TimeoutError, OSError) as error:
            status = 503
            log.warning("dependency unavailable", extra={"route": spec.path, "error": type(error).__name__})
            return error_reply(_unavailable())
        finally:
            seconds = time.perf_counter() - started
            REQUESTS.inc()
            REQUEST_SECONDS.labels(spec.method, spec.path, str(status)).observe(seconds)
            access.note(request, spec, actor, status)
            if log.isEnabledFor(logging.DEBUG):
                fields = {"route": f"{spec.method} {spec.path}", "status": status, "seconds": round(seconds, 6)}
                log.debug("request", extra={**fields, **request.match_info})

    return handle


def _unavailable() -> HttpError:
    return HttpError(
        503,
        {"code": "db_unavailable", "message": "the database is unavailable; try again"},
        headers={"Retry-After": "1"},
    )


def _path_pattern(path: str) -> str:
    """Return the aiohttp pattern of a documented path: some parameters match slashes."""
    for name in SLASHED:
        path = path.replace(f"{{{name}}}", f"{{{name}:.+}}")
    return path


@web.middleware
async def edge(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn what no route answers into the original's JSON errors; add CORS."""
    try:
        request.app[CONTEXT].access.origins.check(request.headers)
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return _preflight(request)
        response = await handler(request)
    except HttpError as error:
        return error_reply(error)  # without the headers that would let a foreign page read it
    except web.HTTPException as error:
        response = await _redirect_or_error(request, error)
    except Exception as error:  # noqa: BLE001 - the boundary of a request: it must be answered, without a stack trace
        response = _unexpected(request, error)
    _allow_origin(request, response)
    return response


def _allow_origin(request: web.Request, response: web.StreamResponse) -> None:
    """Let every origin read the answer; one that sends cookies must be named, or browsers refuse."""
    origin = request.headers.get("Origin")
    if not origin or response.prepared:
        return
    if "Cookie" in request.headers:
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers.add("Vary", "Origin")
    else:
        response.headers["Access-Control-Allow-Origin"] = "*"
    response.headers["Access-Control-Allow-Credentials"] = "true"


def _preflight(request: web.Request) -> web.Response:
    headers = {
        "Vary": "Origin",
        "Access-Control-Allow-Methods": "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT",
        "Access-Control-Max-Age": str(CORS_MAX_AGE_SECONDS),
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Allow-Origin": request.headers.get("Origin", "*"),
    }
    wanted = request.headers.get("Access-Control-Request-Headers")
    if wanted:
        headers["Access-Control-Allow-Headers"] = wanted
    return web.Response(text="OK", headers=headers)


async def _redirect_or_error(request: web.Request, error: web.HTTPException) -> web.StreamResponse:
    """Send a path with a trailing slash to the route without it, as the original does; else the error as JSON."""
    bare = request.url.with_path(request.path.rstrip("/"), keep_query=True)
    if error.status == 404 and request.path.endswith("/") and bare.path != "/":
        found = await request.app.router.resolve(request.clone(rel_url=bare.relative()))
        if found.http_exception is None or found.http_exception.status == 405:
            return web.Response(status=307, headers={"Location": str(bare)})
    return _plain_error(error)


def _plain_error(error: web.HTTPException) -> web.Response:
    if 300 <= error.status < 400:
        raise error
    details = {404: "Not Found", 405: "Method Not Allowed"}
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
    return error_reply(HttpError(error.status, details.get(error.status, error.reason), headers=headers))


def _unexpected(request: web.Request, error: Exception) -> web.Response:
    if isinstance(error, asyncpg.DataError):
        log.info("values refused", extra={"path": request.path, "error": type(error).__name__})
        return error_reply(HttpError(422, f"the database refuses these values: {type(error).__name__}"))
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        log.info("values conflict", extra={"path": request.path, "error": type(error).__name__})
        detail = {"code": "conflict", "message": f"this conflicts with what is stored ({error.constraint_name})"}
        return error_reply(HttpError(409, detail))
    if type(error).__module__.startswith("asyncpg"):
        log.warning("database refused", extra={"path": request.path, "error": type(error).__name__})
        return error_reply(_unavailable())
    log.exception("request failed", extra={"path": request.path})
    return error_reply(HttpError(500, "internal error; it has been logged"))


def build_app(context: ApiContext) -> web.Application:
    """Return the application with every route mounted on `context`."""
    app = web.Application(middlewares=[edge], client_max_size=context.settings.noetl_max_body_bytes)
    app[CONTEXT] = context
    app[DOCUMENT] = openapi_document(TABLES)
    for table in TABLES:
        for spec in table.specs:
            app.router.add_route(spec.method, _path_pattern(spec.path), _mounted(spec))
    return app


async def open_context(settings: ApiSettings, stack: AsyncExitStack, stopping: asyncio.Event) -> ApiContext:
    """Open the resources of one API process; `stack` closes them.

    Raises:
        DatabaseUnavailableError: Postgres cannot be used.
        MigrationError: the schema is not up to date.
        AccessSettingsError: the settings about who may call cannot be used.
        RuntimeError: no node number is free.
    """
    check_mode(settings)
    dsn = database_dsn(settings)
    database = await Database.open(
        dsn, size_min=settings.noetl_postgres_pool_min, size_max=settings.noetl_postgres_pool_max
    )
    stack.push_async_callback(database.close)
    await require_current_schema(database)
    ids = await lease_ids(
        dsn, node_id=settings.noetl_snowflake_node_id, layout=SnowflakeLayout(settings.noetl_snowflake_layout)
    )
    stack.push_async_callback(ids.close)
    bus = Bus(readers_max=settings.noetl_streams_max, readers_per_client_max=settings.noetl_streams_per_client_max)
    listeners: list[Callable[[Committed], None]] = [bus.committed]

    def on_commit(change: Committed) -> None:
        for listener in listeners:
            listener(change)

    writer = StreamWriter(
        database,
        lanes=settings.noetl_ingest_lanes,
        queue_max=settings.noetl_ingest_queue_max,
        batch_max=settings.noetl_ingest_batch_max,
        wire=WireOptions(
            server_url=settings.noetl_server_url,
            routing_enabled=settings.noetl_command_routing_enabled,
            event_partitions=settings.noetl_event_partitions,
        ),
        next_id=ids.next,
        on_commit=on_commit,
    )
    cipher = Cipher.from_settings(settings)
    wallet = Wallet(database, cipher)
    await wallet.status()  # so that /readyz knows of missing keys from the start
    context = ApiContext(
        settings=settings,
        database=database,
        writer=writer,
        ids=ids,
        bus=bus,
        cipher=cipher,
        wallet=wallet,
        playbooks=PlaybookCatalog(database),
        access=await open_access(settings, database, stack),
        user_sql=UserSql(dsn, timeout_seconds=settings.noetl_sql_timeout_seconds, rows_max=settings.noetl_sql_rows_max),
        dashboard=dashboard.StatsCache(),
        profiler=system.MemoryProfiler(),
        stopping=stopping,
        started_at_monotonic=time.monotonic(),
    )
    context.children, context.timers = ChildWatch(context), TimerClock(context)
    listeners += [context.children.committed, context.timers.committed]
    return context


async def _attach_nats(context: ApiContext, stop: asyncio.Event) -> None:
    """Connect the bus; the API serves without it meanwhile, because NATS is only the wake-up."""
    settings = context.settings
    while not stop.is_set():
        try:
            connection = await connect(settings.nats_url, name="playhead-api")
        except (OSError, TimeoutError) as error:
            log.warning("nats unavailable", extra={"error": type(error).__name__})
            await _pause(stop, RECONNECT_SECONDS)
            continue
        try:
            await connection.subscribe(f"{STREAM_WAKE_SUBJECT}.*", cb=_waker(context.bus))
            context.bus.attach(connection)
            context.bus.kick()
            await stop.wait()
        finally:
            await connection.close()


def _waker(bus: Bus) -> Callable[[Any], Awaitable[None]]:
    async def on_message(message: Any) -> None:
        bus.on_message(message.subject)

    return on_message


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


async def main(settings: ApiSettings, stop: asyncio.Event) -> None:
    """Serve until `stop`, then finish what runs: no new requests, open writes committed, streams closed."""
    drained = asyncio.Event()  # set after the HTTP side is down, so that its last writes still find their lanes
    async with AsyncExitStack() as stack:
        context = await open_context(settings, stack, stop)
        runner = web.AppRunner(
            build_app(context),
            access_log=None,
            keepalive_timeout=KEEPALIVE_SECONDS,
            shutdown_timeout=settings.noetl_shutdown_seconds / 2,
            auto_decompress=True,
        )
        await runner.setup()
        async with asyncio.TaskGroup() as group:
            group.create_task(context.writer.run(drained))
            group.create_task(context.bus.run(drained))
            group.create_task(context.children.run(drained))
            group.create_task(context.timers.run(drained))
            group.create_task(_attach_nats(context, stop))
            group.create_task(housekeeping(context, drained))
            watching = group.create_task(watch(context, stop))
            site = web.TCPSite(runner, settings.noetl_host, settings.noetl_port, backlog=1024)
            await site.start()
            log.info(
                "serving", extra={"host": settings.noetl_host, "port": settings.noetl_port, "node": context.ids.node_id}
            )
            await stop.wait()
            context.bus.wake_all()
            watching.cancel()
            await runner.cleanup()
            drained.set()
            context.bus.kick()
            context.children.wake()
            context.timers.wake()


def run() -> int:
    """Run `playhead api` and return its exit code."""
    return run_service("api", ApiSettings, main)


def migrate() -> int:
    """Run `playhead migrate`: bring the schema up to date; 0 when it is."""
    settings = read_settings(ApiSettings)
    if settings is None:
        return BAD_SETTINGS
    configure_logging("migrate", settings.noetl_log_level, settings.noetl_log_format)
    try:
        applied = asyncio.run(migrate_database(database_dsn(settings)))
    except (MigrationError, OSError) as error:
        log.error("migration failed", extra={"error": str(error)})  # noqa: TRY400 - the message is the whole story
        return 1
    log.info("schema is up to date", extra={"applied": applied})
    return 0
