"""Names and statements of transfers. The statements stand in `transfer.sql`. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from services.worker.tools.base import ToolError
from services.worker.tools.sql_text import split

STAGING = "playhead_transfer"
ORDER = "playhead_transfer_row"
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")
_KEY_NAMES = (
    *("key", "keys", "conflict_columns", "upsert_keys"),
    *("primary_key", "unique_key", "conflict_key", "on_conflict"),
)


def _load() -> Mapping[str, str]:
    text = resources.files(__package__).joinpath("transfer.sql").read_text(encoding="utf-8")
    blocks = (block.partition("\n") for block in text.split("-- name: ")[1:])
    return {name.strip(): sql.strip() for name, _, sql in blocks}


_SQL = _load()
KEYS = _SQL["keys"]


def name_of(text: str) -> str:
    """Return one identifier as Postgres reads it unquoted: lower case unless it was written in quotes."""
    text = text.strip()
    if len(text) > 2 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"')
    return text.lower() if _PLAIN_NAME.fullmatch(text) else text


def quoted(name: str) -> str:
    """Return an identifier in quotes."""
    return '"' + name.replace('"', '""') + '"'


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(quoted, names))


def table_of(side: Mapping[str, Any], kind: str) -> tuple[str | None, str]:
    """Return schema (None: the search path's) and table of a side.

    Raises:
        ToolError: it names no table.
    """
    given = str(side.get("table") or "").strip()
    parts = [name_of(piece) for piece in re.findall(r'"(?:[^"]|"")+"|[^."]+', given)]
    if side.get("schema") and len(parts) == 1:
        parts.insert(0, name_of(str(side["schema"])))
    if not 1 <= len(parts) <= 2:
        raise ToolError(kind, "BAD_CONFIG", "a postgres side needs `table`, as name or schema.name")
    return (parts[0] if len(parts) == 2 else None), parts[-1]


def qualified(schema: str | None, table: str) -> str:
    """Return a table with its schema, quoted."""
    return ".".join(map(quoted, filter(None, (schema, table))))


def keys_given(target: Mapping[str, Any]) -> list[str]:
    """Return the key columns that a target names; empty: it names none."""
    given: Any = next((target[name] for name in _KEY_NAMES if target.get(name)), [])
    listed = given if isinstance(given, list) else str(given).split(",")
    return [name_of(str(key)) for key in listed]


def source_query(source: Mapping[str, Any], kind: str) -> str:
    """Return the query of a Postgres source.

    Raises:
        ToolError: it has neither a query nor a table.
    """
    sql = next((str(source[key]) for key in ("query", "sql", "command") if source.get(key)), None)
    if sql is not None:
        statements = split(sql)
        if len(statements) != 1:
            raise ToolError(kind, "BAD_CONFIG", f"a source's `query` must be one statement, not {len(statements)}")
        return statements[0].text
    if source.get("table"):
        return whole(*table_of(source, kind))
    raise ToolError(kind, "BAD_CONFIG", "a postgres source needs `query` or `table`")


def whole(schema: str | None, table: str) -> str:
    """Return the statement for all rows of a table."""
    return _SQL["table"].format(table=qualified(schema, table))


def select(query: str, columns: Mapping[str, str]) -> str:
    """Return the statement for `{name: source column}` of a query."""
    chosen = ", ".join(f"source.{quoted(source)} AS {quoted(name)}" for name, source in columns.items())
    return _SQL["select"].format(columns=chosen, query=query)


def truncate(table: str) -> str:
    """Return the statement that empties a qualified table."""
    return _SQL["truncate"].format(table=table)


def stage(table: str) -> str:
    """Return the statement that makes an empty copy of a qualified table, gone at the end of the transaction."""
    return _SQL["stage"].format(staging=STAGING, table=table, order=ORDER)


def stage_nulls(columns: Sequence[str]) -> str:
    """Return the statement that lets `columns` of the copy be null: those that do not come. At least one."""
    actions = ", ".join(_SQL["stage_null"].format(column=quoted(name)) for name in columns)
    return _SQL["stage_nulls"].format(staging=STAGING, actions=actions)


def upsert(table: str, columns: Sequence[str], keys: Sequence[str]) -> str:
    """Return the statement that merges the copy into a qualified table."""
    values = [quoted(name) for name in columns if name not in keys]
    action = "UPDATE SET " + ", ".join(f"{name} = EXCLUDED.{name}" for name in values) if values else "NOTHING"
    return _SQL["upsert"].format(
        table=table, columns=_list(columns), keys=_list(keys), staging=STAGING, order=ORDER, action=action
    )
