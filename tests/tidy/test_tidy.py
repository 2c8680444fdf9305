"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*(ROOT / "services").rglob("*.py"), *(ROOT / "shared").rglob("*.py")])
MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
SQL = re.compile(r"^\s*(SELECT\s.+\sFROM|INSERT\s+INTO|UPDATE\s+\S+\s+SET|DELETE\s+FROM|CREATE\s+TABLE)\s", re.I | re.S)
# Talk to the embedded server about itself: there is no schema yet.
SQL_OUTSIDE_FILES = {Path("services/dev/postgres.py"), Path("services/api/identity.py")}
ENVIRONMENT_READERS = {
    Path("shared/platform/lifecycle.py"),
    Path("services/worker/tools/base.py"),
    Path("services/worker/python_child.py"),
}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_modules_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MODULE_LINES_MAX
    long = [
        item.name
        for item in functions(ast.parse(text))
        if (item.end_lineno or item.lineno) - item.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert not long


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_public_functions_and_types_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    if path.name not in ("__init__.py",):
        assert ast.get_docstring(tree), "a module says what it is for"
    missing = [
        item.name
        for item in tree.body
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not item.name.startswith("_")
        and not ast.get_docstring(item)
    ]
    assert not missing


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_loop_is_endless_and_nothing_runs_unowned(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.While):
            assert not (isinstance(node.test, ast.Constant) and node.test.value), f"while True at {node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_sql_stands_in_sql_files(path: Path) -> None:
    if path.relative_to(ROOT) in SQL_OUTSIDE_FILES:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not SQL.match(node.value), f"SQL at {node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_the_environment_is_read_in_one_place(path: Path) -> None:
    if path.relative_to(ROOT).parts[:2] == ("services", "dev") or path.relative_to(ROOT) in ENVIRONMENT_READERS:
        return
    assert not re.search(r"os\.(environ|getenv)", path.read_text())


def test_every_statement_bounds_what_it_reads() -> None:
    unbounded: list[str] = []
    for path in sorted((ROOT / "services/api/store/sql").glob("*.sql")):
        for block in re.split(r"^-- name: ", path.read_text(), flags=re.M)[1:]:
            title, _, sql = block.partition("\n")
            code = re.sub(r"--.*", "", sql)
            reads = re.match(r"\s*(WITH\b.*?\)\s*)?SELECT\b", code, re.S | re.I)
            bounded = re.search(
                r"\bLIMIT\b|\bcount\(|= ANY|unnest|pg_advisory|set_config|clock_timestamp|now\(|max\(|version = |_id = ",
                code,
                re.I,
            )
            if reads and not bounded:
                unbounded.append(f"{path.name}:{title}")
    assert not unbounded


def test_no_metric_has_an_id_as_a_label() -> None:
    labels = re.compile(r"(?:Counter|Gauge|Histogram)\([^)]*\[([^\]]*)\]", re.S)
    for path in SOURCES:
        for match in labels.finditer(path.read_text()):
            assert "_id" not in match[1], name(path)
            assert "path" not in match[1], name(path)


def test_secrets_are_opened_where_the_access_is_recorded() -> None:
    openers = {"services/api/secret_access.py", "services/api/secrets_at_rest.py", "services/api/routes/keychain.py"}
    found = {name(path) for path in SOURCES if re.search(r"\bunseal\(", path.read_text())}
    assert found == openers
