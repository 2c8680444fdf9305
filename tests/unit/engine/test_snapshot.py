"""A snapshot is the state, exactly; one that cannot be read says so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from shared.engine import SnapshotFormatError, SnapshotSizeError, State, snapshot_from_json, snapshot_to_json
from shared.engine.limits import SNAPSHOT_BYTES_MAX
from shared.engine.references import ResultRef, StepResult, as_result, result_ref
from tests.unit.engine.simulation import Simulation, document

NOOP = "tool: {kind: noop}"
LOOPS = document(
    "{step: a, %s, next: {spec: {mode: inclusive}, arcs: [{step: l}, {step: n}, {step: r}]}}" % NOOP,
    "{step: l, %s, loop: {in: '{{ a.items }}', iterator: x, spec: {mode: parallel}}}" % NOOP,
    "{step: n, %s, loop: {in: 40, iterator: x, spec: {mode: parallel, max_in_flight: 3}}}" % NOOP,
    "{step: r, %s, spec: {retry: {attempts: 3, delay: 5}}}" % NOOP,
)


def through_json(state: State) -> State:
    return snapshot_from_json(orjson.loads(orjson.dumps(snapshot_to_json(state))))


def same_types(one: Any, other: Any) -> bool:
    """Whether two outputs are the same down to their classes, which equality of mappings does not look at."""
    if type(one) is not type(other) or one != other:
        return False
    if isinstance(one, dict):
        return all(same_types(one[key], other[key]) for key in one)
    return not isinstance(one, list) or all(map(same_types, one, other))


def test_every_state_of_an_execution_round_trips() -> None:
    run = Simulation(LOOPS)
    states = [run.state]
    run.answer("a", {"items": [{"n": 1}, "two", 3, None, [5]]})
    run.decide()
    states.append(run.state)
    for step in ("l", "n", "n", "l"):
        run.answer(step, {"value": step})
        run.decide()
        states.append(run.state)
    run.answer("r", {"status": "error"}, error="boom")
    states.append(run.state)
    run.decide()
    states.append(run.state)
    for state in states:
        assert through_json(state) == state
    assert isinstance(through_json(run.state).runs["n"].loop.items, range)  # type: ignore[union-attr]
    assert run.state.runs["r"].attempts[0].status == "waiting"


@pytest.mark.parametrize(
    ("reason", "value"),
    [
        ("a mapping has the alias that templates know", as_result({"n": 1})),
        ("a tool made its own `context`", as_result({"n": 1, "context": {"other": 2}})),
        ("a tool made a `context` that is like the alias", as_result({"n": 1, "context": {"n": 1}})),
        ("a reference", result_ref({"locator": "noetl://execution/1/result/a/x", "bytes": 9}, {"n": 1})),
        ("data that looks like a reference is none", as_result({"_ref": "x", "reference": {"locator": "x"}})),
        ("a loop, one item of it by reference", as_result({"results": [1, result_ref({"ref": "r"}, {})], "stats": {}})),
        ("a list", [1, {"context": {}}]),
        ("text", "plain"),
        ("nothing", None),
    ],
)
def test_outputs_keep_their_kind(reason: str, value: Any) -> None:
    run = Simulation(document("{step: a, %s}" % NOOP))
    done = replace(run.state.runs["a"], status="completed", response=value)
    for results in ({"a": value}, {}):
        state = replace(run.state, runs={"a": done}, results=results)
        found = through_json(state)
        assert found == state, reason
        assert same_types(found.runs["a"].response, value), reason
        assert all(same_types(found.results[name], results[name]) for name in results), reason


def test_the_output_of_a_step_stands_in_a_snapshot_once() -> None:
    run = Simulation(document("{step: a, %s, next: {arcs: [{step: b}]}}" % NOOP, "{step: b, %s}" % NOOP))
    run.answer("a", {"text": "x" * 10_000})
    run.decide()
    assert isinstance(run.state.results["a"], StepResult)
    assert len(orjson.dumps(snapshot_to_json(run.state))) < 12_000


def test_an_execution_goes_on_from_a_snapshot_as_it_would_have() -> None:
    run, other = Simulation(LOOPS), Simulation(LOOPS)
    for one in (run, other):
        one.answer("a", {"items": [1, 2]})
        one.decide()
    other.state = through_json(other.state)
    for one in (run, other):
        one.answer("r")
        one.run(lambda _: {"ok": True})
    assert other.state == run.state
    assert [event.type for event in other.log] == [event.type for event in run.log]
    assert run.state.status == "COMPLETED"


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("a newer program wrote it", {"format": 2}),
        ("no format", {"format": None}),
        ("a part is missing", {"runs": None}),
        ("a part has another shape", {"open": [[1, 2]]}),
        ("a result has no kind", {"results": {"a": 5}}),
    ],
)
def test_a_snapshot_that_cannot_be_read_is_refused_by_name(reason: str, change: dict[str, Any]) -> None:
    data = snapshot_to_json(Simulation(LOOPS).state)
    with pytest.raises(SnapshotFormatError):
        snapshot_from_json({**data, **change})


def test_what_is_no_snapshot_is_refused_by_name() -> None:
    with pytest.raises(SnapshotFormatError, match="list"):
        snapshot_from_json([])  # type: ignore[arg-type]


def test_a_state_that_is_too_large_is_refused_by_name() -> None:
    state = replace(Simulation(LOOPS).state, data_bytes=SNAPSHOT_BYTES_MAX + 1)
    with pytest.raises(SnapshotSizeError, match=str(SNAPSHOT_BYTES_MAX)):
        snapshot_to_json(state)


def test_a_reference_is_one_again() -> None:
    reference = result_ref({"locator": "noetl://x"}, {"n": 1})
    run = Simulation(document("{step: a, %s}" % NOOP))
    state = through_json(replace(run.state, results={"a": reference}))
    assert isinstance(state.results["a"], ResultRef)
    assert state.results["a"].locator == "noetl://x"
