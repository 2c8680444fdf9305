"""The output of SQL tools: what the playbooks of both lines of workers read (clients.md section 3). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from services.worker.tools.limits import SQL_STATEMENTS_SHOWN_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one statement gave: rows under `columns`, or the number of rows it changed (-1: it counts none)."""

    columns: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    affected: int = -1

    @property
    def has_rows(self) -> bool:
        """Whether it answers rows, none included."""
        return bool(self.columns)

    def document(self) -> dict[str, Any]:
        """Return it as the playbook sees it."""
        if self.has_rows:
            return {
                "status": "success",
                "rows": self.rows,
                "row_count": len(self.rows),
                "columns": self.columns,
            }
        return {
            "status": "success",
            "row_count": self.affected,
            "affected_rows": max(self.affected, 0),
            "message": f"Command executed. {self.affected} rows affected.",
        }


def output(results: Sequence[Result]) -> dict[str, Any]:
    """Return the last statement's result, and each statement's as `command_<n>` from 0.

    The last statement decides whether there are `rows`, as in the original.
    """
    shown = {f"command_{index}": result.document() for index, result in enumerate(results[:SQL_STATEMENTS_SHOWN_MAX])}
    return {**results[-1].document(), "statement_count": len(results), **shown}
