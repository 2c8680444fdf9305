"""Rows of a transfer that come from a file or an http answer, and their CSV text for COPY."""

from __future__ import annotations

import asyncio
import csv
import io
import itertools
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from services.worker.sql_values import json_text
from services.worker.tools import http
from services.worker.tools.base import ToolBox, ToolCall, ToolError
from services.worker.tools.limits import TRANSFER_FIELD_MAX_BYTES, TRANSFER_PATH_PARTS_MAX
from services.worker.tools.script_source import local_path

Row = Mapping[str, Any]
_LIST_KEYS = ("data", "rows", "items", "results", "records")
_MISSING = object()


def at_path(value: Any, path: str) -> Any:
    """Return the member at a dotted path, None when there is none."""
    if isinstance(value, Mapping) and path in value:
        return value[path]
    for key in path.split(".")[:TRANSFER_PATH_PARTS_MAX]:
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def _listed(data: Any, path: str | None, kind: str) -> list[Any]:
    found = at_path(data, path) if path else data
    if isinstance(found, Mapping):
        inner = next((found[key] for key in _LIST_KEYS if isinstance(found.get(key), list)), None)
        found = inner if inner is not None and not path else [found]
    if not isinstance(found, list):
        where = f"`{path}` of the answer" if path else "the answer"
        raise ToolError(kind, "BAD_SOURCE", f"{where} is no list of objects; name it with `source.data_path`")
    return found


async def http_rows(source: Mapping[str, Any], call: ToolCall, box: ToolBox, size: int) -> AsyncIterator[list[Row]]:
    """Yield the objects of a JSON answer, `size` at once. The answer has the result limit of the worker.

    Raises:
        ToolError: the request failed, or its answer has no list of objects.
    """
    config = {key: value for key, value in source.items() if key not in ("type", "kind", "tool")}
    answer = await http.run(replace(call, kind="http", config=config), box)
    path = source.get("data_path") or source.get("path")
    rows = _listed(answer["data"], str(path) if path else None, call.kind)
    for start in range(0, len(rows), size):
        chunk = rows[start : start + size]
        wrong = next((row for row in chunk if not isinstance(row, Mapping)), _MISSING)
        if wrong is not _MISSING:
            raise ToolError(
                call.kind, "BAD_SOURCE", f"the answer has a {type(wrong).__name__} where an object is expected"
            )
        yield chunk


def _csv_chunks(path: Path, source: Mapping[str, Any], size: int) -> Iterator[list[Row]]:
    csv.field_size_limit(TRANSFER_FIELD_MAX_BYTES)
    columns = source.get("columns")
    names = [str(name) for name in columns] if isinstance(columns, list) else None
    with path.open(newline="", encoding=str(source.get("encoding") or "utf-8-sig")) as file:
        reader = csv.DictReader(file, fieldnames=names, delimiter=str(source.get("delimiter") or ","))
        chunk = list(itertools.islice(reader, size))
        while chunk:
            yield [
                {key: value if value != "" else None for key, value in row.items() if key is not None} for row in chunk
            ]
            chunk = list(itertools.islice(reader, size))


async def csv_rows(source: Mapping[str, Any], call: ToolCall, box: ToolBox, size: int) -> AsyncIterator[list[Row]]:
    """Yield the rows of a CSV file by its header (or `columns`), `size` at once; an empty field is null.

    Raises:
        ToolError: the file is missing, or is no CSV text.
    """
    path = local_path(file_of(source, call.kind), box)
    chunks = _csv_chunks(path, source, size)
    try:
        chunk = await asyncio.to_thread(next, chunks, None)
        while chunk:
            yield chunk
            chunk = await asyncio.to_thread(next, chunks, None)
    except FileNotFoundError as error:
        raise ToolError(call.kind, "NOT_FOUND", f"the file {path} does not exist on this worker") from error
    except (OSError, csv.Error, UnicodeError, LookupError, TypeError) as error:
        raise ToolError(call.kind, "BAD_SOURCE", f"the file {path} cannot be read as CSV: {error}") from error


def file_of(side: Mapping[str, Any], kind: str) -> str:
    """Return the file that a side of a transfer names.

    Raises:
        ToolError: it names none, or one in a store that this worker does not reach.
    """
    given = next((str(side[key]) for key in ("path", "file", "uri", "file_path") if side.get(key)), None)
    if given is None:
        raise ToolError(kind, "BAD_CONFIG", "a csv side needs `path`")
    if "://" in given and not given.startswith("file://"):
        raise ToolError(kind, "NOT_AVAILABLE", f"{given.split('://')[0]}:// is not in this worker; use a file")
    return given


def _array(value: Sequence[Any]) -> str:
    """Return a list as an array literal of Postgres."""
    return "{" + ",".join(_array_member(member) for member in value) + "}"


def _array_member(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return _array(value)
    return '"' + field_text(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def field_text(value: Any, *, is_array: bool = False) -> str:
    """Return a value as text that Postgres reads into any column it fits."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if is_array and isinstance(value, list):
        return _array(value)
    if isinstance(value, (Mapping, list)):
        return json_text(value)
    return str(value).replace("\x00", "")


def csv_text(rows: Iterable[Sequence[Any]], arrays: frozenset[int] = frozenset()) -> bytes:
    """Return rows as CSV in which null is empty and every other value is quoted. `arrays` has the array columns."""
    text = io.StringIO()
    for row in rows:
        fields = (
            "" if value is None else '"' + field_text(value, is_array=place in arrays).replace('"', '""') + '"'
            for place, value in enumerate(row)
        )
        text.write(",".join(fields))
        text.write("\n")
    return text.getvalue().encode("utf-8", "replace")
