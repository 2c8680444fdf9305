"""`python -m services.dev.routes_page`: writes docs/routes.md, the table of every route, who calls it and where its test is.

Paths, summaries and statuses come from the route tables of the API; callers and tests from `docs/routes/*.toml`, one table
per route. `--check` writes nothing and fails when the page is not what it would write.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from services.api.app import TABLES
from services.api.http import RouteSpec
from services.api.openapi import answers

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "routes.md"
ROWS = ROOT / "docs" / "routes"

INTRODUCTION = """# Every route

Made by `python -m services.dev.routes_page` from the route tables of the API and `docs/routes/*.toml`; not edited by hand.
`{n}` operations. The gate is the role that a caller needs (docs/security.md); a route behind it also answers 401, 403 and 429.
Bodies and answers: `/docs` of a running API, or `/openapi.json`.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of a route beside its specification: its `callers`, its `test` as `file::function`."""

    callers: str
    test: str


class RowsError(ValueError):
    """`docs/routes/*.toml` cannot be read as rows; the text names the file and the row."""


def route_name(spec: RouteSpec) -> str:
    """Return the key of a row: method and path."""
    return f"{spec.method} {spec.path}"


def read_rows(directory: Path = ROWS) -> dict[str, Row]:
    """Return the rows of every file by route name.

    Raises:
        RowsError: a row is wrong, or stands twice.
    """
    rows: dict[str, Row] = {}
    for file in sorted(directory.glob("*.toml")):
        for name, fields in tomllib.loads(file.read_text(encoding="utf-8")).items():
            if name in rows:
                raise RowsError(f"{file.name}: {name} stands twice")
            if not isinstance(fields, dict) or set(fields) != {"callers", "test"}:
                raise RowsError(f"{file.name}: {name} wants `callers` and `test` and nothing else")
            rows[name] = Row(callers=str(fields["callers"]), test=str(fields["test"]))
    return rows


def _link(test: str) -> str:
    file, _, function = test.partition("::")
    return f"[{function}](../{file})"


def _table(specs: Iterable[RouteSpec], rows: Mapping[str, Row]) -> list[str]:
    lines = ["| Route | What for | Answers | Gate | Callers | Test |", "|---|---|---|---|---|---|"]
    for spec in specs:
        row = rows.get(route_name(spec))
        callers, test = (row.callers, _link(row.test)) if row else ("?", "?")
        statuses = ", ".join(str(status) for status in answers(spec))
        gate = f"{spec.role}; {spec.elevated[1]} with `{spec.elevated[0]}`" if spec.elevated else str(spec.role)
        lines.append(f"| `{route_name(spec)}` | {spec.summary} | {statuses} | {gate} | {callers} | {test} |")
    return lines


def routes_page(rows: Mapping[str, Row]) -> str:
    """Return the page, the routes by tag in the order in which they match."""
    groups: dict[str, list[RouteSpec]] = {}
    for table in TABLES:
        groups.setdefault(table.tag, []).extend(table.specs)
    count = sum(len(specs) for specs in groups.values())
    lines = [INTRODUCTION.replace("{n}", str(count))]
    for tag, specs in groups.items():
        lines += [f"## {tag}", "", *_table(specs, rows), ""]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Write or check the page; 0 when it is current."""
    page = routes_page(read_rows())
    if arguments == ["--check"]:
        return 0 if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page else 1
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
