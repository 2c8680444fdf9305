"""Child processes of `playhead dev`: ports, start, stop in bounded time, the record that outlives a killed supervisor, logs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import queue
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"

# Below Linux's ephemeral range (net.ipv4.ip_local_port_range starts at 32768), so that no outgoing connection takes the port
# while its service restarts.
FREE_PORT_FIRST = 20_000
FREE_PORT_LAST = 31_999
FREE_PORT_TRIES = 200

EXIT_POLL_SECONDS = 0.05  # how often a process without a pidfd (macOS, orphans) is looked at
KILL_WAIT_SECONDS = 2.0  # from SIGKILL until the kernel has taken the process down
ORPHAN_GRACE_SECONDS = 5.0  # from SIGTERM to SIGKILL for processes of an earlier supervisor
PS_TIMEOUT_SECONDS = 2.0  # `ps` on systems without /proc
HTTP_TIMEOUT_SECONDS = 2.0  # one readiness probe

LOG_ROTATE_BYTES = 10 * 1024 * 1024  # a log larger than this at start moves to <name>.log.1
LOG_TAIL_BYTES = 16 * 1024  # read from the end of a log for an error message
LOG_TAIL_LINES = 20
LOG_READ_BYTES = 1024 * 1024  # passed through per poll and log at most; the rest comes with the next poll
LOG_LINE_BYTES_MAX = 64 * 1024  # a longer line is passed through in pieces
PRINT_QUEUE_LINES_MAX = 10_000  # lines waiting for a slow terminal; beyond, lines are only in the log files
PRINT_DRAIN_SECONDS = 0.5  # at the end, for what is still queued
NAME_WIDTH = 12  # characters of the `name |` prefix

ADMIN_TOKEN_FILE = "admin-token"  # noqa: S105 - a file's name in the data directory; `playhead token` looks for it
DIR_MODE_PRIVATE = 0o700
FILE_MODE_PRIVATE = 0o600


class DevError(RuntimeError):
    """The stack cannot run; the message is written for the person at the terminal."""


# ---------------------------------------------------------------------------------------------------------------- files


def write_private(path: Path, content: str) -> None:
    """Write `content` to `path` at once (temporary file and rename), readable by its owner only."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE_PRIVATE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


# ---------------------------------------------------------------------------------------------------------------- ports


def port_is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
                return False
            raise
    return True


def free_port(taken: set[int] | None = None) -> int:
    """Return a TCP port nobody listens on; with `taken`, one not in it, which it then contains."""
    taken = set() if taken is None else taken
    for _ in range(FREE_PORT_TRIES):
        port = random.randint(FREE_PORT_FIRST, FREE_PORT_LAST)  # noqa: S311 - not a secret
        if port not in taken and port_is_free(port):
            taken.add(port)
            return port
    raise DevError(f"no free TCP port between {FREE_PORT_FIRST} and {FREE_PORT_LAST} after {FREE_PORT_TRIES} tries")


def require_free_port(port: int, what: str, option: str) -> None:
    """Raise a `DevError` that names the option when somebody listens on `port`."""
    if not port_is_free(port):
        raise DevError(
            f"port {port} of {what} is in use or not allowed: stop what uses it, or choose another with {option}"
        )


async def http_status(port: int, path: str, timeout_seconds: float = HTTP_TIMEOUT_SECONDS) -> int:
    """Return the status code of `GET http://127.0.0.1:<port><path>`; 0 when there is no answer in time."""
    try:
        async with asyncio.timeout(timeout_seconds):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\nHost: {LOOPBACK}:{port}\r\nConnection: close\r\n\r\n".encode())
                await writer.drain()
                words = (await reader.readline()).split()
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return 0
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


# ------------------------------------------------------------------------------------------------------------ processes


def process_start_time(pid: int) -> str | None:
    """Return what tells this process from a later one with the same pid; None when it is gone or a zombie.

    On Linux: boot id and start time in clock ticks since boot (field 22 of /proc/<pid>/stat, proc(5)).
    """
    if sys.platform != "linux":
        return _start_time_by_ps(pid)
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    state, start_ticks = fields[0], fields[19]
    return None if state in "ZX" else f"{boot}:{start_ticks}"


def _start_time_by_ps(pid: int) -> str | None:
    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        found = subprocess.run(command, capture_output=True, text=True, timeout=PS_TIMEOUT_SECONDS, check=False)  # noqa: S603
        state, _, started = found.stdout.strip().partition(" ")
        return started.strip() if started and not state.startswith("Z") else None
    return None


def describe_exit(code: int | None) -> str:
    """Return `exit code 3` or `signal SIGKILL`."""
    if code is None:
        return "still running"
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"


@dataclass(frozen=True, slots=True)
class Identity:
    """A user to run a process as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Child:
    """A process this one started, leader of its own session and process group."""

    name: str
    process: subprocess.Popen[bytes]
    stop_signal: signal.Signals
    started: float  # time.monotonic()

    @property
    def pid(self) -> int:
        """Its pid, also the id of its process group."""
        return self.process.pid


def spawn(
    name: str,
    command: Sequence[str],
    *,
    log_file: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: Identity | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    dies_with_parent: bool = False,
) -> Child:
    """Start a child in its own process group; stdout and stderr are appended to `log_file`, stdin is empty.

    Args:
        dies_with_parent: also have the kernel send `stop_signal` when the calling *thread* ends (PR_SET_PDEATHSIG, by
            setpriv(1) where there is one): for programs that do not watch their parent. Call from the main thread.

    Raises:
        DevError: the program cannot be started.
    """
    launcher = shutil.which("setpriv") if dies_with_parent and sys.platform == "linux" else None
    words = [launcher, "--pdeathsig", stop_signal.name.removeprefix("SIG"), *command] if launcher else list(command)
    log_file.parent.mkdir(mode=DIR_MODE_PRIVATE, parents=True, exist_ok=True)
    descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE_PRIVATE)
    try:
        process = subprocess.Popen(  # noqa: S603 - our own programs
            words,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
        )
    except OSError as error:
        raise DevError(f"{name} cannot be started: {error}") from error
    finally:
        os.close(descriptor)
    return Child(name, process, stop_signal, time.monotonic())


async def wait_exit(process: subprocess.Popen[bytes], timeout_seconds: float | None = None) -> int | None:
    """Wait until `process` ends, `timeout_seconds` at most; return its code, None when it still runs."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_seconds):
            while process.poll() is None:
                await _exit_hint(process.pid)
    return process.poll()


async def _exit_hint(pid: int) -> None:
    """Return when `pid` ended (Linux 5.3+, by a pidfd) or after a poll interval."""
    if sys.platform != "linux":
        await asyncio.sleep(EXIT_POLL_SECONDS)
        return
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        await asyncio.sleep(EXIT_POLL_SECONDS)
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        loop.add_reader(descriptor, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def kill_group(pid: int) -> None:
    """SIGKILL what is left of the process group that `pid` leads."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


async def terminate(child: Child, grace_seconds: float) -> int | None:
    """Send the stop signal, wait `grace_seconds`, then SIGKILL; the rest of its group is killed too. Return its exit code."""
    if child.process.poll() is not None:
        return child.process.returncode  # whoever saw it end has dealt with its group; its pid may be another's by now
    child.process.send_signal(child.stop_signal)
    code = await wait_exit(child.process, max(0.0, grace_seconds))
    kill_group(child.pid)
    return code if code is not None else await wait_exit(child.process, KILL_WAIT_SECONDS)


# --------------------------------------------------------------------------------------------------------------- record


@dataclass(frozen=True, slots=True)
class Recorded:
    """A child in the record file."""

    name: str
    pid: int
    start_time: str
    stop_signal: int


class ProcessTable:
    """`<data>/run/processes.json`: the living children, for the next supervisor when this one is killed."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "run" / "processes.json"
        self._children: dict[str, Recorded] = {}

    def add(self, child: Child) -> None:
        """Record a child that was just started; it replaces an earlier one of the same name."""
        start_time = process_start_time(child.pid)
        if start_time is None:
            return  # ended already
        self._children[child.name] = Recorded(child.name, child.pid, start_time, int(child.stop_signal))
        self._write()

    def remove(self, name: str) -> None:
        """Forget a child that ended."""
        if self._children.pop(name, None) is not None:
            self._write()

    def _write(self) -> None:
        """Write the record; on a full disk the stack runs on without, at the risk of orphans after a SIGKILL."""
        with contextlib.suppress(OSError):
            if not self._children:
                self.path.unlink(missing_ok=True)
                return
            self.path.parent.mkdir(mode=DIR_MODE_PRIVATE, parents=True, exist_ok=True)
            write_private(self.path, json.dumps([asdict(child) for child in self._children.values()], indent=1))


def read_recorded(data_dir: Path) -> list[Recorded]:
    """Return what an earlier supervisor recorded; nothing when there is no file or it is unreadable."""
    try:
        rows = json.loads(ProcessTable(data_dir).path.read_text(encoding="utf-8"))
        return [Recorded(str(r["name"]), int(r["pid"]), str(r["start_time"]), int(r["stop_signal"])) for r in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _signal_orphan(orphan: Recorded, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if number == signal.SIGKILL and os.getpgid(orphan.pid) == orphan.pid:
            os.killpg(orphan.pid, number)
        else:
            os.kill(orphan.pid, number)


async def _wait_gone(orphans: list[Recorded], timeout_seconds: float) -> list[Recorded]:
    deadline = time.monotonic() + timeout_seconds
    left = [orphan for orphan in orphans if process_start_time(orphan.pid) == orphan.start_time]
    while left and time.monotonic() < deadline:
        await asyncio.sleep(EXIT_POLL_SECONDS)
        left = [orphan for orphan in left if process_start_time(orphan.pid) == orphan.start_time]
    return left


async def clean_orphans(data_dir: Path, grace_seconds: float = ORPHAN_GRACE_SECONDS) -> list[str]:
    """Stop the recorded children of an earlier supervisor that still run. Hold the lock of `data_dir`.

    A process counts only when pid and start time match, so a reused pid is left alone.

    Returns:
        the names of those that were still running.

    Raises:
        DevError: one survived SIGKILL (another user's, or stuck in the kernel).
    """
    orphans = await _wait_gone(read_recorded(data_dir), 0)
    for orphan in orphans:
        _signal_orphan(orphan, orphan.stop_signal)
    stubborn = await _wait_gone(orphans, grace_seconds)
    for orphan in stubborn:
        _signal_orphan(orphan, signal.SIGKILL)
    left = await _wait_gone(stubborn, KILL_WAIT_SECONDS)
    if left:
        names = ", ".join(f"{orphan.name} (pid {orphan.pid})" for orphan in left)
        raise DevError(f"processes of an earlier run cannot be stopped: {names}")
    ProcessTable(data_dir).path.unlink(missing_ok=True)
    return [orphan.name for orphan in orphans]


# ----------------------------------------------------------------------------------------------------------------- logs


def rotate_log(path: Path) -> None:
    """Move `path` to `<path>.1` when it is larger than `LOG_ROTATE_BYTES`; one old file is kept."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LOG_ROTATE_BYTES:
            path.replace(path.with_name(path.name + ".1"))


def log_tail(path: Path, lines: int = LOG_TAIL_LINES) -> str:
    """Return the last `lines` lines of a log, empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            text = file.read(LOG_TAIL_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


class Printer:
    """Prefixed lines on stdout, written by a thread: a terminal or pipe that does not take them never stops the stack."""

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._lines: queue.Queue[bytes | None] = queue.Queue(PRINT_QUEUE_LINES_MAX)
        self._thread = threading.Thread(target=self._write, name="printer", daemon=True)
        self._thread.start()

    def line(self, name: str, text: str) -> None:
        """Queue `name | text`; dropped when too much waits already."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(f"{name:<{NAME_WIDTH}} | {text}\n".encode("utf-8", errors="replace"))

    def close(self) -> None:
        """Give what is queued `PRINT_DRAIN_SECONDS` to be written."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(PRINT_DRAIN_SECONDS)

    def _write(self) -> None:
        for line in iter(self._lines.get, None):
            data = line
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                continue  # the reader is gone; the log files have the line


class LogFollower:
    """What was appended to a log file since the last look, by whole lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rest = b""
        self._offset = 0
        with contextlib.suppress(OSError):
            self._offset = path.stat().st_size

    def lines(self) -> Iterator[str]:
        """Yield the new complete lines, `LOG_READ_BYTES` at most."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(LOG_READ_BYTES)
        except OSError:
            return
        self._offset += len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LOG_LINE_BYTES_MAX:
            whole.append(self._rest)
            self._rest = b""
        for line in whole:
            yield line.decode("utf-8", errors="replace").rstrip("\r")


SERVER_POLL_SECONDS = 0.03  # between looks at a server that starts


async def wait_server_ready(
    title: str, child: Child | None, is_ready: Callable[[], Awaitable[bool]], *, log_file: Path, timeout_seconds: float
) -> None:
    """Wait until `is_ready`.

    Raises:
        DevError: the child ended, or was not ready after `timeout_seconds`; with the end of its log.
    """
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if child is not None and child.process.poll() is not None:
            raise DevError(f"{title} ended while starting:\n{log_tail(log_file)}")
        if await is_ready():
            return
        await asyncio.sleep(SERVER_POLL_SECONDS)
    raise DevError(f"{title} is not ready after {timeout_seconds:g} s:\n{log_tail(log_file)}")
