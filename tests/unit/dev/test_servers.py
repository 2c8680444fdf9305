"""The embedded servers, for real."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.dev.nats_server import EmbeddedNats
from services.dev.postgres import NOTE_NAME, EmbeddedPostgres, run_psql
from services.dev.processes import DevError, free_port, port_is_free, process_start_time


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that other users may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="playhead-test-") as made:
        Path(made).chmod(0o711)
        yield Path(made)


@pytest.fixture
async def postgres(directory: Path) -> AsyncIterator[EmbeddedPostgres]:
    async with EmbeddedPostgres(directory / "pg", port=free_port()) as server:
        await server.ensure_database("noetl")
        yield server


async def rows(dsn: str, sql: str) -> str:
    code, out, err = await run_psql(dsn, sql)
    assert code == 0, err
    return out


async def test_postgres_is_durable_and_asks_for_the_password(postgres: EmbeddedPostgres) -> None:
    await postgres.ensure_database("noetl")  # again: nothing happens
    shown = await rows(postgres.dsn(), "SHOW fsync; SHOW synchronous_commit; SHOW full_page_writes; SHOW timezone")
    assert shown.split() == ["on", "on", "on", "UTC"]
    code, _, message = await run_psql(f"postgresql://noetl:wrong@127.0.0.1:{postgres.port}/noetl", "SELECT 1")
    assert code != 0
    assert "password authentication failed" in message
    assert (postgres.data_dir / "password").stat().st_mode & 0o777 == 0o600
    assert not (postgres.data_dir / NOTE_NAME).exists()
    with pytest.raises(ValueError, match="database name"):
        await postgres.ensure_database('x"; DROP DATABASE noetl')


async def test_what_was_committed_survives_a_stop_and_a_kill(postgres: EmbeddedPostgres) -> None:
    await rows(postgres.dsn(), "CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
    await postgres.stop()
    assert port_is_free(postgres.port)
    async with EmbeddedPostgres(postgres.data_dir, port=postgres.port) as second:
        await rows(second.dsn(), "INSERT INTO t VALUES (2)")
        assert second.child is not None
        os.kill(second.child.pid, signal.SIGKILL)
        async with EmbeddedPostgres(postgres.data_dir, port=free_port()) as third:
            assert await rows(third.dsn(), "SELECT sum(n) FROM t") == "3"


async def test_a_server_left_over_on_the_same_cluster_is_stopped_first(postgres: EmbeddedPostgres) -> None:
    assert postgres.child is not None
    async with EmbeddedPostgres(postgres.data_dir, port=free_port()) as second:
        assert postgres.child.process.poll() == 0
        assert await rows(second.dsn(), "SELECT 1") == "1"


async def test_a_stale_pid_file_that_names_another_process_harms_nobody(postgres: EmbeddedPostgres) -> None:
    await postgres.stop()
    (postgres.cluster / "postmaster.pid").write_text(f"{os.getpid()}\n{postgres.cluster}\n")
    async with EmbeddedPostgres(postgres.data_dir, port=free_port()) as second:
        assert await rows(second.dsn(), "SELECT 1") == "1"
    assert process_start_time(os.getpid()) is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as another user")
async def test_a_directory_nobody_may_enter_gets_a_place_elsewhere(directory: Path) -> None:
    os.chmod(directory, 0o700)  # noqa: PTH101
    first = EmbeddedPostgres(directory / "pg", port=free_port())
    try:
        async with first:
            await first.ensure_database("noetl")
        assert first.cluster.parent == Path((first.data_dir / NOTE_NAME).read_text().splitlines()[-1])
        async with EmbeddedPostgres(directory / "pg", port=free_port()) as second:
            assert second.cluster == first.cluster
            assert await rows(second.dsn(), "SELECT 1") == "1"
    finally:
        first.remove()
    assert not first.cluster.parent.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as another user")
async def test_binaries_nobody_may_reach_are_copied(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = EmbeddedPostgres(directory / "pg", port=free_port())
    monkeypatch.setattr("services.dev.postgres.reachable", lambda path, _: path.name != "bin")
    try:
        async with server:
            assert not Path(server.command()[0]).is_relative_to(server.data_dir)
            assert await rows(server.dsn("postgres"), "SELECT 1") == "1"
        copied = os.stat(server.command()[0])  # noqa: PTH116
        await server.prepare()
        assert os.path.samestat(os.stat(server.command()[0]), copied)  # noqa: PTH116 - not copied again
    finally:
        server.remove()


async def test_a_lost_password_is_an_error_for_people(postgres: EmbeddedPostgres) -> None:
    (postgres.data_dir / "password").unlink()
    with pytest.raises(DevError, match="password is missing"):
        await EmbeddedPostgres(postgres.data_dir, port=free_port()).prepare()


async def test_nats_keeps_its_streams_and_says_why_it_does_not_start(directory: Path) -> None:
    taken: set[int] = set()
    async with EmbeddedNats(directory / "nats", port=free_port(taken), monitor_port=free_port(taken)) as server:
        assert await server.is_ready()
        assert not port_is_free(server.port)
        other = EmbeddedNats(directory / "other", port=server.port, monitor_port=free_port(taken))
        with pytest.raises(DevError, match="address already in use"):
            async with asyncio.timeout(20), other:
                pass
    assert port_is_free(server.port)
    assert server.child is None
