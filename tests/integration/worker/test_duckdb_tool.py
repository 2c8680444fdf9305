"""The duckdb tool: real DuckDB in child processes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.worker.tools import ToolError
from tests.integration.worker.conftest import EXECUTION, RESULT_MAX_BYTES, Call


@pytest.fixture
def settings(unused_tcp_port: int) -> dict[str, Any]:
    """No extension comes from the network."""
    return {"noetl_worker_duckdb_extensions": f"http://127.0.0.1:{unused_tcp_port}"}


async def refused(call: Call, code: str, **config: Any) -> ToolError:
    with pytest.raises(ToolError) as failure:
        await call("duckdb", **config)
    assert failure.value.code == code, failure.value
    return failure.value


async def test_the_output_has_what_both_lines_of_workers_have(call: Call, tmp_path: Path) -> None:
    output = await call(
        "duckdb",
        command="""
            DROP TABLE IF EXISTS m; -- nothing yet; fine
            CREATE TABLE m AS SELECT 'a;b' AS name, 5.15::DECIMAL(10,2) AS price, DATE '2026-01-02' AS d,
              [1, 2] AS l, {'k': 1} AS s;
            INSERT INTO m VALUES ('c', 7, NULL, NULL, NULL);
            SELECT * FROM m ORDER BY name;
        """,
    )
    rows = [
        {"name": "a;b", "price": 5.15, "d": "2026-01-02", "l": [1, 2], "s": {"k": 1}},
        {"name": "c", "price": 7.0, "d": None, "l": None, "s": None},
    ]
    assert output["status"] == "success"
    assert output["rows"] == output["command_3"]["rows"] == rows
    assert output["columns"] == ["name", "price", "d", "l", "s"]
    assert (output["command_4_rows"], output["command_4_sample"][1]) == (2, ["c", 7.0, None, None, None])
    assert (output["executed_commands"], output["statement_count"], output["command_2"]["row_count"]) == (4, 4, 1)
    assert output["execution_id"] == str(EXECUTION)
    assert output["database_path"] == str(tmp_path / "data" / f"duckdb_{EXECUTION}.duckdb")
    assert output["secrets_created"] == 0


async def test_steps_of_an_execution_share_a_file_and_others_do_not(call: Call, tmp_path: Path) -> None:
    await call("duckdb", query="CREATE TABLE t AS SELECT 1 AS a")
    assert (await call("duckdb", query="SELECT a FROM t"))["rows"] == [{"a": 1}]
    await refused(call, "CatalogException", query="SELECT a FROM t", database=":memory:")
    await refused(call, "CatalogException", query="SELECT a FROM t", context={"execution_id": "701"})
    named = str(tmp_path / "sub" / "x.duckdb")
    assert (await call("duckdb", query="CREATE TABLE t (a int)", database=named))["database_path"] == named
    assert Path(named).exists()


async def test_calls_on_one_file_take_turns(call: Call) -> None:
    await call("duckdb", query="CREATE TABLE t (a int)")
    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(call("duckdb", query="INSERT INTO t VALUES (?)", params=[number]))
    assert (await call("duckdb", query="SELECT count(*) AS n FROM t"))["rows"] == [{"n": 5}]


async def test_errors(call: Call) -> None:
    error = await refused(call, "CatalogException", query="SELECT 1; SELECT * FROM nowhere")
    assert error.data is not None
    assert error.data["errors"][0]["statement_index"] == 1
    await refused(call, "ParserException", query="SELEKT 1")
    await refused(call, "BAD_CONFIG")
    await refused(call, "BAD_CONFIG", query="-- nothing")
    await refused(call, "BAD_CONFIG", query="SELECT 1; SELECT ?", params=[1])
    await refused(call, "DATABASE", query="SELECT 1", database="/proc/nowhere/x.duckdb")


async def test_a_query_that_takes_too_long_is_killed(call: Call) -> None:
    slow = "SELECT count(*) FROM range(1000000000000) a, range(1000000000000) b"
    assert (await refused(call, "TIMEOUT", query=slow, seconds=1.0)).retryable is True
    assert (await call("duckdb", query="SELECT 1 AS a"))["rows"] == [{"a": 1}]


async def test_rows_are_bounded(call: Call) -> None:
    await refused(call, "RESULT_TOO_LARGE", query=f"SELECT repeat('x', 1000) AS x FROM range({RESULT_MAX_BYTES})")
    assert (await call("duckdb", query="SELECT 1 AS a"))["rows"] == [{"a": 1}]


async def test_a_lake_without_its_extension_says_so(call: Call) -> None:
    with pytest.raises(ToolError) as failure:
        await call("ducklake", query="SELECT 1", catalog_name="lake")
    assert failure.value.code == "SETUP"
    assert "extensions are downloaded" in failure.value.message
