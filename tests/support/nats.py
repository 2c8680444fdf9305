"""A throw-away nats-server that a test can take down and bring back on the same port."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from nats.aio.client import Client
from nats.js.api import KeyValueConfig
from nats.js.kv import KeyValue

from services.dev.nats_server import READY_SECONDS, EmbeddedNats
from services.dev.processes import free_port

RESULT_TTL_SECONDS = 7200  # clients.md section 1.7


class NatsServer:
    """nats-server with JetStream in a temporary directory. `stop()` and `start()` keep port and streams."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="playhead-nats-"))
        taken: set[int] = set()
        self._server = EmbeddedNats(self._directory, port=free_port(taken), monitor_port=free_port(taken))

    @property
    def url(self) -> str:
        """What clients connect to."""
        return self._server.url

    @property
    def monitor_url(self) -> str:
        """The HTTP monitor."""
        return self._server.monitor_url

    async def start(self) -> None:
        """Start and wait until healthy; nothing when it runs."""
        if self._server.child is not None:
            return
        self._server.prepare()
        self._server.spawn()
        await self._server.wait_ready(READY_SECONDS)

    async def stop(self) -> None:
        """Take the server down; its streams stay on disk."""
        await self._server.stop()

    async def close(self) -> None:
        """Stop and delete everything."""
        await self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)


async def result_bucket(client: Client) -> KeyValue:
    """Return the bucket in which a Python worker of the original keeps large results, made as that worker makes it."""
    config = KeyValueConfig(bucket="noetl_result_store", ttl=RESULT_TTL_SECONDS, history=1)
    return await client.jetstream().create_key_value(config)
