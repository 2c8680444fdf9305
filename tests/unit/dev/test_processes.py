"""Child processes: ports, bounded stop, the record of a killed supervisor, logs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from services.dev.lock import DataDirLock
from services.dev.processes import (
    LOG_ROTATE_BYTES,
    Child,
    DevError,
    LogFollower,
    Printer,
    ProcessTable,
    clean_orphans,
    describe_exit,
    free_port,
    http_status,
    log_tail,
    port_is_free,
    process_start_time,
    require_free_port,
    rotate_log,
    spawn,
    terminate,
    wait_exit,
    write_private,
)

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
]


async def wait_for_line(path: Path) -> None:
    async with asyncio.timeout(10):
        while not log_tail(path):  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.02)


async def started(name: str, command: list[str], directory: Path) -> Child:
    child = spawn(name, command, log_file=directory / f"{name}.log")
    await wait_for_line(directory / f"{name}.log")
    return child


def test_a_free_port_is_free_and_a_taken_one_is_named_with_its_option() -> None:
    taken: set[int] = set()
    ports = [free_port(taken) for _ in range(20)]
    assert set(ports) == taken
    assert all(port_is_free(port) for port in ports)
    with socket.create_server(("127.0.0.1", ports[0])):
        assert not port_is_free(ports[0])
        with pytest.raises(DevError, match=rf"{ports[0]}.*--nats-port"):
            require_free_port(ports[0], "NATS", "--nats-port")


async def test_nobody_listening_is_status_zero() -> None:
    assert await http_status(free_port(), "/readyz") == 0


def test_a_private_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    write_private(tmp_path / "secret", "x")
    write_private(tmp_path / "secret", "y")
    assert (tmp_path / "secret").read_text() == "y"
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("code", "text"), [(0, "exit code 0"), (3, "exit code 3"), (-9, "signal SIGKILL")])
def test_an_exit_is_described(code: int, text: str) -> None:
    assert describe_exit(code) == text


async def test_a_child_that_hears_ends_at_once_and_a_deaf_one_is_killed(tmp_path: Path) -> None:
    hearing = await started("hearing", SLEEP, tmp_path)
    assert await terminate(hearing, 10) == -signal.SIGTERM
    deaf = await started("deaf", DEAF, tmp_path)
    assert await terminate(deaf, 0.2) == -signal.SIGKILL
    assert await terminate(deaf, 5) == -signal.SIGKILL  # again: nothing happens


async def test_the_rest_of_the_group_goes_with_its_leader(tmp_path: Path) -> None:
    code = f"import subprocess, time; p = subprocess.Popen({DEAF!r}); print(p.pid, flush=True); time.sleep(60)"
    leader = await started("leader", [sys.executable, "-c", code], tmp_path)
    follower = int(log_tail(tmp_path / "leader.log").split()[0])
    assert process_start_time(follower) is not None
    await terminate(leader, 5)
    async with asyncio.timeout(5):
        while process_start_time(follower) is not None:  # noqa: ASYNC110 - not our child
            await asyncio.sleep(0.02)


async def test_a_program_that_does_not_exist_is_an_error_for_people(tmp_path: Path) -> None:
    with pytest.raises(DevError, match="ghost cannot be started"):
        spawn("ghost", ["/nonexistent/program"], log_file=tmp_path / "ghost.log")


async def test_orphans_are_stopped_and_a_reused_pid_is_left_alone(tmp_path: Path) -> None:
    orphan, deaf, other = [
        await started(name, command, tmp_path) for name, command in (("a", SLEEP), ("b", DEAF), ("c", SLEEP))
    ]
    table = ProcessTable(tmp_path)
    for child in (orphan, deaf, other):
        table.add(child)
    rows = json.loads(table.path.read_text())
    rows[2]["start_time"] += "0"  # as if `c` were a later process with the pid of a recorded one
    table.path.write_text(json.dumps(rows))
    assert await clean_orphans(tmp_path, grace_seconds=0.3) == ["a", "b"]
    assert await wait_exit(orphan.process, 5) == -signal.SIGTERM
    assert await wait_exit(deaf.process, 5) == -signal.SIGKILL
    assert other.process.poll() is None
    assert not table.path.exists()
    assert await clean_orphans(tmp_path) == []
    await terminate(other, 5)


async def test_an_unreadable_record_stops_nothing(tmp_path: Path) -> None:
    path = ProcessTable(tmp_path).path
    path.parent.mkdir()
    path.write_text('[{"pid": 1')
    assert await clean_orphans(tmp_path) == []


def test_the_record_forgets_what_ended(tmp_path: Path) -> None:
    table = ProcessTable(tmp_path)
    child = spawn("a", SLEEP, log_file=tmp_path / "a.log")
    table.add(child)
    assert [row["name"] for row in json.loads(table.path.read_text())] == ["a"]
    table.remove("a")
    assert not table.path.exists()
    child.process.kill()
    child.process.wait(5)


def test_a_log_is_rotated_when_large_and_followed_by_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    rotate_log(path)
    path.write_bytes(b"old\n" * (LOG_ROTATE_BYTES // 4 + 1))
    rotate_log(path)
    assert not path.exists()
    assert (tmp_path / "x.log.1").exists()
    follower = LogFollower(path)
    assert list(follower.lines()) == []
    with path.open("ab") as file:
        file.write(b"one\ntw")
        file.flush()
        assert list(follower.lines()) == ["one"]
        file.write(b"o\n")
    assert list(follower.lines()) == ["two"]
    assert log_tail(path, 1) == "two"


def test_a_reader_that_takes_nothing_does_not_block() -> None:
    reading, writing = os.pipe()
    printer = Printer(writing)
    for _ in range(20_000):
        printer.line("api", "x" * 100)
    printer.close()
    assert os.read(reading, 18) == b"api          | xxx"
    os.close(reading)


def test_a_second_holder_learns_the_pid_of_the_first(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    with DataDirLock(directory), pytest.raises(DevError, match=rf"pid {os.getpid()}\b"), DataDirLock(directory):
        pass
    with DataDirLock(directory):
        pass
