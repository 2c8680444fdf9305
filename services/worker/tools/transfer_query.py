"""Transfers whose target is a statement of the author's, run once per row."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

from services.worker.sql_values import argument, cell
from services.worker.tools.base import ToolError
from services.worker.tools.postgres import Connection

_PLACE = re.compile(r"%(%|s)|'(?:[^']|'')*'")


def numbered(sql: str) -> str:
    """Return a statement with `%s` as `$1`, `$2`, ... and `%%` as `%`; quoted text and statements with `$1` stay."""
    if "$1" in sql:
        return sql
    count = 0

    def place(match: re.Match[str]) -> str:
        nonlocal count
        if match[1] is None:
            return match[0].replace("%%", "%")
        if match[1] == "%":
            return "%"
        count += 1
        return f"${count}"

    return _PLACE.sub(place, sql)


async def rows_of_query(source: Connection, query: str, size: int) -> AsyncIterator[list[list[Any]]]:
    """Yield the rows of a query as plain values, `size` at once; a transaction must be open."""
    cursor = await (await source.prepare(query, name="")).cursor()
    records = await cursor.fetch(size)
    while records:
        yield [[cell(value) for value in record.values()] for record in records]
        records = await cursor.fetch(size) if len(records) == size else []


async def run_per_row(target: Connection, sql: str, chunks: AsyncIterator[list[list[Any]]], kind: str) -> int:
    """Run a statement for every row and return how many there were; a transaction must be open.

    Raises:
        ToolError: a row has not as many values as the statement has places, or a value does not fit.
    """
    prepared = await target.prepare(numbered(sql), name="")
    types = [parameter.name for parameter in prepared.get_parameters()]
    count = 0
    async for chunk in chunks:
        await prepared.executemany([_arguments(row, types, kind) for row in chunk])
        count += len(chunk)
    return count


def _arguments(row: Sequence[Any], types: Sequence[str], kind: str) -> list[Any]:
    if len(row) != len(types):
        text = f"`target.query` has {len(types)} places, a row has {len(row)} values; name them with `mapping`"
        raise ToolError(kind, "BAD_CONFIG", text)
    try:
        return [argument(value, name) for value, name in zip(row, types, strict=True)]
    except ValueError as error:
        raise ToolError(kind, "BAD_SOURCE", str(error)) from error
