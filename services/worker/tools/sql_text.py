"""SQL text: where a tool's statements come from and where one ends. Pure but for scripts. Postgres quoting."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.worker.tools.base import ToolBox, ToolCall, ToolError
from services.worker.tools.limits import SQL_STATEMENTS_MAX
from services.worker.tools.script_source import script_text

_INLINE = ("query", "queries", "command", "commands", "sql", "cmd", "cmds", "statement", "statements")
_ENCODED = tuple(f"{name}_{suffix}" for name in ("command", "commands", "query", "sql") for suffix in ("b64", "base64"))
_HEAD_WORDS = 6  # kept of a statement: enough to tell `CREATE UNIQUE INDEX CONCURRENTLY`
_TOKEN = re.compile(
    r"""--[^\n]*|/\*|\$(?:[A-Za-z_\x80-\uffff][\w\x80-\uffff]*)?\$|[A-Za-z_\x80-\uffff][\w$\x80-\uffff]*|['";()]|[^\s'";()$/A-Za-z_\x80-\uffff-]+|\S"""
)
_ESCAPED_END = re.compile(r"(?:[^'\\]|\\.|'')*'", re.DOTALL)
_COMMENT_EDGE = re.compile(r"/\*|\*/")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, and its first words in capitals, separated by one blank."""

    text: str
    head: str


def _after_comment(sql: str, position: int) -> int:
    """Return the end of a block comment that was just opened; they nest."""
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(sql, position)
        if edge is None:
            return len(sql)
        depth += 1 if edge[0] == "/*" else -1
        position = edge.end()
    return position


def _after_quoted(sql: str, position: int, quote: str) -> int:
    """Return the end of a quoted text that was just opened; a doubled quote ends and opens again, which is the same."""
    end = sql.find(quote, position)
    return len(sql) if end < 0 else end + len(quote)


def _after_escaped(sql: str, position: int) -> int:
    """Return the end of an `E'...'` text that was just opened."""
    end = _ESCAPED_END.match(sql, position)
    return len(sql) if end is None else end.end()


class _Splitter:
    """State between tokens: words so far, open brackets and `BEGIN ATOMIC` bodies."""

    def __init__(self, sql: str) -> None:
        self._sql = sql
        self._found: list[Statement] = []
        self._restart(0)

    def _restart(self, position: int) -> None:
        self._start, self._last = position, ""
        self._words: list[str] = []
        self._brackets = self._bodies = 0
        self._is_empty = True

    def _end(self, position: int) -> None:
        text = self._sql[self._start : position].strip()
        if not self._is_empty:
            self._found.append(Statement(text, " ".join(self._words)))

    def _word(self, word: str) -> None:
        upper = word.upper()
        if len(self._words) < _HEAD_WORDS:
            self._words.append(upper)
        if (upper == "ATOMIC" and self._last == "BEGIN") or (self._bodies and upper == "CASE"):
            self._bodies += 1
        elif self._bodies and upper == "END":
            self._bodies -= 1
        self._last = upper

    def _skip(self, token: re.Match[str]) -> int:
        """Return the position after a token, of a text or comment after its end."""
        text, end = token[0], token.end()
        if text == "/*":
            return _after_comment(self._sql, end)
        if text[:2] == "--":
            return end
        self._is_empty = False
        if text == "'":
            before = self._sql[max(token.start() - 2, 0) : token.start()].lower()
            prefixed = before[-1:] == "e" and not re.match(r"[\w$]", before[:-1])
            return _after_escaped(self._sql, end) if prefixed else _after_quoted(self._sql, end, "'")
        if text == '"' or (text[0] == "$" and text[-1] == "$" and len(text) > 1):
            return _after_quoted(self._sql, end, text)
        if text in "()":
            self._brackets = max(self._brackets + (1 if text == "(" else -1), 0)
        elif text[0].isalpha() or text[0] == "_":
            self._word(text)
        return end

    def run(self) -> list[Statement]:
        position = 0
        token = _TOKEN.search(self._sql, position)
        while token is not None:
            if token[0] == ";" and not self._brackets and not self._bodies:
                self._end(token.start())
                self._restart(token.end())
                position = token.end()
            else:
                position = self._skip(token)
            token = _TOKEN.search(self._sql, position)
        self._end(len(self._sql))
        return self._found


def split(sql: str) -> list[Statement]:
    """Return the statements of `sql`, without their semicolons and without empty ones.

    Quotes, `$tag$` texts, nested comments, brackets and `BEGIN ATOMIC` bodies are looked through. A text that never ends is
    part of the last statement: the database says what is wrong with it.
    """
    return _Splitter(sql).run()


def _decoded(kind: str, key: str, value: object) -> str:
    try:
        return base64.b64decode(str(value), validate=True).decode()
    except ValueError as error:
        raise ToolError(kind, "BAD_CONFIG", f"`{key}` is no base64 of UTF-8 text") from error


def _inline(kind: str, config: Mapping[str, Any]) -> list[str]:
    for key in _ENCODED:
        if config.get(key):
            return [_decoded(kind, key, config[key])]
    for key in _INLINE:
        given = config.get(key)
        if not given:
            continue
        listed = given if isinstance(given, list) else [given]
        texts = [one.get("sql") or one.get("query") if isinstance(one, Mapping) else one for one in listed]
        if not all(isinstance(text, str) for text in texts):
            raise ToolError(kind, "BAD_CONFIG", f"`{key}` must be SQL text or a list of SQL texts")
        return [str(text) for text in texts]
    return []


async def sql_of(call: ToolCall, box: ToolBox) -> list[str]:
    """Return the SQL texts of a call: its script, a text in base64, or one of the inline keys.

    Raises:
        ToolError: there is none, or it cannot be read.
    """
    script = await script_text(call, box)
    texts = [script] if script is not None else _inline(call.kind, call.config)
    if not any(text.strip() for text in texts):
        text = (
            "No SQL command provided. Expected 'script', base64 field (command_b64/commands_b64/query_b64), "
            "or inline field (query/queries/command/commands/sql/cmd/cmds)"
        )
        raise ToolError(call.kind, "BAD_CONFIG", text)
    return texts


def bounded(kind: str, statements: list[Statement]) -> list[Statement]:
    """Return the statements.

    Raises:
        ToolError: there are none, or too many.
    """
    if not statements:
        raise ToolError(kind, "BAD_CONFIG", "the SQL text has comments only, no statement")
    if len(statements) > SQL_STATEMENTS_MAX:
        text = f"{len(statements)} statements; at most {SQL_STATEMENTS_MAX} are allowed in one call"
        raise ToolError(kind, "BAD_CONFIG", text)
    return statements
