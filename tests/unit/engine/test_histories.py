"""Recorded logs of every program that ever wrote one fold to the end that is recorded with them."""

from __future__ import annotations

from collections import Counter

import orjson
import pytest

from shared.engine import decide, evolve, initial_state, parse_playbook, snapshot_from_json, snapshot_to_json
from tests.unit.engine.histories import CATALOG_ID, EXECUTION_ID, end_of, events_of, folded, known_ends, names
from tests.unit.engine.simulation import NOW, document

NAMES = names()


def test_there_are_logs_of_every_writer() -> None:
    writers = Counter(name.partition("/")[0] for name in NAMES)
    assert writers["original"] >= 60
    assert writers["rust"] >= 8
    assert writers["playhead-1"] >= 15
    assert set(known_ends()) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_log_folds_to_its_recorded_end(name: str) -> None:
    assert end_of(folded(name)) == known_ends()[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_log_folds_the_same_through_a_snapshot_at_any_place(name: str) -> None:
    events = events_of(name)
    state = initial_state(EXECUTION_ID, CATALOG_ID)
    for number, event in enumerate(events):
        state = evolve(state, event)
        if number % 7 == 3:
            state = snapshot_from_json(orjson.loads(orjson.dumps(snapshot_to_json(state))))
    assert end_of(state) == known_ends()[name]


@pytest.mark.parametrize("name", [name for name in NAMES if known_ends()[name]["status"] != "RUNNING"])
def test_nothing_is_decided_about_a_recorded_execution_that_has_ended(name: str) -> None:
    playbook = parse_playbook(document("{step: start, tool: {kind: noop}}"))
    assert decide(folded(name), playbook, now=NOW).effects == ()


def test_routing_that_another_program_has_done_is_not_done_again() -> None:
    events = events_of("original/a_linear")
    issued = [number for number, event in enumerate(events) if event.type == "command.issued"]
    state = initial_state(EXECUTION_ID, CATALOG_ID)
    for event in events[: issued[1] + 1]:
        state = evolve(state, event)
    step = "{step: %s, tool: {kind: noop}, next: {arcs: [{step: %s}]}}"
    playbook = parse_playbook(document(step % ("start", "finish"), "{step: finish, tool: {kind: noop}}"))
    assert decide(state, playbook, now=NOW).effects == ()
    for event in events[issued[1] + 1 : -2]:
        state = evolve(state, event)
    kinds = [effect.to_json()["event_type"] for effect in decide(state, playbook, now=NOW).effects]
    assert kinds == ["workflow.completed", "playbook.completed"], "and from here it is ours"
