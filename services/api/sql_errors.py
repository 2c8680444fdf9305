"""What Postgres says of a statement, as libpq prints it: message, the line with a caret, detail and hint. Pure."""

from __future__ import annotations

import asyncpg

LINE_CHARS = 60  # of a long line shown around the place, as libpq does
RIGHT_CHARS = 10  # of them at least so many behind the place
TEXT_CHARS_MAX = 4000


def _marked(query: str, position: int) -> str:
    """Return the line of the 1-based character `position` with a caret under it."""
    at = position - 1
    start = query.rfind("\n", 0, at) + 1
    end = query.find("\n", at)
    end = len(query) if end < 0 else end
    number = query.count("\n", 0, at) + 1
    before = after = ""
    if end - start > LINE_CHARS:
        if start + LINE_CHARS >= at + RIGHT_CHARS:
            end, after = start + LINE_CHARS, "..."
        else:
            if at + RIGHT_CHARS < end:
                end, after = at + RIGHT_CHARS, "..."
            if end - start > LINE_CHARS:
                start, before = end - LINE_CHARS, "..."
    label = f"LINE {number}: {before}"
    return f"{label}{query[start:end]}{after}\n{' ' * (len(label) + at - start)}^"


def error_text(error: asyncpg.PostgresError, query: str) -> str:
    """Return the text of `error` that `query` caused, `TEXT_CHARS_MAX` characters at most."""
    position = error.position if isinstance(error.position, str) else ""
    parts = [str(error.message if hasattr(error, "message") else error)]
    if position.isdigit() and 0 < int(position) <= len(query) + 1:
        parts.append(_marked(query, int(position)))
    for name, value in (("DETAIL", error.detail), ("HINT", error.hint)):
        if value:
            parts.append(f"{name}:  {value}")
    return "\n".join(parts)[:TEXT_CHARS_MAX]
