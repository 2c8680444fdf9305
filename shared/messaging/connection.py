"""A NATS connection that never gives up reconnecting."""

from __future__ import annotations

import asyncio
import logging

import nats.errors
from nats.aio.client import Client

log = logging.getLogger(__name__)

CONNECT_SECONDS = 3.0  # one attempt to reach a server
RECONNECT_WAIT_SECONDS = 0.25  # between attempts; a local server is back in under a second
FIRST_ATTEMPTS_MAX = 24  # to connect at all; more than CONNECT_SECONDS allows
PING_SECONDS = 15  # the library's 120 s would take four minutes to see a dead peer (libraries.md section 3)
PINGS_OUTSTANDING_MAX = 2
PENDING_BYTES = 8 * 1024 * 1024  # sent while disconnected at most; beyond, publish raises and the caller retries


async def connect(url: str, *, name: str) -> Client:
    """Connect to the server(s) of `url`, separated by commas; afterwards the client reconnects for ever.

    Raises:
        OSError: no server answers.
    """

    client = Client()

    async def on_disconnect() -> None:
        if not client.is_closed:
            log.warning("nats disconnected")

    async def on_reconnect() -> None:
        log.info("nats reconnected")

    async def on_error(error: Exception) -> None:
        log.debug("nats error", extra={"error": type(error).__name__})

    try:
        # With no limit of reconnects the client would also never give up the first connection. The limit of attempts beside the
        # time is needed: `asyncio.wait_for` inside the client may swallow the cancellation when an attempt ends at that moment.
        async with asyncio.timeout(CONNECT_SECONDS):
            await client.connect(
                servers=[part.strip() for part in url.split(",") if part.strip()],
                name=name,
                allow_reconnect=True,
                connect_timeout=int(CONNECT_SECONDS),
                reconnect_time_wait=RECONNECT_WAIT_SECONDS,  # type: ignore[arg-type]  # a float works: it goes to asyncio.sleep
                max_reconnect_attempts=FIRST_ATTEMPTS_MAX,
                ping_interval=PING_SECONDS,
                max_outstanding_pings=PINGS_OUTSTANDING_MAX,
                pending_size=PENDING_BYTES,
                disconnected_cb=on_disconnect,
                reconnected_cb=on_reconnect,
                error_cb=on_error,
            )
    except (nats.errors.Error, TimeoutError) as error:
        await client.close()
        raise OSError(f"NATS cannot be reached: {type(error).__name__}") from error
    client.options["max_reconnect_attempts"] = -1
    return client
