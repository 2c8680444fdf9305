"""Where one SQL statement ends, and values between SQL and JSON."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from services.worker.sql_values import argument, cell
from services.worker.tools.sql_text import split


@pytest.mark.parametrize(
    ("sql", "statements"),
    [
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1; ; SELECT 2;\n", ["SELECT 1", "SELECT 2"]),
        ("-- only a comment; really\n/* and ; /* nested; */ another */", []),
        ("SELECT ';', \"a;b\"; SELECT 2", ["SELECT ';', \"a;b\"", "SELECT 2"]),
        ("SELECT 'it''s; fine'; SELECT 2", ["SELECT 'it''s; fine'", "SELECT 2"]),
        (r"SELECT E'a\';b'; SELECT 2", [r"SELECT E'a\';b'", "SELECT 2"]),
        (r"SELECT E'a''\';b'; SELECT 2", [r"SELECT E'a''\';b'", "SELECT 2"]),
        (r"SELECT 'a\'; SELECT 2", [r"SELECT 'a\'", "SELECT 2"]),
        (r"SELECT name'x\'; SELECT 2", [r"SELECT name'x\'", "SELECT 2"]),
        ("DO $$ BEGIN PERFORM 1; END $$; SELECT 2", ["DO $$ BEGIN PERFORM 1; END $$", "SELECT 2"]),
        ("DO $a$ x; $$ y; $a$; SELECT 2", ["DO $a$ x; $$ y; $a$", "SELECT 2"]),
        ("SELECT $1; SELECT a$b$c; SELECT 3", ["SELECT $1", "SELECT a$b$c", "SELECT 3"]),
        ("SELECT 1 -- x; y\n; SELECT 2", ["SELECT 1 -- x; y", "SELECT 2"]),
        ("SELECT 5/2; SELECT 3-1; SELECT 4", ["SELECT 5/2", "SELECT 3-1", "SELECT 4"]),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; SELECT 3",
            [
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
                "SELECT 3",
            ],
        ),
        (
            "CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2); SELECT 3",
            ["CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2)", "SELECT 3"],
        ),
        ("SELECT 'never ends; SELECT 2", ["SELECT 'never ends; SELECT 2"]),
        ("SELECT E'never ends\\'; SELECT 2", ["SELECT E'never ends\\'; SELECT 2"]),
        ("/* never ends; SELECT 2", []),
    ],
)
def test_split(sql: str, statements: list[str]) -> None:
    assert [statement.text for statement in split(sql)] == statements


def test_first_words() -> None:
    (statement,) = split("-- why\ncreate  unique /* now */ index concurrently i on t (a)")
    assert statement.head.startswith("CREATE UNIQUE INDEX CONCURRENTLY")


def test_a_large_text_is_split_in_one_pass() -> None:
    sql = "INSERT INTO t VALUES (1, 'x;y', $$z$$);\n" * 20_000
    assert len(split(sql)) == 20_000


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Decimal("5.15"), 5.15),
        (Decimal("600"), 600),
        (Decimal("12345678901234567890.12"), "12345678901234567890.12"),
        (Decimal("NaN"), None),
        (datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (timedelta(minutes=2), 120.0),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ([Decimal(1), [None]], [1, [None]]),
        (float("inf"), None),
        (b"abc", "abc"),
    ],
)
def test_cells_are_plain(value: object, plain: object) -> None:
    assert cell(value) == plain


@pytest.mark.parametrize(
    ("value", "type_name", "expected"),
    [
        ("5", "int4", 5),
        (5.0, "int8", 5),
        ("yes", "bool", True),
        (1.5, "numeric", Decimal("1.5")),
        ({"a": 1}, "jsonb", '{"a":1}'),
        ('{"a":1}', "jsonb", '{"a":1}'),
        ("plain", "jsonb", '"plain"'),
        ("2026-01-02", "date", date(2026, 1, 2)),
        ("2026-01-02T03:00:00Z", "timestamptz", datetime(2026, 1, 2, 3, tzinfo=UTC)),
        (["1", None], "int4[]", [1, None]),
        (7, "text", "7"),
        (None, "int4", None),
    ],
)
def test_arguments(value: object, type_name: str, expected: object) -> None:
    assert argument(value, type_name) == expected


@pytest.mark.parametrize(
    ("value", "type_name"), [("x", "int4"), (1.5, "int4"), ("maybe", "bool"), (1, "int4[]"), ("x", "uuid")]
)
def test_arguments_that_are_none_of_their_type(value: object, type_name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        argument(value, type_name)
