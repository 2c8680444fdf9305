"""Placeholders of psycopg as Postgres takes them, and errors as libpq prints them."""

from __future__ import annotations

from typing import Any

import pytest

from services.api.http import HttpError
from services.api.sql_errors import _marked
from services.api.user_sql import numbered


@pytest.mark.parametrize(
    ("query", "parameters", "text", "values"),
    [
        ("SELECT 1 % 2", None, "SELECT 1 % 2", []),
        ("SELECT %s, %s", [1, "a"], "SELECT $1, $2", [1, "a"]),
        ("SELECT %s", 5, "SELECT $1", [5]),
        ("SELECT %(b)s, %(a)s, %(b)s", {"a": 1, "b": 2, "c": 3}, "SELECT $1, $2, $1", [2, 1]),
        ("SELECT 'x%%' WHERE a = %s", [1], "SELECT 'x%' WHERE a = $1", [1]),
        ("SELECT $1", [1], "SELECT $1", [1]),
    ],
)
def test_placeholders_are_numbered(query: str, parameters: Any, text: str, values: list[Any]) -> None:
    assert numbered(query, parameters) == (text, values)


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        ("SELECT %s", []),
        ("SELECT 1", [1]),
        ("SELECT %(a)s", {"b": 1}),
        ("SELECT %(a)s", [1]),
        ("SELECT %s", {"a": 1}),
    ],
)
def test_a_parameter_that_does_not_match_is_named(query: str, parameters: Any) -> None:
    with pytest.raises(HttpError) as caught:
        numbered(query, parameters)
    assert caught.value.status == 422
    assert caught.value.detail[0]["loc"][:2] == ["body", "parameters"]  # type: ignore[index]


def test_the_place_of_an_error_is_marked() -> None:
    assert _marked("SELEC", 1) == "LINE 1: SELEC\n        ^"
    assert _marked("SELECT a\nFROM b\n", 15) == "LINE 2: FROM b\n             ^"


@pytest.mark.parametrize("at", [1, 40, 55, 80, 119, 120])
def test_a_long_line_is_cut_around_the_place(at: int) -> None:
    query = "x" * (at - 1) + "!" + "y" * (120 - at)
    line, caret = _marked(query, at).split("\n")
    assert len(line) < 80
    assert line[caret.index("^")] == "!"
