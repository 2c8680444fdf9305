"""The declared table of transitions is what the engine does: nothing else happens, and everything in it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.engine import Event, State, evolve, initial_state
from shared.engine.changes import fold_record, own_meta
from shared.engine.transitions import (
    ATTEMPT,
    EXECUTION,
    RECORD,
    STEP,
    TABLE,
    attempt_state,
    drawn,
    execution_state,
    step_state,
)
from tests.unit.engine.scenarios import SCENARIOS
from tests.unit.engine.simulation import CATALOG_ID, EXECUTION_ID

PAGE = Path(__file__).resolve().parents[3] / "docs" / "state_machine.md"
BEGIN, END = "<!-- drawn from shared/engine/transitions.py: begin -->\n", "<!-- end -->"
Seen = set[tuple[str, str, str, str]]


def watched(events: list[Event]) -> Seen:
    """Return the transitions of an execution."""
    seen: Seen = set()
    state = initial_state(EXECUTION_ID, CATALOG_ID)
    for event in events:
        for record in own_meta(event).get("routed", ()):
            after = fold_record(state, record)
            seen |= changes(state, RECORD, after)
            state = after
        after = evolve(state, event)
        seen |= changes(state, RECORD if event.type == "step.routed" else event.type, after)
        state = after
    return seen


def changes(before: State, kind: str, after: State) -> Seen:
    """Return what an event, or a record that it carries, changed."""
    found = {(EXECUTION, execution_state(before), kind, execution_state(after))}
    for step in {*before.runs, *before.waiting, *after.runs, *after.waiting}:
        found.add((STEP, step_state(before, step), kind, step_state(after, step)))
        runs = [state.runs[step] for state in (before, after) if step in state.runs]
        for index in {index for run in runs for index in run.attempts}:
            found.add((ATTEMPT, attempt_state(before, step, index), kind, attempt_state(after, step, index)))
    return {change for change in found if change[1] != change[3]}


@pytest.fixture(scope="module")
def everything() -> Seen:
    return set().union(*(watched(scenario().log) for scenario in SCENARIOS.values()))


def test_nothing_happens_that_is_not_in_the_table(everything: Seen) -> None:
    assert everything - {(row.machine, row.source, row.event, row.target) for row in TABLE} == set()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.machine}: {row.source}, {row.event}, {row.target}")
def test_everything_in_the_table_happens(row: object, everything: Seen) -> None:
    assert (row.machine, row.source, row.event, row.target) in everything  # type: ignore[attr-defined]


def test_the_page_is_drawn_from_the_table() -> None:
    text = PAGE.read_text()
    assert text.partition(BEGIN)[2].partition(END)[0] == drawn(), "run: python -m tests.unit.engine.test_transitions"


def main() -> None:
    """Draw the page anew."""
    text = PAGE.read_text()
    head, tail = text.partition(BEGIN)[0], text.partition(END)[2]
    PAGE.write_text(head + BEGIN + drawn() + END + tail)


if __name__ == "__main__":
    main()
