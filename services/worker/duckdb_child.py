"""A process that runs the statements of one duckdb call.

Standard input has the job as JSON: `{path, setup, statements: [sql, ...], params, memory_bytes, threads, result_max_bytes}`.
`setup` has statements whose text is not shown. Standard output: `{ok: true, results: [{columns, rows, affected}]}` or
`{ok: false, code, message, statement_index?, retryable}`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import duckdb
import orjson

from services.worker.python_child import die_with_parent
from services.worker.sql_values import cell

# Not in tools/limits.py: what this process imports, it waits for at every call.
LOCK_SECONDS = 5.0  # wait for a file that another process has open
LOCK_WAIT_SECONDS = 0.05  # between two tries
ROWS_AT_ONCE = 1000  # fetched between two looks at the size of the output
STATEMENTS_MAX = 10_000  # of one call


class _FailedError(Exception):
    """Carries the answer of a job that failed."""

    def __init__(self, code: str, message: str, *, index: int | None = None, retryable: bool = False) -> None:
        super().__init__(message)
        self.answer = {
            "ok": False,
            "code": code,
            "message": message,
            "statement_index": index,
            "retryable": retryable,
        }


def _connect(job: Mapping[str, Any]) -> duckdb.DuckDBPyConnection:
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{int(job['memory_bytes'])}B",
        "threads": str(job["threads"]),
    }
    give_up = time.monotonic() + LOCK_SECONDS
    last: duckdb.Error | None = None
    while time.monotonic() < give_up:
        try:
            return duckdb.connect(job["path"], config=config)
        except duckdb.IOException as error:
            last = error
            if "lock" not in str(error).lower():
                break
            time.sleep(LOCK_WAIT_SECONDS)
        except duckdb.Error as error:
            last = error
            break
    is_locked = last is not None and "lock" in str(last).lower()
    raise _FailedError(
        "LOCKED" if is_locked else "DATABASE", f"the database cannot be opened: {last}", retryable=is_locked
    )


def _set_up(connection: duckdb.DuckDBPyConnection, statements: list[str]) -> None:
    for statement in statements:
        try:
            connection.execute(statement)
        except duckdb.Error as error:
            what = " ".join(statement.split()[:3])  # without the secrets that follow
            raise _FailedError(
                "SETUP", f"{what}: {str(error)[:500]}", retryable=isinstance(error, duckdb.IOException)
            ) from None


class _Run:
    """The statements of a job; `left` is how many bytes of rows may still come."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, left: int) -> None:
        self._connection, self._left = connection, left

    def _rows(self, columns: list[str], index: int) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        chunk = self._connection.fetchmany(ROWS_AT_ONCE)
        while chunk:
            plain = [dict(zip(columns, map(cell, row), strict=True)) for row in chunk]
            self._left -= len(orjson.dumps(plain, option=orjson.OPT_NON_STR_KEYS))
            if self._left < 0:
                text = (
                    "the rows are over the result limit of this worker; select fewer, or write them to a file with COPY"
                )
                raise _FailedError("RESULT_TOO_LARGE", text, index=index)
            rows += plain
            chunk = self._connection.fetchmany(ROWS_AT_ONCE)
        return rows

    def one(self, statement: duckdb.Statement, params: list[Any], index: int) -> dict[str, Any]:
        self._connection.execute(statement, params or None)
        columns = [str(column[0]) for column in self._connection.description or []]
        counts = duckdb.ExpectedResultType.CHANGED_ROWS in statement.expected_result_type
        if columns in (["Count"], ["Success"]) and counts:
            first = self._connection.fetchone()
            return {"affected": int(first[0]) if first and isinstance(first[0], int) else -1}
        is_query = duckdb.ExpectedResultType.QUERY_RESULT in statement.expected_result_type
        if not is_query or (not columns or columns == ["Success"]):
            return {"affected": -1}
        return {"columns": columns, "rows": self._rows(columns, index)}


def _statements(connection: duckdb.DuckDBPyConnection, texts: list[str]) -> list[duckdb.Statement]:
    found: list[duckdb.Statement] = []
    for text in texts:
        try:
            found += connection.extract_statements(text)
        except duckdb.Error as error:
            raise _FailedError(type(error).__name__, str(error), index=len(found)) from None
    return found


def answer(job: Mapping[str, Any]) -> dict[str, Any]:
    """Run a job and return its answer."""
    try:
        connection = _connect(job)
        _set_up(connection, job["setup"])
        statements = _statements(connection, job["statements"])
        if not 0 < len(statements) <= STATEMENTS_MAX:
            raise _FailedError("BAD_CONFIG", f"{len(statements)} statements; 1 to {STATEMENTS_MAX} are allowed")
        if job["params"] and len(statements) > 1:
            raise _FailedError("BAD_CONFIG", "`params` go with one statement; there are several")
        run, results = _Run(connection, job["result_max_bytes"]), []
        for index, statement in enumerate(statements):
            try:
                results.append(run.one(statement, job["params"], index))
            except duckdb.Error as error:
                retryable = isinstance(error, (duckdb.IOException, duckdb.TransactionException))
                code = type(error).__name__
                raise _FailedError(code, str(error), index=index, retryable=retryable) from None
        connection.close()
    except _FailedError as failure:
        return failure.answer
    return {"ok": True, "results": results}


def main(arguments: list[str]) -> int:
    """Serve one job. Argument: the parent's process id."""
    die_with_parent(int(arguments[0]))
    job = orjson.loads(sys.stdin.buffer.read())
    sys.stdout.buffer.write(orjson.dumps(answer(job), option=orjson.OPT_NON_STR_KEYS))
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
