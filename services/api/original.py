"""Executions that the original runs, or ran, on the same database: what their log tells. Pure.

The original decides by its event log and writes `noetl.execution` late or not at all, so its rows cannot be trusted; its events
have no stream version, and the orchestrator never touches them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from services.api.http import HttpError

# The original also infers an end from a log that looks finished, at once, and so reports runs between two steps as completed
# (api_contract.md section 8, no. 1; seen for up to a second). A log that has been quiet for so long is finished indeed.
QUIET_SECONDS = 60.0
END_NODE = "end"
_STATUSES = {
    "execution.cancelled": "CANCELLED",
    "playbook.failed": "FAILED",
    "workflow.failed": "FAILED",
    "command.failed": "FAILED",
    "playbook.completed": "COMPLETED",
    "workflow.completed": "COMPLETED",
}
RETRY_AFTER_SECONDS = 30  # a request for a running execution of the original has come to the wrong server
_STEP_ENDS = frozenset({"command.completed", "call.done", "step.exit"})


class RunByOriginalError(HttpError):
    """A worker's report or claim for an execution that the original runs: its server must get it, or nobody acts on it.

    Workers keep the message and try again, so nothing is lost while the routing is put right.
    """

    def __init__(self, execution_id: int) -> None:
        message = (
            f"execution {execution_id} is run by the original server: send this to the server_url of its notification"
        )
        detail = {"code": "run_by_original", "message": message}
        super().__init__(503, detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginalLife:
    """Status and times of one execution; `inferred` when no terminal event says so."""

    status: str
    start_time: datetime | None
    end_time: datetime | None
    error: str | None
    inferred: bool = False


def _is_over(row: Mapping[str, Any]) -> bool:
    """Whether the log, without a terminal event, shows an end: the last batch is done, nothing is open, nothing moves."""
    if row["newest_at"] is None or row["newest_status"] != "COMPLETED":
        return False
    if row["now"] - row["newest_at"] < timedelta(seconds=QUIET_SECONDS):
        return False
    at_end = row["newest_type"] in _STEP_ENDS and row["newest_node"] == END_NODE
    return at_end or (row["newest_type"] == "batch.completed" and not row["open_commands"])


def original_life(row: Mapping[str, Any]) -> OriginalLife:
    """Return the life of the execution whose log `row` (statement `original_life`) sums up."""
    if row["terminal_type"] is not None:
        return OriginalLife(
            status=_STATUSES[row["terminal_type"]],
            start_time=row["started_at"],
            end_time=row["terminal_at"],
            error=row["terminal_error"],
        )
    over = _is_over(row)
    return OriginalLife(
        status="COMPLETED" if over else "RUNNING",
        start_time=row["started_at"],
        end_time=row["newest_at"] if over else None,
        error=row["newest_error"],
        inferred=over,
    )
