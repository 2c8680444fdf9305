"""`playhead parity` between live servers: two Playheads, and Playhead against a recorded original."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from services.dev.parity.recordings import load_recordings
from services.dev.parity.report import as_json, as_text
from services.dev.parity.run import Outcome, ParityOptions, UnusableError, run_parity
from tests.support.api import RunningApi, running_api
from tests.support.original import RecordedOriginal, serving
from tests.support.parity import GOLDEN
from tests.support.postgres import PostgresServer

READS = {item.request.name: item for item in load_recordings(GOLDEN / "reads")}
NOT_HERE = "170_temp_resolve_real"  # lies in a bucket that the stand-in of the original has, and nobody else
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
async def playhead(postgres_server: PostgresServer, golden_template: str) -> AsyncIterator[RunningApi]:
    dsn = await postgres_server.create_database("parity_tool", golden_template)
    async with running_api(dsn, internal_token="", noetl_snowflake_layout="sql") as running:
        yield running
    await postgres_server.drop_database("parity_tool")


@pytest.fixture
def comparable(tmp_path: Path) -> Path:
    """The recorded reads that the stand-in of the original can answer as recorded."""
    for name, item in READS.items():
        if name != NOT_HERE and item.answer is not None and "content-type" in item.answer.headers:
            for suffix in (".req.json", ".resp"):
                shutil.copy(GOLDEN / "reads" / f"{name}{suffix}", tmp_path)
    return tmp_path


async def _command(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.dev.cli", "parity", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_two_servers_on_one_database_are_the_same(
    postgres_server: PostgresServer, golden_template: str, playhead: RunningApi
) -> None:
    async with running_api(
        postgres_server.dsn("parity_tool"), internal_token="", noetl_snowflake_layout="sql"
    ) as other:
        code, out, err = await _command(
            "--base", playhead.url, "--against", other.url, "--limit", "4", "--json", "--timeout", "100"
        )
    document = json.loads(out)
    differing = [item for item in document["requests"] if item["outcome"] != "same"]
    assert (code, differing, err) == (0, [], "")
    paths = [item["path"] for item in document["requests"]]
    assert sum("/status" in path for path in paths) >= 8, "the ids come from the server's own list"
    assert any("/ui_schema" in path for path in paths)


async def test_playhead_against_a_recorded_original_shows_known_differences_only(
    playhead: RunningApi, comparable: Path
) -> None:
    async with serving(RecordedOriginal(READS.values()).app()) as url:
        report = await run_parity(ParityOptions(base=url, against=playhead.url, requests=comparable))
    assert [(item.request.name, [str(f) for f in item.findings]) for item in report.compared if item.findings] == []
    assert report.same
    assert report.count(Outcome.DECLARED) > 10
    assert report.skipped > 0, "writes are not sent"
    text = as_text(report)
    assert "known difference status-for-every-client: 8" in text
    assert " 0 differ, 0 failed" in text


async def test_what_differs_is_shown_with_its_place(playhead: RunningApi, comparable: Path) -> None:
    name = "052_execution_EID"
    answer = READS[name].answer
    assert answer is not None
    wrong = replace(answer, body=answer.body.replace(b'"path":"test/simple_python"', b'"path":"test/other"', 1))
    stub = RecordedOriginal(READS.values(), changed={name: wrong})
    async with serving(stub.app()) as url:
        code, out, _ = await _command("--base", url, "--against", playhead.url, "--requests", str(comparable))
        again = stub.asked.count(f"GET {READS[name].request.path}")
    assert code == 1
    assert f"GET {READS[name].request.path}   ({name}) differs" in out
    assert '  /path\n    - "test/other"\n    + "test/simple_python"' in out
    assert " 1 differ, 0 failed" in out
    assert again == 2, "what differs is asked once more"


async def test_without_two_servers_there_is_no_comparison(playhead: RunningApi, tmp_path: Path) -> None:
    code, out, err = await _command("--base", NOWHERE, "--against", playhead.url)
    assert (code, out) == (2, "")
    assert NOWHERE in err
    for options in (
        ParityOptions(base=playhead.url, against=NOWHERE),
        ParityOptions(base=playhead.url, against=playhead.url, requests=tmp_path),
        ParityOptions(base=playhead.url, against=playhead.url, differences=tmp_path / "none.yaml"),
    ):
        with pytest.raises(UnusableError):
            await run_parity(options)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--base", "ftp://x", "--against", NOWHERE], "http://host:port"),
        (["--base", NOWHERE], "--against"),
        (["--base", NOWHERE, "--against", NOWHERE, "--concurrency", "99"], "1 to 32"),
        (["--base", NOWHERE, "--against", NOWHERE, "--writes"], "--requests"),
    ],
)
async def test_a_wrong_command_line_says_what_is_wrong(arguments: list[str], said: str) -> None:
    code, out, err = await _command(*arguments)
    assert (code, out) == (2, "")
    assert said in err


async def test_writes_are_compared_in_their_order_when_asked_for(
    postgres_server: PostgresServer, golden_template: str
) -> None:
    names = ("parity_tool_a", "parity_tool_b")
    first, second = [await postgres_server.create_database(name, golden_template) for name in names]
    async with (
        running_api(first, internal_token="", noetl_snowflake_layout="sql") as base,
        running_api(second, internal_token="", noetl_snowflake_layout="sql") as against,
    ):
        options = ParityOptions(base=base.url, against=against.url, requests=GOLDEN / "writes", writes=True)
        report = await run_parity(options)
        _, listed = await against.request("GET", "/api/executions?page_size=1")
    assert [(item.request.name, [str(f) for f in item.findings]) for item in report.compared if item.findings] == []
    assert json.loads(as_json(report))["same"] is True
    assert listed[0]["path"].startswith("golden/http_"), "the writes have been sent"
    for name in names:
        await postgres_server.drop_database(name)


async def test_a_comparison_ends_when_its_time_is_over(playhead: RunningApi, comparable: Path) -> None:
    released = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if not request.path.endswith("/health"):
            await released.wait()
        return web.json_response({"status": "ok"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with serving(app) as url:
        report = await run_parity(
            ParityOptions(base=url, against=playhead.url, requests=comparable, seconds=1.0, concurrency=1)
        )
        released.set()
    assert not report.same
    assert report.unfinished > 0
    assert "the time was over" in as_text(report)
