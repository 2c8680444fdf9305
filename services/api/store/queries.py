"""Named SQL statements from `sql/*.sql`.

A file holds statements of one table or concern. Each begins with `-- name: <name>`; comment lines after it document the
statement and its parameters; everything up to the next name is the statement.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib import resources

_NAME = re.compile(r"^-- name: ([a-z0-9_]+)\s*$", re.MULTILINE)


def _statements(text: str) -> Iterator[tuple[str, str]]:
    parts = _NAME.split(text)
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        yield name, body.strip().rstrip(";")


@cache
def queries(file: str) -> dict[str, str]:
    """Return the statements of `sql/<file>.sql` by name.

    Raises:
        ValueError: a name stands twice in the file.
    """
    text = resources.files("services.api.store").joinpath("sql", f"{file}.sql").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for name, statement in _statements(text):
        if name in found:
            raise ValueError(f"sql/{file}.sql names {name} twice")
        found[name] = statement
    return found


def query(file: str, name: str) -> str:
    """Return one statement; a missing name is our own bug and raises KeyError at import time of its user."""
    return queries(file)[name]
