"""The transfer tool between real databases, files and a loopback http server."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from services.worker.tools import ToolError
from tests.integration.worker.conftest import Call

POSTS = [
    {"id": n, "userId": n % 3, "title": f'it\'s; "{n}"', "meta": {"tags": ["a", n]}, "none": None} for n in range(1, 26)
]
TARGET = """
    CREATE TABLE posts (post_id int PRIMARY KEY, user_id int NOT NULL DEFAULT 0, title text, meta jsonb, tag text, none text,
                        loaded timestamptz NOT NULL DEFAULT now())
"""
MAPPING = {"post_id": "id", "user_id": "userId", "title": "title", "meta": "meta", "tag": "meta.tags.1", "none": "none"}
ALL_TYPES = """
    CREATE TABLE source_rows AS
    SELECT n AS id, n * 1.5 AS price, 'text, "' || n || E'"\\nline' AS note, jsonb_build_object('n', n) AS doc,
           ARRAY['a b', NULL, n::text] AS tags, now() AS at, n % 2 = 0 AS even, '' AS empty, NULL::text AS nothing,
           decode('00ff', 'hex') AS raw
      FROM generate_series(1, 2500) n;
    CREATE TABLE target_rows (LIKE source_rows);
"""


@pytest_asyncio.fixture
async def url() -> AsyncIterator[str]:
    async def posts(_: web.Request) -> web.Response:
        return web.json_response(POSTS)

    async def wrapped(_: web.Request) -> web.Response:
        return web.json_response({"page": {"list": POSTS[:2]}})

    async def scalar(_: web.Request) -> web.Response:
        return web.json_response([1, 2])

    app = web.Application()
    for path, handler in (("/posts", posts), ("/wrapped", wrapped), ("/scalar", scalar)):
        app.router.add_get(path, handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield "http://{}:{}".format(*runner.addresses[0][:2])
    await runner.cleanup()


async def rows(call: Call, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await call("postgres", auth="pg", query=sql))["rows"]
    return found


async def moved(call: Call, source: dict[str, Any], target: dict[str, Any], **more: Any) -> dict[str, Any]:
    output: dict[str, Any] = await call("transfer", source=source, target=target, **more)
    return output


async def refused(call: Call, code: str, source: Any, target: Any, **more: Any) -> ToolError:
    with pytest.raises(ToolError) as failure:
        await call("transfer", source=source, target=target, **more)
    assert failure.value.code == code, failure.value
    return failure.value


async def test_http_to_postgres(call: Call, database: str, url: str) -> None:
    await call("postgres", auth="pg", query=TARGET)
    source = {"type": "http", "url": f"{url}/posts", "method": "GET"}
    target = {"type": "postgres", "auth": "pg", "table": "public.posts", "mapping": MAPPING}
    output = await moved(call, source, target, chunk_size=10)
    assert (output["direction"], output["rows_transferred"], output["chunks_processed"]) == ("http_to_postgres", 25, 3)
    assert (output["target_table"], output["columns"]) == ("public.posts", list(MAPPING))
    (found,) = await rows(call, "SELECT post_id, user_id, title, meta, tag, none FROM posts WHERE post_id = 7")
    assert found == {
        "post_id": 7,
        "user_id": 1,
        "title": 'it\'s; "7"',
        "meta": {"tags": ["a", 7]},
        "tag": "7",
        "none": None,
    }


async def test_modes(call: Call, database: str, url: str) -> None:
    await call("postgres", auth="pg", query=TARGET)
    source = {"type": "http", "url": f"{url}/wrapped", "data_path": "page.list"}
    target = {"type": "postgres", "auth": "pg", "table": "posts", "mapping": {"post_id": "id", "title": "title"}}
    assert (await moved(call, source, target))["rows_transferred"] == 2
    assert (await refused(call, "PG_23505", source, target)).retryable is False
    await call(
        "postgres", auth="pg", query="UPDATE posts SET title = 'old', user_id = 77; INSERT INTO posts VALUES (99)"
    )
    assert (await moved(call, source, {**target, "mode": "upsert"}))["mode"] == "upsert"
    found = await rows(call, "SELECT post_id, user_id, title FROM posts ORDER BY post_id")
    assert [tuple(row.values()) for row in found] == [(1, 77, 'it\'s; "1"'), (2, 77, 'it\'s; "2"'), (99, 0, None)]
    await moved(call, source, target, mode="replace")
    assert await rows(call, "SELECT count(*) AS n FROM posts") == [{"n": 2}]


async def test_the_last_row_of_a_key_wins(call: Call, database: str, tmp_path: Path) -> None:
    await call("postgres", auth="pg", query='CREATE TABLE "T" (k text, v int, UNIQUE (k))')
    (tmp_path / "in.csv").write_text("K;V\na;1\nb;2\na;3\n")
    source = {"type": "csv", "path": "in.csv", "delimiter": ";"}
    target = {"type": "postgres", "auth": "pg", "table": '"T"', "mode": "upsert", "mapping": {"k": "K", "v": "V"}}
    await moved(call, source, {**target, "key": "k"})
    await moved(call, source, target)  # without a primary key the first column is the key
    assert await rows(call, 'SELECT k, v FROM "T" ORDER BY k') == [{"k": "a", "v": 3}, {"k": "b", "v": 2}]


async def test_postgres_to_postgres_keeps_every_type(call: Call, database: str) -> None:
    await call("postgres", auth="pg", query=ALL_TYPES)
    source = {"type": "postgres", "auth": "pg", "query": "SELECT * FROM source_rows; -- all"}
    output = await moved(call, source, {"type": "postgres", "auth": "pg", "table": "target_rows"})
    assert (output["rows_transferred"], output["chunks_processed"]) == (2500, 3)
    difference = "SELECT count(*) AS n FROM (TABLE source_rows EXCEPT ALL TABLE target_rows) d"
    assert await rows(call, difference) == [{"n": 0}]
    mapping = {"id": "id", "note": "empty"}
    output = await moved(
        call,
        {"type": "postgres", "table": "source_rows"},
        {"type": "postgres", "table": "target_rows"},
        mode="replace",
        mapping=mapping,
        auth="pg",
    )
    assert output["columns"] == ["id", "note"]
    assert await rows(call, "SELECT count(*) AS n, max(note) AS m FROM target_rows") == [{"n": 2500, "m": ""}]


async def test_a_failing_row_takes_everything_back_and_the_connections_go_on(call: Call, database: str) -> None:
    await call("postgres", auth="pg", query="CREATE TABLE t (a int); INSERT INTO t VALUES (5)")
    target = {"type": "postgres", "auth": "pg", "table": "t", "mode": "replace"}
    broken = {
        "type": "postgres",
        "auth": "pg",
        "query": "SELECT 10 / (50000 - n) AS a FROM generate_series(1, 60000) n",
    }
    assert "division by zero" in (await refused(call, "PG_22012", broken, target)).message
    wrong = {"type": "postgres", "auth": "pg", "query": "SELECT 'x' || n AS a FROM generate_series(1, 60000) n"}
    await refused(call, "PG_22P02", wrong, target)
    assert await rows(call, "SELECT a FROM t") == [{"a": 5}]


async def test_many_transfers_at_once_do_not_wait_for_each_other(call: Call, database: str) -> None:
    await call("postgres", auth="pg", query="CREATE TABLE t (a int)")
    source = {"type": "postgres", "auth": "pg", "query": "SELECT 1 AS a FROM pg_sleep(0.01)"}
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(call("transfer", source=source, target={"type": "postgres", "auth": "pg", "table": "t"}))
    assert await rows(call, "SELECT count(*) AS n FROM t") == [{"n": 20}]


async def test_postgres_to_csv_and_back(call: Call, database: str, tmp_path: Path) -> None:
    await call("postgres", auth="pg", query=ALL_TYPES)
    source = {
        "type": "postgres",
        "auth": "pg",
        "query": "SELECT id, price, note, doc, even FROM source_rows ORDER BY id",
    }
    target = {"type": "csv", "path": "out/rows.csv", "mode": "replace"}
    output = await moved(call, source, target)
    assert (output["rows_transferred"], output["target_table"]) == (2500, "out/rows.csv")
    back = {"type": "postgres", "auth": "pg", "table": "target_rows"}
    assert (await moved(call, {"type": "csv", "path": "out/rows.csv"}, back, chunk_size=700))[
        "rows_transferred"
    ] == 2500
    columns = "id, price, note, doc, even"
    difference = (
        f"SELECT count(*) AS n FROM (SELECT {columns} FROM source_rows EXCEPT SELECT {columns} FROM target_rows) d"
    )
    assert await rows(call, difference) == [{"n": 0}]
    await moved(call, source, {**target, "mode": "append"})
    lines = (tmp_path / "out" / "rows.csv").read_text()
    assert lines.count("id,price") == 1
    await refused(call, "PG_42P01", {**source, "query": "SELECT * FROM nowhere"}, target)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["rows.csv"]


async def test_http_to_csv(call: Call, url: str, tmp_path: Path) -> None:
    source = {"type": "http", "url": f"{url}/wrapped", "data_path": "page.list"}
    await moved(call, source, {"type": "csv", "path": "p.csv", "mapping": {"n": "id", "t": "title", "x": "none"}})
    assert (tmp_path / "p.csv").read_text() == '"n","t","x"\n"1","it\'s; ""1""",\n"2","it\'s; ""2""",\n'


async def test_a_statement_of_the_author_takes_the_rows(call: Call, database: str, url: str) -> None:
    await call("postgres", auth="pg", query=TARGET)
    sql = "INSERT INTO posts (post_id, title, tag) VALUES (%s, upper(%s), '%%s') ON CONFLICT (post_id) DO NOTHING;"
    target = {"type": "postgres", "auth": "pg", "query": sql, "mapping": {"post_id": "id", "title": "title"}}
    output = await moved(call, {"type": "http", "url": f"{url}/posts"}, target, chunk_size=10)
    assert (output["mode"], output["target_table"], output["rows_transferred"]) == ("custom", "custom_query", 25)
    assert await rows(call, "SELECT title, tag FROM posts WHERE post_id = 2") == [{"title": 'IT\'S; "2"', "tag": "%s"}]
    source = {
        "type": "postgres",
        "auth": "pg",
        "query": "SELECT n + 100 AS n, 'x' AS t FROM generate_series(1, 2500) n",
    }
    numbered = "INSERT INTO posts (post_id, title) VALUES ($1, $2)"
    output = await moved(call, source, {"type": "postgres", "auth": "pg", "query": numbered})
    assert (output["rows_transferred"], output["columns"]) == (2500, ["n", "t"])
    wrong = {"type": "postgres", "auth": "pg", "query": "INSERT INTO posts (post_id) VALUES (%s)"}
    assert "places" in (await refused(call, "BAD_CONFIG", source, wrong)).message
    await refused(call, "BAD_CONFIG", source, {**wrong, "query": "SELECT 1; SELECT 2"})
    text = {"type": "postgres", "auth": "pg", "query": "SELECT 'x' AS a"}
    await refused(call, "BAD_SOURCE", text, wrong)


async def test_memory_stays_small_while_much_moves(call: Call, database: str) -> None:
    await call("postgres", auth="pg", query="CREATE TABLE t (a text)")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    source = {
        "type": "postgres",
        "auth": "pg",
        "query": "SELECT repeat('x', 10000) AS a FROM generate_series(1, 20000)",
    }
    output = await moved(call, source, {"type": "postgres", "auth": "pg", "table": "t"})
    assert output["rows_transferred"] == 20_000
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mb < 60, "200 MB went through"


PG = {"type": "postgres", "auth": "pg", "table": "t"}
CSV = {"type": "csv", "path": "none.csv"}


REFUSED: list[tuple[str, Any, Any, dict[str, Any]]] = [
    ("BAD_CONFIG", None, PG, {}),
    ("BAD_CONFIG", {"type": ""}, PG, {}),
    ("NOT_AVAILABLE", {"type": "snowflake"}, PG, {}),
    ("BAD_CONFIG", PG, {"type": "http"}, {}),
    ("BAD_CONFIG", PG, PG, {"mode": "shuffle"}),
    ("BAD_CONFIG", PG, CSV, {"mode": "upsert"}),
    ("BAD_CONFIG", PG, PG, {"chunk_size": 0}),
    ("BAD_CONFIG", PG, PG, {"mapping": [1]}),
    ("BAD_CONFIG", PG, {"type": "postgres", "auth": "pg"}, {}),
    ("BAD_CONFIG", {"type": "postgres", "auth": "pg"}, PG, {}),
    ("BAD_CONFIG", {"type": "postgres", "auth": "pg", "query": "SELECT 1 AS other"}, PG, {}),
    ("BAD_CONFIG", PG, PG, {"mapping": {"nowhere": "a"}}),
    ("BAD_CONFIG", PG, PG, {"mapping": {"a": "nowhere"}}),
    ("BAD_CONFIG", {"type": "postgres", "auth": "pg", "query": "CREATE TABLE x (a int)"}, PG, {}),
    ("PG_42P01", PG, {**PG, "table": "nowhere"}, {}),
    ("NOT_FOUND", CSV, PG, {}),
    ("NOT_AVAILABLE", {"type": "csv", "path": "gs://b/x"}, PG, {}),
    ("CREDENTIAL_NOT_FOUND", PG, {**PG, "auth": "nobody"}, {}),
]


async def test_what_is_refused(call: Call, database: str) -> None:
    await call("postgres", auth="pg", query="CREATE TABLE t (a int)")
    for code, source, target, more in REFUSED:
        await refused(call, code, source, target, **more)


async def test_an_answer_without_objects(call: Call, database: str, url: str) -> None:
    await call("postgres", auth="pg", query="CREATE TABLE t (a int)")
    await refused(call, "BAD_SOURCE", {"type": "http", "url": f"{url}/scalar"}, PG)
    await refused(call, "BAD_SOURCE", {"type": "http", "url": f"{url}/wrapped", "data_path": "page.none"}, PG)
    await refused(call, "HTTP_404", {"type": "http", "url": f"{url}/none"}, PG)
