"""The life of a service process: settings in, signals heard, everything closed in bounded time, exit code out."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import uvloop
from pydantic import ValidationError

from shared.platform.errors import PlayheadError
from shared.platform.logging import configure_logging
from shared.platform.settings import CommonSettings
from shared.platform.tracing import configure_tracing

log = logging.getLogger(__name__)

PARENT_POLL_SECONDS = 0.5  # how often a supervised service looks whether its supervisor still lives
SHUTDOWN_MARGIN_SECONDS = 1.0  # beyond NOETL_SHUTDOWN_SECONDS; the supervisor kills after 10 s
PARENT_VARIABLE = "PLAYHEAD_PARENT_PID"

GC_THRESHOLDS = (20_000, 20, 50)  # objects, then generations; the default (700, 10, 10) took a tenth of the API's time
BAD_SETTINGS = 2  # exit code

S = TypeVar("S", bound=CommonSettings)


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait `seconds`, or until `stop` is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


async def _watch_parent(stop: asyncio.Event) -> None:
    """Stop when the supervisor named in `PLAYHEAD_PARENT_PID` is gone, even by SIGKILL: then init is our parent."""
    expected = os.environ.get(PARENT_VARIABLE, "")
    while expected.isdigit() and not stop.is_set():
        if os.getppid() != int(expected):
            log.warning("the supervisor is gone; stopping")
            stop.set()
        await pause(stop, PARENT_POLL_SECONDS)


def _tune_collector() -> None:
    """Collect cycles seldom, and never look at what the imports made: request objects are freed by their counts."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _serve(settings: S, main: Callable[[S, asyncio.Event], Awaitable[None]]) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as group:
        group.create_task(_watch_parent(stop))
        serving = group.create_task(_bounded(settings, main, stop))
    return serving.result()


async def _bounded(settings: S, main: Callable[[S, asyncio.Event], Awaitable[None]], stop: asyncio.Event) -> int:
    """Run `main`; after `stop` it has `NOETL_SHUTDOWN_SECONDS` to return before it is cancelled."""
    done = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_until_done(settings, main, stop, done))
            await stop.wait()
            await pause(done, settings.noetl_shutdown_seconds + SHUTDOWN_MARGIN_SECONDS)
            if not done.is_set():
                log.error("shutdown took too long; giving up what is left")
                task.cancel()
    finally:
        stop.set()
    return 0


async def _until_done(
    settings: S, main: Callable[[S, asyncio.Event], Awaitable[None]], stop: asyncio.Event, done: asyncio.Event
) -> None:
    try:
        await main(settings, stop)
    finally:
        done.set()
        stop.set()


def _first_cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def read_settings(kind: type[S]) -> S | None:
    """Return settings from the environment, or None after a line per wrong value on stderr."""
    try:
        return kind()
    except ValidationError as error:
        for item in error.errors(include_url=False, include_context=False, include_input=False):
            name = "_".join(str(part) for part in item["loc"]).upper()
            sys.stderr.write(f"playhead: {name}: {item['msg']} (see `playhead settings`)\n")
        return None


def run_service(name: str, kind: type[S], main: Callable[[S, asyncio.Event], Awaitable[None]]) -> int:
    """Run `main(settings, stop)` until it returns; SIGTERM and SIGINT set `stop`. Settings come from the environment.

    Returns:
        0 after a clean stop, 1 when the service could not start or broke, 2 when a setting is wrong.
    """
    settings = read_settings(kind)
    if settings is None:
        return BAD_SETTINGS
    configure_logging(name, settings.noetl_log_level, settings.noetl_log_format)
    _tune_collector()
    try:
        configure_tracing(name, settings.otel_exporter_otlp_endpoint)
    except ImportError:
        text = "OTEL_EXPORTER_OTLP_ENDPOINT is set, but the exporter is not installed: pip install 'playhead[otlp]'"
        log.error(text)  # noqa: TRY400 - the message is the whole story
        return BAD_SETTINGS
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(settings, main))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 0
    except BaseException as error:
        cause = _first_cause(error)
        if isinstance(cause, OSError | PlayheadError):  # the world's fault: the text says it, a traceback would hide it
            log.error("%s cannot run: %s", name, cause or type(cause).__name__)  # noqa: TRY400
            return 1
        log.error("%s stopped by an error", name, exc_info=cause)  # noqa: TRY400 - the traceback is the cause's
        return 1
