"""The table of routes is complete, current, and points to tests that exist."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from services.api.app import TABLES
from services.dev.routes_page import PAGE, ROOT, RowsError, read_rows, route_name, routes_page

ROWS = read_rows()
ROUTES = [route_name(spec) for table in TABLES for spec in table.specs]
MAKE_IT = "run `python -m services.dev.routes_page`"


def test_each_route_is_mounted_once_and_has_a_row() -> None:
    assert len(set(ROUTES)) == len(ROUTES)
    assert sorted(set(ROUTES) - set(ROWS)) == []


def test_each_row_is_of_a_route() -> None:
    assert sorted(set(ROWS) - set(ROUTES)) == []


def test_each_test_that_is_named_exists() -> None:
    functions: dict[str, set[str]] = {}
    for row in ROWS.values():
        file = row.test.partition("::")[0]
        if file not in functions and (ROOT / file).is_file():
            tree = ast.parse((ROOT / file).read_text())
            functions[file] = {
                item.name for item in ast.walk(tree) if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    unknown = [
        f"{route}: {row.test}"
        for route, row in ROWS.items()
        if row.test.partition("::")[2] not in functions.get(row.test.partition("::")[0], set())
    ]
    assert unknown == []


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == routes_page(ROWS), MAKE_IT


@pytest.mark.parametrize(
    "text", ['["GET /x"]\ncallers = "c"\n', '["GET /x"]\ncallers = "c"\ntest = "t"\nmore = 1\n', '"GET /x" = 1\n']
)
def test_a_row_that_is_not_whole_is_refused_with_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "some.toml").write_text(text)
    with pytest.raises(RowsError, match=r"some\.toml: GET /x"):
        read_rows(tmp_path)
