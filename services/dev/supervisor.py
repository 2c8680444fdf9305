"""The whole stack on one machine: Postgres, NATS and every service as child processes, started, watched and stopped.

Layout of the data directory: `lock`, `internal-api-token`, `encryption-key` (both 0600), `postgres/`, `nats/`, `logs/`, `run/`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from services.dev.lock import DataDirLock
from services.dev.nats_server import EmbeddedNats
from services.dev.postgres import EmbeddedPostgres
from services.dev.processes import (
    ADMIN_TOKEN_FILE,
    LOOPBACK,
    Child,
    DevError,
    LogFollower,
    Printer,
    ProcessTable,
    clean_orphans,
    describe_exit,
    free_port,
    http_status,
    kill_group,
    log_tail,
    require_free_port,
    rotate_log,
    spawn,
    terminate,
    wait_exit,
    write_private,
)

READY_SECONDS_MAX = 60.0  # from the first child to everything ready, migrations included
READY_POLL_SECONDS = 0.1
START_EXITS_MAX = 3  # a child that ended so often before the stack was ready will not come up
HTTP_OK = 200

RESTART_FIRST_SECONDS = 0.2  # doubles with every exit
RESTART_LONGEST_SECONDS = 5.0
RESTART_RESET_SECONDS = 30.0  # alive for so long, the next exit counts as the first

# From the stop on; each phase kills what is left at its end. The whole stop has 10 s, 2 s of them for SIGKILL to take effect.
STOP_SERVICES_SECONDS = 4.5
STOP_API_SECONDS = 6.5
STOP_SERVERS_SECONDS = 8.0
SERVICE_SHUTDOWN_SECONDS = (
    3  # NOETL_SHUTDOWN_SECONDS of the children: they give up by themselves before they are killed
)

TOKEN_BYTES = 32  # internal API token: 256 random bits
KEY_BYTES = 32  # AES-256
LOG_POLL_SECONDS = 0.2  # delay of passed-through lines

SERVICES = ("api", "outbox", "orchestrator", "projector", "worker")
API_SECRETS = (
    "NOETL_POSTGRES_DSN",
    "NOETL_ENCRYPTION_KEY",
    "NOETL_ENCRYPTION_KEY_FILE",
    "NOETL_ADMIN_TOKEN",
    "NOETL_ADMIN_TOKEN_FILE",
    "NOETL_INTERNAL_API_TOKEN_PREVIOUS",
    "NOETL_API_TOKEN",  # of whoever types, for `playhead run`
)


@dataclass(frozen=True, slots=True)
class DevOptions:
    """What `playhead dev` can be told. Port 0 = any free port, the same for the whole run."""

    data_dir: Path
    port: int = 8082
    nats_port: int = 4222
    monitor_port: int = 8222
    workers: int = 1
    ready_file: Path | None = None
    quiet: bool = False
    log_level: str = "INFO"


@dataclass(frozen=True, slots=True)
class ReadyInfo:
    """Where everything is. Contains the database password: the ready file is readable by its owner only."""

    api_url: str
    nats_url: str
    nats_monitor_url: str
    postgres_dsn: str
    services: dict[str, int]  # name: pid
    internal_api_token_file: str


@dataclass(slots=True)
class Supervised:
    """A child that is started again whenever it ends, until it is closed."""

    name: str
    log_file: Path
    start: Callable[[], Child]
    is_ready: Callable[[], Awaitable[bool]]
    before_start: Callable[[], Awaitable[None]] | None = None
    child: Child | None = None
    exits: int = 0

    async def run(
        self, table: ProcessTable, closing: asyncio.Event, say: Callable[[str], None], on_start: Callable[[], None]
    ) -> None:
        """Keep it running until `closing`; then it is not started again, but stopping it is left to `stop`."""
        delay = RESTART_FIRST_SECONDS
        while not closing.is_set():
            alive_seconds = 0.0
            try:
                if self.before_start is not None:
                    await self.before_start()
                if closing.is_set():
                    return
                self.child = self.start()
                table.add(self.child)
                on_start()
                code = await wait_exit(self.child.process)
                alive_seconds = time.monotonic() - self.child.started
                kill_group(self.child.pid)
                table.remove(self.name)
                reason = f"ended: {describe_exit(code)}"
            except (DevError, OSError) as error:
                reason = f"could not be started: {error}"
            self.exits += 1
            if closing.is_set():
                return
            delay = RESTART_FIRST_SECONDS if alive_seconds >= RESTART_RESET_SECONDS else delay
            say(f"{self.name} {reason}; starting it again in {delay:g} s")
            await pause(closing, delay)
            delay = min(delay * 2, RESTART_LONGEST_SECONDS)

    async def wait_ready(self) -> None:
        """Wait until it answers that it is ready.

        Raises:
            DevError: it ended `START_EXITS_MAX` times.
        """
        while self.child is None or self.child.process.poll() is not None or not await self.is_ready():
            if self.exits >= START_EXITS_MAX:
                raise DevError(f"{self.name} does not start; end of {self.log_file}:\n{log_tail(self.log_file)}")
            await asyncio.sleep(READY_POLL_SECONDS)

    async def stop(self, table: ProcessTable, deadline: float) -> None:
        """Stop it, with SIGKILL at `deadline` (time.monotonic())."""
        if self.child is not None:
            await terminate(self.child, deadline - time.monotonic())
            table.remove(self.name)


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait `seconds`, or until `stop` is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


def service_command(service: str, *arguments: str) -> list[str]:
    """Return the command line of a service; `-P` keeps the current directory out of its imports."""
    return [sys.executable, "-P", "-m", f"services.{service}", *arguments]


def kept_secret(path: Path, make: Callable[[], str]) -> str:
    """Return the content of `path`; made and stored with mode 0600 when absent."""
    if not path.exists():
        write_private(path, make())
    return path.read_text(encoding="ascii").strip()


def first_dev_error(error: BaseException) -> DevError | None:
    """Return the first `DevError` in a tree of exception groups."""
    if isinstance(error, DevError):
        return error
    members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return next((found for member in members if (found := first_dev_error(member))), None)


def resolve_options(options: DevOptions, taken: set[int]) -> DevOptions:
    """Check the ports that were asked for and choose those left open; `taken` receives all of them."""
    asked = (
        ("port", options.port, "the API", "--port"),
        ("nats_port", options.nats_port, "NATS", "--nats-port"),
        ("monitor_port", options.monitor_port, "the NATS monitor", "--monitor-port"),
    )
    for _, port, what, option in asked:
        if port and port in taken:
            raise DevError(f"port {port} is asked for twice: choose another with {option}")
        if port:
            require_free_port(port, what, option)
            taken.add(port)
    chosen = {field: port or free_port(taken) for field, port, _, _ in asked}
    return replace(options, port=chosen["port"], nats_port=chosen["nats_port"], monitor_port=chosen["monitor_port"])


class _Stack:
    """One run of the stack. The lock is held and no earlier process is left."""

    def __init__(self, options: DevOptions, on_ready: Callable[[ReadyInfo], None] | None) -> None:
        self._taken: set[int] = set()
        self.options = resolve_options(options, self._taken)
        self._on_ready = on_ready
        self._data = options.data_dir
        self._token_file = self._data / "internal-api-token"
        self._key_file = self._data / "encryption-key"
        self._admin_file = self._data / ADMIN_TOKEN_FILE
        self._make_secrets()
        self._postgres = EmbeddedPostgres(
            self._data / "postgres", port=free_port(self._taken), log_file=self._log_file("postgres")
        )
        self._nats = EmbeddedNats(
            self._data / "nats",
            port=self.options.nats_port,
            monitor_port=self.options.monitor_port,
            log_file=self._log_file("nats"),
        )
        self._table = ProcessTable(self._data)
        self._children: dict[str, Supervised] = {}
        self._awaited: dict[str, Path] = {}  # what start-up waits for: log file
        self._closing = asyncio.Event()
        self._is_ready = False
        self._failure: DevError | None = None
        self._notes = Printer(2)
        self._lines = None if options.quiet else Printer(1)
        self._followers: dict[str, LogFollower] = {}

    # ---------------------------------------------------------------------------------------------------------- parts

    def _make_secrets(self) -> None:
        if not self._key_file.exists() and (self._data / "postgres").exists():
            raise DevError(
                f"{self._key_file} is missing, so credentials in the existing database cannot be decrypted: restore it"
            )
        self._token = kept_secret(self._token_file, lambda: secrets.token_urlsafe(TOKEN_BYTES))
        kept_secret(self._key_file, lambda: base64.b64encode(os.urandom(KEY_BYTES)).decode())
        kept_secret(self._admin_file, lambda: secrets.token_urlsafe(TOKEN_BYTES))

    def _log_file(self, name: str) -> Path:
        path = self._data / "logs" / f"{name}.log"
        rotate_log(path)
        return path

    def _say(self, text: str) -> None:
        """Tell the person at the terminal, and logs/playhead.log."""
        self._notes.line("playhead", text)
        with contextlib.suppress(OSError), (self._data / "logs" / "playhead.log").open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def _environment(self, service: str, metrics_port: int) -> dict[str, str]:
        """Return the environment of a service; what opens the database only the API gets."""
        env = {name: value for name, value in os.environ.items() if name not in API_SECRETS}
        if self.options.workers > 1:
            env.pop("WORKER_ID", None)  # one name for several workers would make them one
        path = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
        env |= {
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "PYTHONUNBUFFERED": "1",
            "NATS_URL": self._nats.url,
            "NOETL_SERVER_URL": f"http://{LOOPBACK}:{self.options.port}",
            "NOETL_PORT": str(self.options.port),
            "NOETL_INTERNAL_API_TOKEN": self._token,
            "NOETL_METRICS_HOST": LOOPBACK,
            "NOETL_LOG_FORMAT": "text",
            "NOETL_LOG_LEVEL": self.options.log_level,
            "NOETL_SHUTDOWN_SECONDS": str(SERVICE_SHUTDOWN_SECONDS),
            "PLAYHEAD_PARENT_PID": str(os.getpid()),
        }
        if service == "api":
            env.setdefault(
                "NOETL_INGEST_LANES", "1"
            )  # the database is next door: a second lane only halves the batches
            env |= {"NOETL_POSTGRES_DSN": self._postgres.dsn(), "NOETL_ENCRYPTION_KEY_FILE": str(self._key_file)}
            env["NOETL_ADMIN_TOKEN_FILE"] = str(self._admin_file)
        else:
            env[f"NOETL_{service.upper()}_METRICS_PORT"] = str(metrics_port)
        return env

    def _servers(self) -> list[Supervised]:
        postgres, nats = self._postgres, self._nats
        return [
            Supervised("postgres", postgres.log_file, postgres.spawn, postgres.is_ready, postgres.stop_leftovers),
            Supervised("nats", nats.log_file, nats.spawn, nats.is_ready),
        ]

    def _services(self) -> list[Supervised]:
        names = [(name, name) for name in SERVICES]
        names += [(f"worker-{number}", "worker") for number in range(2, self.options.workers + 1)]
        return [self._service(name, service) for name, service in names]

    def _service(self, name: str, service: str) -> Supervised:
        log_file = self._log_file(name)
        port = self.options.port if service == "api" else free_port(self._taken)
        env = self._environment(service, port)

        def start() -> Child:
            return spawn(name, service_command(service), log_file=log_file, env=env)

        async def is_ready() -> bool:
            return await http_status(port, "/readyz") == HTTP_OK

        return Supervised(name, log_file, start, is_ready)

    # ---------------------------------------------------------------------------------------------------------- start

    async def run(self, stop: asyncio.Event) -> None:
        """Start everything, watch it until `stop`, stop everything.

        Raises:
            DevError: it did not start.
        """
        try:
            async with asyncio.TaskGroup() as group:
                following = group.create_task(self._follow())
                watching = group.create_task(self._watch(stop))
                starting = group.create_task(self._start(group))
                try:
                    await self._closing.wait()
                finally:
                    self._closing.set()
                    starting.cancel()
                    await self._stop_children()
                    watching.cancel()
                    following.cancel()
        finally:
            self._pass_lines()
            for printer in filter(None, (self._lines, self._notes)):
                printer.close()
        if self._failure is not None:
            raise self._failure

    async def _watch(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._closing.set()

    async def _start(self, group: asyncio.TaskGroup) -> None:
        """Start everything; on failure remember it and have the stack closed."""
        try:
            async with asyncio.timeout(READY_SECONDS_MAX):
                await self._start_servers(group)
                await self._migrate()
                await self._start_and_wait(group, self._services())
        except TimeoutError:
            self._failure = DevError(self._describe_awaited())
            self._closing.set()
        except (DevError, ExceptionGroup) as error:
            found = first_dev_error(error)
            if found is None:
                raise
            self._failure = found
            self._closing.set()
        else:
            self._is_ready = True
            self._write_ready_file()
            if self._on_ready is not None:
                self._on_ready(self.ready_info())

    async def _start_servers(self, group: asyncio.TaskGroup) -> None:
        self._nats.prepare()
        postgres, nats = self._servers()
        async with asyncio.TaskGroup() as both:
            both.create_task(self._start_and_wait(group, [nats]))
            both.create_task(self._start_postgres(group, postgres))

    async def _start_postgres(self, group: asyncio.TaskGroup, postgres: Supervised) -> None:
        self._awaited[postgres.name] = postgres.log_file
        await self._postgres.prepare()
        await self._start_and_wait(group, [postgres])
        await self._postgres.ensure_database()

    async def _migrate(self) -> None:
        name = "migrate"
        log_file = self._awaited[name] = self._log_file(name)
        self._followers[name] = LogFollower(log_file)
        env = self._environment("api", 0)
        child = spawn(name, service_command("api", "migrate"), log_file=log_file, env=env)
        self._table.add(child)
        try:
            code = await wait_exit(child.process)
        finally:
            await terminate(child, 0)
            self._table.remove(name)
        if code != 0:
            raise DevError(
                f"the database cannot be migrated ({describe_exit(code)}); end of {log_file}:\n{log_tail(log_file)}"
            )
        del self._awaited[name]

    async def _start_and_wait(self, group: asyncio.TaskGroup, children: Iterable[Supervised]) -> None:
        async with asyncio.TaskGroup() as waits:
            for child in children:
                self._children[child.name] = child
                self._awaited[child.name] = child.log_file
                self._followers[child.name] = LogFollower(child.log_file)
                group.create_task(child.run(self._table, self._closing, self._say, self._write_ready_file))
                waits.create_task(self._wait_ready(child))

    async def _wait_ready(self, child: Supervised) -> None:
        await child.wait_ready()
        self._awaited.pop(child.name, None)

    def _describe_awaited(self) -> str:
        tails = [f"end of {path}:\n{log_tail(path)}" for path in self._awaited.values()]
        return "\n".join([f"not ready after {READY_SECONDS_MAX:g} s: {', '.join(self._awaited)}", *tails])

    # ----------------------------------------------------------------------------------------------------- ready file

    def ready_info(self) -> ReadyInfo:
        """Return where everything is now."""
        order = ["postgres", "nats", *(name for name in self._children if name not in ("postgres", "nats"))]
        children = ((name, self._children[name].child) for name in order)
        return ReadyInfo(
            api_url=f"http://{LOOPBACK}:{self.options.port}",
            nats_url=self._nats.url,
            nats_monitor_url=self._nats.monitor_url,
            postgres_dsn=self._postgres.dsn(),
            services={name: child.pid for name, child in children if child is not None},
            internal_api_token_file=str(self._token_file),
        )

    def _write_ready_file(self) -> None:
        path = self.options.ready_file
        if path is not None and self._is_ready and not self._closing.is_set():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_private(path, json.dumps(asdict(self.ready_info()), indent=1) + "\n")
            except OSError as error:
                self._say(f"the ready file cannot be written: {error}")

    # ------------------------------------------------------------------------------------------------------------ logs

    async def _follow(self) -> None:
        """Pass lines through until cancelled."""
        while self._lines is not None:
            self._pass_lines()
            await asyncio.sleep(LOG_POLL_SECONDS)

    def _pass_lines(self) -> None:
        if self._lines is not None:
            for name, follower in self._followers.items():
                for line in follower.lines():
                    self._lines.line(name, line)

    # ------------------------------------------------------------------------------------------------------------ stop

    async def _stop_children(self) -> None:
        """Stop in the order that lets everybody finish: who calls the API, the API, who the API calls."""
        begun = time.monotonic()
        if self.options.ready_file is not None:
            self.options.ready_file.unlink(missing_ok=True)
        servers = {"postgres", "nats"}
        phases = (
            (set(self._children) - servers - {"api"}, STOP_SERVICES_SECONDS),
            ({"api"}, STOP_API_SECONDS),
            (servers, STOP_SERVERS_SECONDS),
        )
        for names, limit_seconds in phases:
            async with asyncio.TaskGroup() as group:
                for name in names & set(self._children):
                    group.create_task(self._children[name].stop(self._table, begun + limit_seconds))


async def run_stack(
    options: DevOptions, stop: asyncio.Event, *, on_ready: Callable[[ReadyInfo], None] | None = None
) -> int:
    """Run the stack until `stop` is set. Call from the main thread: Postgres and NATS go down with the calling thread.

    Args:
        on_ready: called once, when everything is ready and the ready file is written.

    Returns:
        0 after a stop, 1 when it could not start; the reason is then on stderr.
    """
    options = replace(options, data_dir=options.data_dir.expanduser().absolute())
    try:
        with DataDirLock(options.data_dir):
            if options.ready_file is not None:
                options.ready_file.unlink(missing_ok=True)
            for name in await clean_orphans(options.data_dir):
                sys.stderr.write(f"playhead dev: stopped {name}, left over from an earlier run\n")
            (options.data_dir / "logs").mkdir(mode=0o700, exist_ok=True)
            await _Stack(options, on_ready).run(stop)
    except (DevError, BaseExceptionGroup) as error:
        found = first_dev_error(error)
        if found is None:
            raise
        sys.stderr.write(f"playhead dev: {found}\n")
        return 1
    return 0
