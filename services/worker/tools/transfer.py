"""`transfer`: rows from one place to another, streamed with COPY, all or nothing on the target's side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from services.worker.tools.base import ToolBox, ToolCall, ToolError, part
from services.worker.tools.limits import (
    TRANSFER_CHUNK_ROWS,
    TRANSFER_CHUNK_ROWS_MAX,
    TRANSFER_COLUMNS_MAX,
    TRANSFER_PARTS_AHEAD,
)
from services.worker.tools.postgres import Connection, failures, limit_statements, rows_of, target_for
from services.worker.tools.script_source import local_path
from services.worker.tools.sql_text import split
from services.worker.tools.transfer_csv import CsvFile
from services.worker.tools.transfer_query import rows_of_query, run_per_row
from services.worker.tools.transfer_rows import Row, at_path, csv_rows, csv_text, file_of, http_rows
from services.worker.tools.transfer_sql import (
    KEYS,
    ORDER,
    STAGING,
    keys_given,
    name_of,
    qualified,
    select,
    source_query,
    stage,
    stage_nulls,
    table_of,
    truncate,
    upsert,
    whole,
)

KIND = "transfer"
_MODES = {
    **dict.fromkeys(("append", "insert"), "append"),
    **dict.fromkeys(("replace", "overwrite", "truncate"), "replace"),
    **dict.fromkeys(("upsert", "merge"), "upsert"),
}
_PLACES = {
    "postgres": "postgres",
    "postgresql": "postgres",
    "pg": "postgres",
    "http": "http",
    "csv": "csv",
    "file": "csv",
}
_ABSENT = "use postgres, http or csv; for others run a NoETL worker that has them in a pool of its own"

Copy = Callable[[Connection, str | None, str, Sequence[str]], Awaitable[int]]
Moved = tuple[int, list[str]]  # rows, and the target's columns


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    source: Mapping[str, Any]
    target: Mapping[str, Any]
    source_type: str
    target_type: str
    mode: str
    chunk_rows: int
    mapping: Mapping[str, str]
    query: str  # of the target, run per row; empty: the rows go into its table


def _bad(text: str) -> ToolError:
    return ToolError(KIND, "BAD_CONFIG", text)


def _side(call: ToolCall, name: str) -> tuple[Mapping[str, Any], str]:
    side = call.config.get(name)
    if not isinstance(side, Mapping):
        raise _bad(f"a transfer tool needs `{name}`, an object with `type`")
    kind = str(side.get("type") or side.get("kind") or side.get("tool") or "").lower()
    if not kind:
        raise _bad(f"`{name}` needs `type`: postgres, http or csv")
    if kind not in _PLACES:
        raise ToolError(KIND, "NOT_AVAILABLE", f"`{name}.type` '{kind}' is not in this worker; {_ABSENT}")
    return side, _PLACES[kind]


def _plan(call: ToolCall) -> _Plan:
    source, source_type = _side(call, "source")
    target, target_type = _side(call, "target")
    if target_type == "http":
        raise _bad("`target.type` must be postgres or csv; send rows with a loop over an http tool")
    mode = str(target.get("mode") or call.config.get("mode") or "append").lower()
    if mode not in _MODES:
        raise _bad(f"`mode` must be append, replace or upsert, not '{mode}'")
    if _MODES[mode] == "upsert" and target_type == "csv":
        raise _bad("a csv target takes mode append or replace")
    given = call.config.get("chunk_size", source.get("chunk_size"))
    text = str(TRANSFER_CHUNK_ROWS if given in (None, "") else given)
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= TRANSFER_CHUNK_ROWS_MAX):
        raise _bad(f"`chunk_size` must be a number from 1 to {TRANSFER_CHUNK_ROWS_MAX}")
    mapping = target.get("mapping") or call.config.get("mapping") or {}
    if not isinstance(mapping, Mapping) or len(mapping) > TRANSFER_COLUMNS_MAX:
        raise _bad("`mapping` must be an object: target column: source column")
    return _Plan(
        source=source,
        target=target,
        source_type=source_type,
        target_type=target_type,
        mode=_MODES[mode],
        chunk_rows=int(text),
        mapping={str(key): str(value) for key, value in mapping.items()},
        query=_target_query(target) if target_type == "postgres" else "",
    )


def _target_query(target: Mapping[str, Any]) -> str:
    statements = split(str(target.get("query") or ""))
    if len(statements) > 1:
        raise _bad(f"`target.query` must be one statement, not {len(statements)}")
    return statements[0].text if statements else ""


def _side_call(call: ToolCall, side: Mapping[str, Any]) -> ToolCall:
    """Return a call whose database is that of one side; the tool's own `auth` is the default."""
    own = {key: value for key, value in side.items() if key not in ("schema", "table", "mapping", "mode")}
    defaults = {key: call.config.get(key) for key in ("auth", "credential")}
    return replace(call, config={**defaults, **own})


async def _chunks(plan: _Plan, call: ToolCall, box: ToolBox) -> AsyncIterator[list[Row]]:
    read = http_rows if plan.source_type == "http" else csv_rows
    async for chunk in read(plan.source, call, box, plan.chunk_rows):
        yield chunk


def _counted(tag: str) -> int:
    last = tag.rsplit(" ", 1)[-1]
    return int(last) if last.isdigit() else 0


# --- into postgres ----------------------------------------------------------------------------------------------------


async def _columns(connection: Connection, schema: str | None, table: str) -> dict[str, str]:
    """Return the columns of a table with their types."""
    prepared = await connection.prepare(whole(schema, table), name="")
    return {attribute.name: attribute.type.name for attribute in prepared.get_attributes()}


async def _write(plan: _Plan, connection: Connection, columns: Sequence[str], copy: Copy) -> int:
    """Put rows into the target as the mode says, in the transaction that is open; return how many came."""
    schema, name = table_of(plan.target, KIND)
    table = qualified(schema, name)
    if plan.mode != "upsert":
        if plan.mode == "replace":
            await connection.execute(truncate(table))
        return await copy(connection, schema, name, columns)
    keys = keys_given(plan.target) or [row["name"] for row in await connection.fetch(KEYS, table)] or list(columns[:1])
    missing = [key for key in keys if key not in columns]
    if missing:
        raise _bad(f"mode upsert: the rows have no key column {', '.join(missing)}")
    await connection.execute(stage(table))
    absent = [column for column in await _columns(connection, None, STAGING) if column not in (*columns, ORDER)]
    if absent:
        await connection.execute(stage_nulls(absent))
    count = await copy(connection, None, STAGING, columns)
    await connection.execute(upsert(table, columns, keys))
    return count


def _wanted(plan: _Plan, names: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Return target column: source name. Without a mapping: the names that both sides have.

    Raises:
        ToolError: a mapped column does not exist, or nothing is in common.
    """
    if plan.mapping:
        mapped = {name_of(key): value for key, value in plan.mapping.items()}
        missing = [key for key in mapped if key not in columns]
        if missing:
            raise _bad(f"`mapping`: the target has no column {', '.join(missing)}")
        return mapped
    common = {name_of(name): name for name in names if name_of(name) in columns}
    if not common:
        source, target = ", ".join(names)[:200], ", ".join(columns)[:200]
        raise _bad(f"source ({source}) and target ({target}) have no column in common; add `mapping`")
    return common


def _known(mapping: Mapping[str, str], names: Sequence[str]) -> None:
    unknown = [name for name in mapping.values() if name not in names]
    if unknown:
        raise _bad(f"`mapping`: the source has no column {', '.join(unknown)}")


async def _nothing(*_: object) -> int:
    return 0


async def _rows_to_postgres(plan: _Plan, call: ToolCall, box: ToolBox, connection: Connection) -> Moved:
    types = await _columns(connection, *table_of(plan.target, KIND))
    chunks = _chunks(plan, call, box)
    first = await anext(chunks, None)
    if first is None:
        return (await _write(plan, connection, [], _nothing) if plan.mode == "replace" else 0), []
    wanted = _wanted(plan, list(first[0]), types)
    arrays = frozenset(place for place, name in enumerate(wanted) if types[name].endswith("[]"))

    async def parts() -> AsyncIterator[bytes]:
        chunk: list[Row] | None = first
        while chunk:
            yield csv_text(([at_path(row, source) for source in wanted.values()] for row in chunk), arrays)
            chunk = await anext(chunks, None)

    async def copy(to: Connection, schema: str | None, table: str, columns: Sequence[str]) -> int:
        tag = await to.copy_to_table(table, source=parts(), schema_name=schema, columns=list(columns), format="csv")
        return _counted(tag)

    return await _write(plan, connection, list(wanted), copy), list(wanted)


async def _postgres_to_postgres(plan: _Plan, source: Connection, target: Connection) -> Moved:
    query = source_query(plan.source, KIND)
    names = await rows_of(source, query)
    wanted = _wanted(plan, names, await _columns(target, *table_of(plan.target, KIND)))
    _known(wanted, names)

    async def copy(to: Connection, schema: str | None, table: str, columns: Sequence[str]) -> int:
        parts: asyncio.Queue[bytes | None] = asyncio.Queue(TRANSFER_PARTS_AHEAD)

        async def read() -> None:
            await source.copy_from_query(select(query, wanted), output=parts.put, format="csv")
            await parts.put(None)

        async def taken() -> AsyncIterator[bytes]:
            got = await parts.get()
            while got is not None:
                yield got
                got = await parts.get()

        names = list(columns)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(read())
                tag = await to.copy_to_table(table, source=taken(), schema_name=schema, columns=names, format="csv")
        except* Exception as failed:  # noqa: BLE001 - all of them: only the wrapping is taken off
            raise failed.exceptions[0] from None
        return _counted(tag)

    return await _write(plan, target, list(wanted), copy), list(wanted)


async def _rows_to_query(plan: _Plan, call: ToolCall, box: ToolBox, target: Connection) -> Moved:
    columns: list[str] = list(plan.mapping)

    async def values() -> AsyncIterator[list[list[Any]]]:
        nonlocal columns
        async for chunk in _chunks(plan, call, box):
            columns = columns or list(chunk[0])
            sources = list(plan.mapping.values()) or columns
            yield [[at_path(row, source) for source in sources] for row in chunk]

    return await run_per_row(target, plan.query, values(), KIND), columns


async def _postgres_to_query(plan: _Plan, source: Connection, target: Connection) -> Moved:
    query = source_query(plan.source, KIND)
    names = await rows_of(source, query)
    mapping = dict(plan.mapping) or {name: name for name in names}
    _known(mapping, names)
    async with source.transaction():
        rows = rows_of_query(source, select(query, mapping), plan.chunk_rows)
        return await run_per_row(target, plan.query, rows, KIND), list(mapping)


async def _to_postgres(plan: _Plan, call: ToolCall, box: ToolBox) -> Moved:
    pools = part(box.postgres, KIND, "connections to Postgres")
    place = await target_for(_side_call(call, plan.target), box)
    async with pools.connection(place, KIND) as target:
        with failures(KIND):
            await limit_statements(target, call.timeout_seconds)
            async with target.transaction():
                if plan.source_type != "postgres":
                    move = _rows_to_query if plan.query else _rows_to_postgres
                    return await move(plan, call, box, target)
                origin = await target_for(_side_call(call, plan.source), box)
                async with pools.connection(replace(origin, purpose="source"), KIND) as source:
                    await limit_statements(source, call.timeout_seconds)
                    move_rows = _postgres_to_query if plan.query else _postgres_to_postgres
                    return await move_rows(plan, source, target)


# --- into files -------------------------------------------------------------------------------------------------------


async def _to_csv(plan: _Plan, call: ToolCall, box: ToolBox) -> Moved:
    path = local_path(file_of(plan.target, KIND), box)
    try:
        file = await asyncio.to_thread(CsvFile, path, append=plan.mode == "append")
        try:
            move = _postgres_to_csv if plan.source_type == "postgres" else _rows_to_csv
            moved = await move(plan, call, box, file)
            await asyncio.to_thread(file.finish)
        finally:
            file.close()
    except OSError as error:
        raise ToolError(KIND, "FILE", f"the file {path} cannot be written: {error}") from error
    return moved


async def _postgres_to_csv(plan: _Plan, call: ToolCall, box: ToolBox, file: CsvFile) -> Moved:
    pools = part(box.postgres, KIND, "connections to Postgres")
    origin = await target_for(_side_call(call, plan.source), box)
    query = source_query(plan.source, KIND)

    async def put(text: bytes) -> None:
        await asyncio.to_thread(file.write, text)

    async with pools.connection(origin, KIND) as source:
        with failures(KIND):
            await limit_statements(source, call.timeout_seconds)
            names = await rows_of(source, query)
            mapping = dict(plan.mapping) or {name: name for name in names}
            _known(mapping, names)
            sql = select(query, mapping)
            tag = await source.copy_from_query(sql, output=put, format="csv", header=file.has_header)
    return _counted(tag), list(mapping)


async def _rows_to_csv(plan: _Plan, call: ToolCall, box: ToolBox, file: CsvFile) -> Moved:
    count, mapping = 0, dict(plan.mapping)
    async for chunk in _chunks(plan, call, box):
        mapping = mapping or {name: name for name in chunk[0]}
        if not count and file.has_header:
            await asyncio.to_thread(file.write, csv_text([list(mapping)]))
        text = csv_text([at_path(row, name) for name in mapping.values()] for row in chunk)
        await asyncio.to_thread(file.write, text)
        count += len(chunk)
    return count, list(mapping)


async def run(call: ToolCall, box: ToolBox) -> dict[str, Any]:
    """Move the rows and return how many there were. A target in Postgres is changed in one transaction.

    Raises:
        ToolError: a side is missing, cannot be reached, or refuses a row.
    """
    plan = _plan(call)
    into_postgres = plan.target_type == "postgres"
    if plan.query:
        place = "custom_query"
    else:
        place = ".".join(filter(None, table_of(plan.target, KIND))) if into_postgres else file_of(plan.target, KIND)
    rows, columns = await (_to_postgres if into_postgres else _to_csv)(plan, call, box)
    return {
        "status": "success",
        "direction": f"{plan.source_type}_to_{plan.target_type}",
        "source_type": plan.source_type,
        "target_type": plan.target_type,
        "mode": "custom" if plan.query else plan.mode,
        "rows_transferred": rows,
        "row_count": rows,
        "chunks_processed": -(-rows // plan.chunk_rows),
        "target_table": place,
        "columns": columns,
    }
