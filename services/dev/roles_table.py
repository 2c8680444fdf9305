"""`python -m services.dev.roles_table`: writes the table of roles into docs/security.md; `--check` only compares."""

from __future__ import annotations

import sys
from pathlib import Path

from services.api.auth.roles import ALLOWED, Access, Role

PAGE = Path(__file__).resolve().parents[2] / "docs" / "security.md"
BEGIN, END = "<!-- roles:", "<!-- end of roles -->"
MEANINGS = {
    Access.PUBLIC: "health, and what a client reads before it logs in",
    Access.DOCS: "`/docs`, `/openapi.json`, `/asyncapi.json`; open unless NOETL_AUTH_PUBLIC says otherwise",
    Access.METRICS: "`/metrics`; open unless NOETL_AUTH_PUBLIC says otherwise",
    Access.VIEWER: "reads without secrets",
    Access.OPERATOR: "registers, cancels, stores credentials",
    Access.WORKER: "claims, events, results; reads secrets",
    Access.RUNNER: "starts executions, sets variables",
    Access.ADMIN: "SQL, clean-up, checks of the database",
    Access.TOKENS: "hands out access; asked for a token even with NOETL_AUTH_MODE=off",
    Access.INTERNAL: "our own services; the internal token only",
    Access.INTERNAL_ADMIN: "audit, keys, dead letters; the internal token too",
}


def roles_table() -> str:
    """Return the table: a row per gate, a column per role."""
    roles = list(Role)
    lines = [f"| Gate | {' | '.join(roles)} | For |", f"|---|{'---|' * len(roles)}---|"]
    for access in Access:
        cells = ["yes" if role in ALLOWED[access] else "" for role in roles]
        lines.append(f"| {access} | {' | '.join(cells)} | {MEANINGS[access]} |")
    return "\n".join(lines)


def with_table(page: str) -> str:
    """Return the page with the current table between its marks."""
    head, mark, rest = page.partition(BEGIN)
    comment, newline, after = rest.partition("\n")
    return f"{head}{mark}{comment}{newline}{roles_table()}\n{END}{after.partition(END)[2]}"


def main(arguments: list[str]) -> int:
    """Write or check the page; 0 when it is current."""
    page = PAGE.read_text(encoding="utf-8")
    made = with_table(page)
    if arguments == ["--check"]:
        return 0 if page == made else 1
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
