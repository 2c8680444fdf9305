"""The postgres tool on a real server."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from services.worker.tools import ToolBox, ToolError
from services.worker.tools.postgres import target_of
from tests.integration.worker.conftest import RESULT_MAX_BYTES, Call, FakeApi


async def refused(call: Call, code: str, **config: Any) -> ToolError:
    with pytest.raises(ToolError) as failure:
        await call("postgres", **config)
    assert failure.value.code == code, failure.value
    return failure.value


async def test_the_last_statement_decides_and_each_has_its_result(call: Call, database: str) -> None:
    output = await call(
        "postgres",
        auth="pg",
        command="""
            -- a table; with data
            CREATE TABLE t (id int PRIMARY KEY, doc jsonb, price numeric(10,2), at timestamptz, tags text[], u uuid);
            INSERT INTO t VALUES (1, '{"a": [1]}', 5.15, '2026-01-02T03:04:05Z', '{x,y}', gen_random_uuid()),
              (2, null, 7, null, null, null);
            SELECT id, doc, price, at, tags FROM t ORDER BY id;
        """,
    )
    rows = [
        {"id": 1, "doc": {"a": [1]}, "price": 5.15, "at": "2026-01-02T03:04:05+00:00", "tags": ["x", "y"]},
        {"id": 2, "doc": None, "price": 7.0, "at": None, "tags": None},
    ]
    assert output["status"] == "success"
    assert output["rows"] == output["command_2"]["rows"] == rows
    assert output["columns"] == ["id", "doc", "price", "at", "tags"]
    assert (output["row_count"], output["statement_count"]) == (2, 3)
    assert (output["command_0"]["row_count"], output["command_1"]["row_count"]) == (-1, 2)


async def test_a_last_statement_without_rows(call: Call, database: str) -> None:
    output = await call(
        "postgres", auth="pg", commands=["CREATE TABLE t (a int)", "SELECT 1 AS one; INSERT INTO t VALUES (1), (2)"]
    )
    assert "rows" not in output
    assert (output["row_count"], output["affected_rows"]) == (2, 2)
    assert output["message"] == "Command executed. 2 rows affected."
    assert output["command_1"]["rows"] == [{"one": 1}]


async def test_no_rows_are_rows_too(call: Call, database: str) -> None:
    output = await call("postgres", auth="pg", query="SELECT 1 AS a WHERE false")
    assert (output["rows"], output["columns"], output["row_count"]) == ([], ["a"], 0)


async def test_an_error_takes_everything_back_and_says_where(call: Call, database: str) -> None:
    error = await refused(
        call,
        "PG_23505",
        auth="pg",
        query="CREATE TABLE t (a int UNIQUE); INSERT INTO t VALUES (1); INSERT INTO t VALUES (1)",
    )
    assert error.retryable is False
    assert error.data is not None
    assert error.data["errors"][0]["statement_index"] == 2
    assert "duplicate key" in error.message
    output = await call("postgres", auth="pg", query="SELECT to_regclass('t') AS t")
    assert output["rows"] == [{"t": None}]


async def test_statements_that_need_no_transaction(call: Call, database: str) -> None:
    await call(
        "postgres",
        auth="pg",
        query="CREATE TABLE t (a int); VACUUM t; BEGIN; INSERT INTO t VALUES (1); COMMIT; "
        "BEGIN; INSERT INTO t VALUES (2); ROLLBACK",
    )
    assert (await call("postgres", auth="pg", query="SELECT a FROM t"))["rows"] == [{"a": 1}]
    await refused(call, "BAD_CONFIG", auth="pg", query="BEGIN; INSERT INTO t VALUES (3)")
    assert (await call("postgres", auth="pg", query="SELECT count(*) AS n FROM t"))["rows"] == [{"n": 1}]


async def test_more_statements_that_need_no_transaction(call: Call, database: str) -> None:
    await call(
        "postgres",
        auth="pg",
        query="""
            CREATE TYPE mood AS ENUM ('ok');
            CREATE TABLE t (m mood, n int);
            ALTER TYPE public.mood ADD VALUE 'bad';
            INSERT INTO t VALUES ('bad', 1);
            DO $$ BEGIN INSERT INTO t VALUES ('ok', 2); COMMIT; INSERT INTO t VALUES ('ok', 3); ROLLBACK; END $$;
            CREATE PROCEDURE p(INOUT x int) LANGUAGE plpgsql AS $$ BEGIN COMMIT; x := x + 1; END $$;
        """,
    )
    assert (await call("postgres", auth="pg", query="SELECT n FROM t ORDER BY n"))["rows"] == [{"n": 1}, {"n": 2}]
    assert (await call("postgres", auth="pg", query="CALL p(41)"))["rows"] == [{"x": 42}]


async def test_every_statement_that_answers_rows(call: Call, database: str) -> None:
    sql = "CREATE TABLE t (a int); INSERT INTO t SELECT generate_series(1, 2500) RETURNING a"
    assert (await call("postgres", auth="pg", query=sql))["row_count"] == 2500
    sql = "WITH gone AS (DELETE FROM t WHERE a > 2 RETURNING a) SELECT count(*) AS n FROM gone"
    assert (await call("postgres", auth="pg", query=sql))["rows"] == [{"n": 2498}]
    assert (await call("postgres", auth="pg", query="EXPLAIN (FORMAT JSON) SELECT * FROM t"))["row_count"] == 1
    assert (await call("postgres", auth="pg", query="SHOW server_version"))["columns"] == ["server_version"]
    assert (await call("postgres", auth="pg", query="VALUES (1), (2)"))["row_count"] == 2
    assert (await call("postgres", auth="pg", query="TABLE t"))["rows"] == [{"a": 1}, {"a": 2}]
    sql = """
        SELECT int4range(1, 5) AS r, '1.2.3.4'::inet AS i, ROW(1, 'x') AS c, NULL AS n, '{"a": [1.5]}'::json AS j,
               'nan'::float AS f
    """
    (row,) = (await call("postgres", auth="pg", query=sql))["rows"]
    assert row == {"r": "[1,5)", "i": "1.2.3.4", "c": [1, "x"], "n": None, "j": {"a": [1.5]}, "f": None}


async def test_parameters(call: Call, database: str) -> None:
    sql = "SELECT $1::int + 1 AS n, $2::text AS t, $3::jsonb -> 'a' AS j, $4::date AS d, $5::int[] AS l"
    output = await call("postgres", auth="pg", query=sql, params=["41", "it's; $1", {"a": [1]}, "2026-01-02", [1, "2"]])
    assert output["rows"] == [{"n": 42, "t": "it's; $1", "j": [1], "d": "2026-01-02", "l": [1, 2]}]
    await refused(call, "BAD_CONFIG", auth="pg", query=sql, params=[1])
    await refused(call, "BAD_CONFIG", auth="pg", query="SELECT 1; SELECT $1::int", params=[1])
    assert "params[0]" in (await refused(call, "BAD_CONFIG", auth="pg", query="SELECT $1::int", params=["x"])).message


async def test_sources_of_the_text(call: Call, database: str, tmp_path: Any) -> None:
    encoded = base64.b64encode(b"SELECT 2 AS n").decode()
    assert (await call("postgres", auth="pg", command_b64=encoded))["rows"] == [{"n": 2}]
    (tmp_path / "q.sql").write_text("SELECT 3 AS n;\n-- end\n")
    for uri in ("./q.sql", f"file://{tmp_path}/q.sql"):
        output = await call("postgres", auth="pg", script={"uri": uri, "source": {"type": "file"}})
        assert output["rows"] == [{"n": 3}]
    error = await refused(call, "SCRIPT", auth="pg", script={"uri": "none.sql", "source": {"type": "file"}})
    assert "does not exist" in error.message
    await refused(call, "BAD_CONFIG", auth="pg")
    await refused(call, "BAD_CONFIG", auth="pg", query="-- nothing")


async def test_ways_to_name_the_database(call: Call, database: str, api: FakeApi) -> None:
    fields = api.credentials["pg"][1]
    api.credentials["wrapped"] = ("postgres", {"data": fields})
    plain = {
        "host": fields["db_host"],
        "port": int(fields["db_port"]),
        "user": fields["db_user"],
        "database": fields["db_name"],
        "password": fields["db_password"],
    }
    for config in (
        {"credential": "pg"},
        {"auth": {"credential": "pg"}},
        {"auth": {"type": "postgres", "credential": "wrapped"}},
        {"auth": {"main": {"type": "postgres", "key": "pg"}}},
        {"auth": {"source": "credential", "key": "pg"}},
        {"auth": {"type": "postgres", **fields}},
        {"connection_string": database},
        fields,
        plain,
    ):
        assert (await call("postgres", query="SELECT current_database() AS d", **config))["rows"] == [
            {"d": fields["db_name"]}
        ]
    schema = await call("postgres", auth="pg", schema="pg_catalog", query="SELECT current_schema() AS s")
    assert schema["rows"] == [{"s": "pg_catalog"}]


async def test_a_missing_credential_says_what_to_do(call: Call, database: str, api: FakeApi) -> None:
    assert "`auth: <credential name>`" in (await refused(call, "BAD_CONFIG", query="SELECT 1")).message
    error = await refused(call, "CREDENTIAL_NOT_FOUND", auth="nobody", query="SELECT 1")
    assert "'nobody' does not exist" in error.message
    api.credentials["empty"] = ("postgres", {"db_name": "x"})
    assert "db_host" in (await refused(call, "BAD_CREDENTIAL", auth="empty", query="SELECT 1")).message


async def test_an_api_that_does_not_answer_is_retryable(call: Call, database: str, api: FakeApi) -> None:
    api.answers["GET /api/credentials/pg"] = [(503, {})]
    assert (await refused(call, "CREDENTIAL_UNAVAILABLE", auth="pg", query="SELECT 1")).retryable is True


async def test_a_credential_is_read_once_for_many_calls(call: Call, database: str, api: FakeApi) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(call("postgres", auth="pg", query="SELECT 1"))
    assert api.times("GET", "/api/credentials/pg") == 1


async def test_a_changed_password_is_used_after_the_old_one_was_refused(
    call: Call, database: str, api: FakeApi
) -> None:
    right = api.credentials["pg"]
    api.credentials["pg"] = ("postgres", {**right[1], "db_password": "not-the-password"})
    await refused(call, "PG_28P01", auth="pg", query="SELECT 1")
    api.credentials["pg"] = right
    assert (await call("postgres", auth="pg", query="SELECT 1 AS a"))["rows"] == [{"a": 1}]


async def test_secrets_do_not_leave(call: Call, database: str, api: FakeApi) -> None:
    password = api.credentials["pg"][1]["other_password"] = "a-long-password"
    output = await call("postgres", auth="pg", query=f"SELECT '{password}' AS p")
    assert output["rows"] == [{"p": "[REDACTED]"}]
    error = await refused(call, "PG_22P02", auth="pg", query=f"SELECT '{password}'::int")
    assert password not in error.message
    assert password not in str(error.data)


async def test_rows_over_the_limit_are_refused_while_they_come(call: Call, database: str) -> None:
    sql = f"SELECT repeat('x', 1000) AS x FROM generate_series(1, {RESULT_MAX_BYTES})"
    error = await refused(call, "RESULT_TOO_LARGE", auth="pg", query=sql)
    assert "transfer" in error.message
    assert (await call("postgres", auth="pg", query="SELECT 1 AS a"))["rows"] == [{"a": 1}]


async def test_a_slow_statement_is_stopped_on_the_server(call: Call, database: str, box: ToolBox) -> None:
    error = await refused(call, "TIMEOUT", auth="pg", query="SELECT pg_sleep(60)", seconds=0.5)
    assert error.retryable is True
    sql = """
        DO $$ BEGIN
          WHILE EXISTS (SELECT FROM pg_stat_activity
                        WHERE state = 'active' AND query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()) LOOP
            PERFORM pg_stat_clear_snapshot();
          END LOOP;
        END $$
    """
    await call("postgres", auth="pg", query=sql, seconds=10)


async def test_a_connection_that_is_cut_is_a_retryable_error_and_is_replaced(call: Call, database: str) -> None:
    async def cut() -> None:
        sql = """
            DO $$ BEGIN
              LOOP
                PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
                  WHERE query = 'SELECT pg_sleep(61)' AND state = 'active';
                EXIT WHEN FOUND;
                PERFORM pg_stat_clear_snapshot();
              END LOOP;
            END $$
        """
        await call("postgres", auth="pg", query=sql)

    async with asyncio.TaskGroup() as group:
        group.create_task(cut())
        with pytest.raises(ToolError) as failure:
            await call("postgres", auth="pg", query="SELECT pg_sleep(61)", seconds=30)
    assert failure.value.code in ("PG_57P01", "PG_08003")  # what the server says, or what the driver sees first
    assert failure.value.retryable is True
    assert "terminat" in failure.value.message
    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(call("postgres", auth="pg", query="SELECT 1"))


async def test_connections_are_reused_bounded_and_clean(call: Call, database: str, box: ToolBox) -> None:
    assert box.postgres is not None
    assert box.settings is not None
    async with asyncio.TaskGroup() as group:
        for _ in range(40):
            group.create_task(call("postgres", auth="pg", query="SELECT pg_sleep(0.01)"))
    assert 1 <= box.postgres.size <= box.settings.noetl_worker_postgres_connections
    await call("postgres", auth="pg", query="SET work_mem = '77MB'; SELECT pg_advisory_lock(7)")
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                call(
                    "postgres",
                    auth="pg",
                    query="SELECT current_setting('work_mem') AS m, pg_try_advisory_xact_lock(7) AS l",
                )
            )
            for _ in range(20)
        ]
    assert {task.result()["rows"][0]["m"] for task in tasks} == {"4MB"}
    assert any(task.result()["rows"][0]["l"] for task in tasks)


async def test_no_server_is_retryable(call: Call, unused_tcp_port: int) -> None:
    error = await refused(
        call, "CONNECTION", host="127.0.0.1", port=unused_tcp_port, user="u", database="d", query="SELECT 1"
    )
    assert error.retryable is True


async def test_copy_from_the_client_is_refused(call: Call, database: str) -> None:
    error = await refused(call, "BAD_CONFIG", auth="pg", query="CREATE TABLE t (a int); COPY t FROM STDIN")
    assert "transfer" in error.message


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"db_name": "x"},
        {"db_host": "h", "db_port": "99999"},
        {"db_host": "h", "db_port": "x"},
        {"dsn": "mysql://x"},
        {"host": "h", "sslmode": "?"},
    ],
)
def test_bad_connection_members(fields: dict[str, Any]) -> None:
    with pytest.raises(ToolError) as failure:
        target_of(fields)
    assert failure.value.code == "BAD_CREDENTIAL"
