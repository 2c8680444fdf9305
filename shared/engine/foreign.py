"""Logs that other programs wrote: the original's Python line, and its Rust line (engine_spec.md sections 3.2 and 3.3).

Their events say less than ours: no epochs, no routing records. What is missing is concluded from the order of the events. Such
an execution is shown as what it was; routing that the other program has done is not done again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from shared.engine.state import Event

RUST_LOOP = "rust"  # mode of a loop whose end no event tells: it is over with its last item
_SAME = {
    "playbook_started": "playbook.initialized",
    "playbook_completed": "playbook.completed",
    "playbook_failed": "playbook.failed",
    "playbook_cancelled": "execution.cancelled",
    "playbook.cancelled": "execution.cancelled",
    "step_enter": "step.enter",
    "step_completed": "step.exit",
    "step_skipped": "step.skipped",
    "action_completed": "call.done",
}
ALIASES = frozenset(_SAME)


def translated(event: Event) -> Event:
    """Return an event under the name that the fold knows; the first event of the Rust line with its workload in place."""
    context = event.context or {}
    if event.type == "playbook_started":
        path = context.get("path") or event.step
        result = {"workload": context.get("workload"), "playbook_path": path, "is_whole_start": True}
        return replace(event, type="playbook.initialized", step=str(path), context={"result": result})
    return replace(event, type=_SAME.get(event.type, event.type))


def loop_of_command(event: Event) -> dict[str, Any] | None:
    """Return the loop that a command of the Python line belongs to, None when it belongs to none."""
    loop_id = event.meta.get("loop_event_id")
    if not loop_id:
        return None
    given = (event.context or {}).get("input")
    size = given.get("__loop_collection_size") if isinstance(given, Mapping) else None
    size = size if isinstance(size, int) and size >= 0 else 0
    return {"loop_event_id": str(loop_id), "mode": "parallel", "size": size, "max_in_flight": max(size, 1)}


def loop_of_entry(event: Event) -> dict[str, Any] | None:
    """Return the loop that `step.enter` of the Rust line tells of, None when it tells of none."""
    context = event.context or (event.result or {}).get("context") or {}
    size = context.get("iterations_expected") if isinstance(context, Mapping) else None
    if not isinstance(size, int) or size < 0:
        return None
    return {"loop_event_id": f"{event.step}:{event.event_id}", "mode": RUST_LOOP, "size": size, "max_in_flight": 1}


def index_of_command(event: Event) -> int:
    """Return which item of its loop a command is for."""
    for key in ("loop_iteration_index", "iteration_index"):
        value = event.meta.get(key)
        if isinstance(value, int) and value >= 0:
            return value
    return 0
