"""What can happen, as a table: in which state which event leads where. `docs/state_machine.md` is drawn from it.

The engine is not driven by the table: the table says what the engine does, and a test holds one against the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.engine.state import State

EXECUTION, STEP, ATTEMPT = "Execution", "Step run", "Attempt"
MACHINES = (EXECUTION, STEP, ATTEMPT)
RECORD = "routing record"  # carried by `command.issued` in meta.playhead.routed, or an event `step.routed` of its own


@dataclass(frozen=True, slots=True)
class Transition:
    """In `source`, `event` leads to `target`."""

    machine: str
    source: str
    event: str
    target: str
    why: str


def _rows(machine: str, *rows: tuple[str, str, str, str]) -> tuple[Transition, ...]:
    return tuple(
        Transition(machine, source.strip(), event.strip(), target, why)
        for sources, events, target, why in rows
        for source in sources.split("|")
        for event in events.split("|")
    )


TABLE = (
    *_rows(
        EXECUTION,
        ("new", "playbook.initialized", "running", "started"),
        ("running", "timer.fired", "out of time", "`executor.spec.timeout` is over"),
        ("running", "playbook.completed", "completed", "nothing runs, nothing waits, every error was handled"),
        (
            "running",
            "playbook.failed",
            "failed",
            "nothing runs, nothing waits, an error was not handled; or `fail_fast`",
        ),
        ("out of time", "playbook.failed", "failed", "ended in time"),
        ("running", "execution.cancelled", "cancelled", "somebody cancelled it"),
    ),
    *_rows(
        STEP,
        ("idle", RECORD, "selected", "an arc leads here; the step waits for other branches that may still arrive"),
        ("idle | selected", "command.issued", "running", "entered"),
        ("idle | selected", "loop.started", "running", "entered, with a loop"),
        ("idle | selected", "step.skipped", "skipped", "its `when` or a rule of admission says no"),
        ("idle | selected", "step.exit", "completed", "entered, without a tool"),
        ("idle | selected", "call.error", "failed", "its input cannot be rendered"),
        ("running", "call.done | command.completed | child.terminated", "completed", "its command ended well"),
        (
            "running",
            "call.error | command.failed | command.cancelled | child.terminated",
            "failed",
            "its command failed, and is not repeated",
        ),
        ("running", "call.done", "failed", "its output calls itself an error"),
        ("running", RECORD, "failed", "a failed attempt is not repeated: `spec.retry.on` does not hold"),
        ("running", "loop.done", "completed", "every item has ended"),
        ("running", "loop.done", "failed", "an item failed, and those that ran have ended"),
        ("running", "timer.fired", "out of time", "`spec.timeout` is over"),
        ("out of time", "call.error", "failed", "its commands are cancelled"),
        ("completed", RECORD, "idle", "its arcs have been walked"),
        ("failed", RECORD, "idle", "its arcs have been walked, for one that handles the error"),
        ("skipped", RECORD, "idle", "its arcs do not fire; joins no longer wait for it"),
        ("completed", RECORD, "selected", "its arcs have been walked, and one leads to itself"),
    ),
    *_rows(
        ATTEMPT,
        ("none", "command.issued", "running", "the first attempt, or an item of a loop"),
        ("running", "call.done | command.completed | child.terminated", "none", "ended well"),
        ("running", "call.error | command.failed | command.cancelled | child.terminated", "none", "failed for good"),
        (
            "running",
            "call.error",
            "failed",
            "failed, with attempts left; or, for all attempts, the step is out of time",
        ),
        ("failed", RECORD, "waiting", "to be repeated after a wait"),
        ("failed", RECORD, "none", "not to be repeated"),
        ("failed", "command.issued", "running", "repeated at once"),
        ("waiting", "timer.fired", "due", "the wait is over"),
        ("due", "command.issued", "running", "repeated"),
        ("waiting", "loop.done", "none", "the loop failed meanwhile"),
    ),
)


def execution_state(state: State) -> str:
    """Return the state of the execution in the words of the table."""
    if state.root_event_id is None:
        return "new"
    return "out of time" if state.timed_out and not state.is_terminal else state.status.lower()


def step_state(state: State, step: str) -> str:
    """Return the state of a step's newest run in the words of the table."""
    run = state.runs.get(step)
    if run is not None and run.status == "running":
        return "out of time" if run.timed_out else "running"
    if run is not None and not run.routed and step in state.unrouted:
        return run.status
    return "selected" if step in state.waiting else "idle"


def attempt_state(state: State, step: str, index: int) -> str:
    """Return the state of an attempt in the words of the table."""
    run = state.runs.get(step)
    attempt = None if run is None else run.attempts.get(index)
    return "none" if attempt is None else attempt.status


def drawn() -> str:
    """Return the tables and diagrams as Markdown."""
    parts: list[str] = []
    for machine in MACHINES:
        rows = [row for row in TABLE if row.machine == machine]
        parts += [f"### {machine}", "", "```mermaid", "stateDiagram-v2"]
        arrows: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            arrows.setdefault((_node(row.source), _node(row.target)), []).append(row.event)
        for (source, target), events in arrows.items():
            parts.append(f"  {source} --> {target}: {', '.join(dict.fromkeys(events))}")
        parts += ["```", "", "| from | event | to | when |", "|---|---|---|---|"]
        merged: dict[tuple[str, str], list[Transition]] = {}
        for row in rows:
            merged.setdefault((row.target, row.why), []).append(row)
        for (target, why), group in merged.items():
            sources = ", ".join(dict.fromkeys(row.source for row in group))
            names = ", ".join(dict.fromkeys(f"`{row.event}`" for row in group))
            parts.append(f"| {sources} | {names} | {target} | {why} |")
        parts.append("")
    return "\n".join(parts)


def _node(name: str) -> str:
    return "[*]" if name in ("new", "none", "idle") else name.replace(" ", "_")
