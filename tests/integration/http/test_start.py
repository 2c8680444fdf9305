"""An API that cannot serve says why, and what to do."""

from __future__ import annotations

import asyncio
import os
import sys

from services.dev.processes import free_port
from tests.support.stack import ROOT

START_SECONDS_MAX = 30


async def start(dsn: str) -> tuple[int, str]:
    env = {**os.environ, "NOETL_POSTGRES_DSN": dsn, "NOETL_PORT": str(free_port()), "NOETL_LOG_FORMAT": "text"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.dev.cli",
        "api",
        cwd=ROOT,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(START_SECONDS_MAX):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_a_database_without_the_schema_is_named_with_the_fix(empty_database_dsn: str) -> None:
    code, out = await start(empty_database_dsn)
    assert code == 1
    assert "playhead migrate" in out
    assert "Traceback" not in out


async def test_a_database_that_is_away_is_named_without_its_password() -> None:
    code, out = await start("postgresql://noetl:s3cr3t@127.0.0.1:1/noetl")
    assert code == 1
    assert "127.0.0.1" in out
    assert "s3cr3t" not in out
    assert "Traceback" not in out
