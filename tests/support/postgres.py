"""A throw-away Postgres for the tests of a session, and the recorded database of the original."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

from services.dev.postgres import READY_SECONDS, EmbeddedPostgres, run_psql
from services.dev.processes import free_port

DUMP = Path(__file__).resolve().parents[1] / "golden" / "http" / "db.sql.gz"
DUMP_SECONDS_MAX = 60.0  # 24 MB of SQL; measured about 2 s
DATABASE_SECONDS_MAX = 30.0


class PostgresServer:
    """The real Postgres in a temporary directory, fsync off."""

    def __init__(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="playhead-postgres-"))
        directory.chmod(0o711)  # run by root, the server is another user
        self._server = EmbeddedPostgres(directory, port=free_port(), durable=False)

    async def start(self) -> None:
        """Start and wait until it takes connections; nothing when it runs."""
        if self._server.child is not None:
            return
        await self._server.prepare()
        self._server.spawn()
        await self._server.wait_ready(READY_SECONDS)

    async def stop(self) -> None:
        """Take the server down; its databases stay on disk, on the same port after `start()`."""
        await self._server.stop()

    async def close(self) -> None:
        """Stop and delete everything."""
        await self.stop()
        self._server.remove()

    def dsn(self, name: str) -> str:
        """Return the URL of database `name`."""
        return self._server.dsn(name)

    async def create_database(self, name: str, template: str | None = None) -> str:
        """Create database `name`, a copy of `template` if given (nobody may be connected to that); return its URL."""
        await self._admin(f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}"' if template else ""))
        return self.dsn(name)

    async def drop_database(self, name: str) -> None:
        """Drop database `name` if it exists, also when somebody is connected."""
        await self._admin(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    async def _admin(self, sql: str) -> None:
        code, _, err = await run_psql(self.dsn("postgres"), sql, timeout_seconds=DATABASE_SECONDS_MAX)
        assert code == 0, f"{sql}: {err}"


def _dump_text() -> str:
    """Return the dump without the `\\restrict` lines that psql before 16.10 does not know."""
    with gzip.open(DUMP, "rt", encoding="utf-8") as file:
        return "".join(line for line in file if not line.startswith(("\\restrict", "\\unrestrict")))


async def load_original_dump(dsn: str) -> None:
    """Load the database of the original into an empty one. Its owner, role `postgres`, is missing here: that is harmless."""
    code, _, err = await run_psql(dsn, _dump_text(), stop_on_error=False, timeout_seconds=DUMP_SECONDS_MAX)
    wrong = [line for line in err.splitlines() if "ERROR" in line and 'role "postgres" does not exist' not in line]
    assert code == 0, err[:2000]
    assert not wrong, wrong[:10]
