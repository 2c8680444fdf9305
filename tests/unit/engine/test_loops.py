"""Given a loop, when its items end, then the next ones start, its result has them all, and the step goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.engine import NeedsDataError, Options, State, loaded
from shared.engine.jsontext import dumps
from shared.engine.limits import DECISION_COMMANDS_MAX, LOOP_RESULTS_BYTES_MAX
from shared.engine.references import ResultRef
from tests.unit.engine.simulation import Simulation, document

NOOP = "tool: {kind: noop}"


def loop(collection: object, spec: str = "", *, after: str = "", tool: str = NOOP, step: str = "") -> str:
    """Return a document with a loop `l` and a step `z` that sees its result."""
    given = json.dumps(collection)
    return document(
        "{step: l, %s, loop: {in: %s, iterator: item, spec: {%s}}%s, next: {arcs: [{step: z%s}]}}"
        % (tool, given, spec, step, after),
        "{step: z, tool: {kind: noop, input: {r: '{{ l }}', e: '{{ event.name }}'}}}",
        workload="{items: [1, 2, 3], text: '[4, 5]', object: {a: 1, b: 2}, n: 2, word: hello, none: null, empty: '', f: 2.0}",
    )


def indexes(run: Simulation) -> list[int | None]:
    """Return the items of the open commands."""
    return [run.commands[command].iter_index for command in run.open]


PARALLEL = "mode: parallel"


@pytest.mark.parametrize(
    ("reason", "collection", "items"),
    [
        ("a list of the workload", "{{ workload.items }}", [1, 2, 3]),
        ("a list as it is written", [1, "{{ workload.n }}"], [1, 2]),
        ("text that holds JSON is parsed", "{{ workload.text }}", [4, 5]),
        ("also text that is not a template", "[6, 7]", [6, 7]),
        (
            "an object gives keys and values",
            "{{ workload.object }}",
            [{"key": "a", "value": 1}, {"key": "b", "value": 2}],
        ),
        ("a number gives as many indexes", "{{ workload.n }}", [0, 1]),
        ("a whole number with a point too", "{{ workload.f }}", [0, 1]),
        ("a number as it is written", 3, [0, 1, 2]),
        ("a range", "{{ range(2) }}", [0, 1]),
        ("null gives nothing", "{{ workload.none }}", []),
        ("undefined gives nothing", "{{ nowhere }}", []),
        ("empty text gives nothing", "{{ workload.empty }}", []),
        ("an empty list gives nothing", [], []),
        ("zero gives nothing", 0, []),
    ],
)
def test_a_loop_goes_over(reason: str, collection: object, items: list[Any]) -> None:
    run = Simulation(loop(collection, PARALLEL))
    contexts = [run.contexts[command] for command in run.open if run.open[command] == "l"]
    assert [context["render_context"]["item"] for context in contexts] == items, reason
    while "l" in run.open.values():
        run.do("l", {"ok": True})
    assert run.types("l").count("loop.done") == 1, "also of an empty loop"
    assert run.issued().count("z") == 1
    result = run.context("z")["tool_config"]["input"]["r"]
    assert result["stats"] == {"total": len(items), "success": len(items), "failed": 0}
    assert len(result["results"]) == len(items)


@pytest.mark.parametrize(
    ("reason", "collection", "said"),
    [
        ("text that is no JSON", "{{ workload.word }}", "'hello' is no JSON"),
        ("a boolean", "{{ true }}", "not bool"),
        ("a negative number", "{{ -1 }}", "a negative number"),
        ("a fraction", "{{ 1.5 }}", "not float"),
        ("JSON text of something else", "{{ '\"x\"' }}", "not str"),
        ("a template that fails", "{{ 1 / 0 }}", "division"),
        ("too many items", "{{ 1000001 }}", "at most 1000000"),
        ("far too many", "{{ 2 ** 63 }}", "at most 1000000"),
    ],
)
def test_a_collection_that_is_none_fails_the_step_by_name(reason: str, collection: str, said: str) -> None:
    run = Simulation(loop(collection))
    assert run.state.status == "FAILED", reason
    assert "step 'l', loop.in" in str(run.state.error)
    assert said in str(run.state.error)


@pytest.mark.parametrize(
    ("reason", "spec", "options", "at_once"),
    [
        ("a loop is sequential unless it says otherwise", "", Options(), 1),
        ("a sequential loop has no limit to set", "mode: sequential, max_in_flight: 5", Options(), 1),
        ("a parallel loop has ten by default", "mode: parallel", Options(), 10),
        ("or what the setting says", "mode: parallel", Options(loop_in_flight=4), 4),
        ("or what it says itself", "mode: parallel, max_in_flight: 3", Options(), 3),
        ("as a template", "mode: parallel, max_in_flight: '{{ workload.n }}'", Options(), 2),
        ("as text of a number", "mode: parallel, max_in_flight: '7'", Options(), 7),
    ],
)
def test_as_many_items_run_at_once(reason: str, spec: str, options: Options, at_once: int) -> None:
    run = Simulation(loop(12, spec), options=options)
    seen = []
    for _ in range(12):
        assert len(run.open) == min(at_once, 12 - len(seen)), reason
        seen.append(indexes(run)[-1])
        run.do("l", index=indexes(run)[-1])
    assert sorted(seen, key=str) == sorted(range(12), key=str), "each item once"
    assert run.issued().count("l") == 12


@pytest.mark.parametrize("limit", ["{{ workload.word }}", "{{ nowhere }}", "{{ 0 }}", "{{ -3 }}", "{{ 1.5 }}"])
def test_a_limit_that_is_no_positive_number_fails_the_step_by_name(limit: str) -> None:
    run = Simulation(loop(3, "mode: parallel, max_in_flight: %s" % json.dumps(limit)))
    assert run.state.status == "FAILED"
    assert "step 'l', loop.spec.max_in_flight: must be a positive integer" in str(run.state.error)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_results_are_by_index_whatever_the_order_of_their_ends(order: list[int]) -> None:
    run = Simulation(loop("{{ workload.items }}", PARALLEL))
    for index in order:
        run.do("l", {"at": index}, index=index)
    assert run.context("z")["tool_config"]["input"]["r"]["results"] == [{"at": 0}, {"at": 1}, {"at": 2}]
    assert run.context("z")["tool_config"]["input"]["e"] == "loop.done"
    assert run.state.results["l"]["data"] == [{"at": 0}, {"at": 1}, {"at": 2}]


def test_an_item_sees_its_own_names() -> None:
    run = Simulation(loop("{{ workload.items }}", tool="tool: {kind: noop, input: {v: '{{ item }}/{{ loop_index }}'}}"))
    run.do("l")
    context = run.context("l")
    assert context["tool_config"]["input"] == {"v": "2/1"}
    names = context["render_context"]
    assert names["iter"] == {
        "item": 2,
        "_index": 1,
        "_first": False,
        "_last": False,
        "_total": 3,
        "loop_event_id": "loop_1000001_l_1",
    }
    assert names["loop"] == {"index": 1, "first": False, "last": False, "length": 3, "done": False}
    assert (names["_index"], names["_total"], names["item"]) == (1, 3, 2)


def test_a_command_of_a_loop_says_where_it_belongs() -> None:
    run = Simulation(loop("{{ workload.items }}"))
    command = run.commands[next(iter(run.open))]
    assert (command.loop_event_id, command.iter_index) == ("loop_1000001_l_1", 0)
    assert command.meta["loop_step"] == "l"
    assert command.meta["loop_iteration_index"] == 0


# --- items that fail --------------------------------------------------------------------------------------------------


def test_an_item_that_fails_ends_the_loop_and_the_step_by_default() -> None:
    run = Simulation(loop(5))
    run.do("l", {"ok": 1})
    run.do("l", error="boom")
    assert run.open == {}
    assert run.issued() == ["l", "l"], "no more items start"
    assert (run.state.status, run.state.error) == ("FAILED", "item 1: boom")


def test_items_that_run_finish_before_a_failing_loop_ends() -> None:
    run = Simulation(loop(9, "mode: parallel, max_in_flight: 3"))
    run.do("l", error="boom", index=1)
    assert sorted(map(str, indexes(run))) == ["0", "2"]
    assert run.ends() == []
    run.do("l", index=0)
    run.do("l", error="late", index=2)
    assert run.state.error == "item 1: boom", "the first error counts"
    assert run.issued().count("l") == 3
    done = next(event for event in run.log if event.type == "loop.done")
    assert done.context is not None
    assert done.context["result"]["stats"] == {"total": 3, "success": 1, "failed": 2}


@pytest.mark.parametrize("place", ["spec: {on_item_error: continue}", "loop"])
def test_a_loop_may_go_on_over_items_that_fail(place: str) -> None:
    in_loop = ", on_item_error: continue" if place == "loop" else ""
    run = Simulation(loop(3, PARALLEL + in_loop, step="" if place == "loop" else f", {place}"))
    run.do("l", error="boom", index=0)
    run.do("l", {"n": 1}, index=1)
    run.do("l", {"status": "failed", "error": "bad"}, index=2)
    result = run.context("z")["tool_config"]["input"]["r"]
    assert result["stats"] == {"total": 3, "success": 1, "failed": 2}
    assert result["results"] == [{"status": "error", "error": "boom"}, {"n": 1}, {"status": "failed", "error": "bad"}]
    run.do("z")
    assert run.state.status == "COMPLETED"


def test_an_item_that_cannot_be_rendered_has_failed_alone() -> None:
    run = Simulation(
        loop(
            [1, 0, 2], PARALLEL + ", on_item_error: continue", tool="tool: {kind: noop, input: {v: '{{ 6 // item }}'}}"
        )
    )
    assert indexes(run) == [0, 2]
    run.do("l", index=0)
    run.do("l", index=2)
    assert run.context("z")["tool_config"]["input"]["r"]["stats"] == {"total": 3, "success": 2, "failed": 1}
    failed = next(event for event in run.log if event.type == "call.error")
    assert "step 'l', tool.input" in str(failed.error)


def test_an_arc_can_handle_a_loop_that_failed() -> None:
    run = Simulation(loop(2, after=", when: \"{{ event.name == 'call.error' }}\""))
    run.do("l", error="boom")
    assert run.issued() == ["l", "z"]
    run.do("z")
    assert run.state.status == "COMPLETED"


# --- re-entry, cursor, sequences --------------------------------------------------------------------------------------


def test_a_loop_that_is_entered_again_is_another_loop() -> None:
    run = Simulation(
        document(
            "{step: l, %s, loop: {in: 2, iterator: i}, set: {ctx.n: '{{ (ctx.n | default(0)) + 1 }}'}, "
            "next: {arcs: [{step: l, when: '{{ ctx.n < 3 }}'}]}}" % NOOP
        )
    )
    run.run(lambda _: {})
    assert run.issued() == ["l"] * 6
    assert run.types().count("loop.done") == 3
    assert len({event.meta["loop_event_id"] for event in run.log if event.type == "command.issued"}) == 3
    assert run.state.status == "COMPLETED"


def test_a_cursor_loop_has_slots_and_counts_rows() -> None:
    run = Simulation(
        document(
            "{step: l, tool: {kind: noop, input: {v: '{{ iter.row.id }}'}}, loop: {iterator: row, "
            "cursor: {auth: '{{ workload.db }}', claim: 'SELECT {{ __frame_max_rows }}'}, "
            "spec: {mode: cursor, max_in_flight: 2, frame: {max_rows: 7}}}, next: {arcs: [{step: z}]}}",
            "{step: z, tool: {kind: noop, input: {s: '{{ l.stats }}'}}}",
            workload="{db: pg}",
        )
    )
    assert list(run.open.values()) == ["l:task_sequence"] * 2
    context = run.context("l:task_sequence")
    assert context["tool_config"]["cursor"] == {"kind": "postgres", "options": None, "auth": "pg", "claim": "SELECT 7"}
    assert context["tool_config"]["frame_policy"]["max_rows"] == 7
    assert context["tool_config"]["worker_slot_index"] == 1
    assert context["tool_config"]["tasks"][0]["input"] == {"v": "{{ iter.row.id }}"}, "rendered for each row"
    run.do("l:task_sequence", {"status": "ok", "processed": 3, "failed": 1})
    run.do("l:task_sequence", {"status": "ok", "processed": 2, "failed": 0})
    assert run.context("z")["tool_config"]["input"]["s"] == {"total": 6, "success": 5, "failed": 1}


def test_a_loop_over_a_sequence_runs_each_item_once() -> None:
    tool = "tool: [{name: x, kind: noop}, {name: y, kind: noop}]"
    run = Simulation(loop(4, tool=tool))
    for index in range(4):
        run.do("l:task_sequence", {"_prev": {"n": index}, "results": {"x": {}}, "metrics": {}, "ctx": {"last": index}})
    assert run.issued() == ["l:task_sequence"] * 4 + ["z"]
    assert [item["n"] for item in run.state.results["l"]["results"]] == [0, 1, 2, 3]
    assert run.state.variables["last"] == 3


# --- large ones -------------------------------------------------------------------------------------------------------


def test_a_decision_starts_a_bounded_number_of_items_and_the_next_goes_on() -> None:
    size = DECISION_COMMANDS_MAX
    run = Simulation(
        document(
            "{step: a, %s, next: [b, c]}" % NOOP,
            *(
                "{step: %s, %s, loop: {in: %d, iterator: i, spec: {mode: parallel, max_in_flight: 800}}}"
                % (x, NOOP, size)
                for x in "bc"
            ),
        )
    )
    run.do("a")
    assert len(run.open) <= size + 1
    run.run(lambda _: {}, steps_max=2 * size + 10)
    assert run.issued().count("b") == run.issued().count("c") == size


def test_results_that_are_too_large_to_keep_are_by_reference() -> None:
    run = Simulation(loop(5))
    for index in range(4):
        run.do("l", {"n": index, "text": "x" * (LOOP_RESULTS_BYTES_MAX // 3)})
    run.answer("l")
    with pytest.raises(NeedsDataError, match="loop_1000001_l_1"):
        run.decide()
    with loaded({"noetl://execution/1000001/loop/loop_1000001_l_1": {"results": ["all"], "stats": {}}}):
        run.decide()
    assert run.context("z")["tool_config"]["input"]["r"]["results"] == ["all"]
    result = run.state.results["l"]
    assert isinstance(result, ResultRef)
    assert result["stats"] == {"total": 5, "success": 5, "failed": 0}
    assert result.locator == "noetl://execution/1000001/loop/loop_1000001_l_1"
    assert len(dumps(dict(result))) < 1000


def loop_of(count: int, *, steps: int) -> tuple[Simulation, State]:
    items = [{"id": index, "name": f"item {index}"} for index in range(count)]
    run = Simulation(loop("{{ workload.rows }}", "mode: parallel, max_in_flight: 50"), {"rows": items})
    for _ in range(steps):
        run.do("l", {"ok": True})
    return run, run.state


def test_the_collection_stands_in_the_log_once_and_events_stay_small() -> None:
    run, _ = loop_of(20_000, steps=60)
    sizes = [len(dumps([event.context, event.result, event.meta])) for event in run.log]
    large = [run.log[index].type for index, size in enumerate(sizes) if size > 2000]
    assert large == ["playbook.initialized", "workflow.initialized", "loop.started"]
    contexts = [len(dumps(context)) for context in run.contexts.values()]
    assert max(contexts) < 2000, "nor does it travel with the commands"


def test_items_with_costly_templates_are_spread_over_decisions_and_none_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.engine.budget.DECISION_TEMPLATE_RATIO_MAX", 1)
    look_up = "{{ workload.rows | selectattr('id', 'eq', item) | map(attribute='id') | list }}"
    tool = "tool: {kind: noop, input: {v: %s}}" % json.dumps(look_up)
    rows = [{"id": index} for index in range(20_000)]
    run = Simulation(loop(100, "mode: parallel, max_in_flight: 90", tool=tool), {"rows": rows})
    started = len(run.open)
    assert 0 < started < 90
    run.do("l")
    assert len(run.open) > started
    assert "call.error" not in run.types()


def test_a_small_collection_does_not_travel_with_each_item_either() -> None:
    run = Simulation(loop("{{ workload.rows }}", PARALLEL), {"rows": list(range(1500)), "unit": "kg"})
    assert "rows" not in run.context("l")["render_context"]["workload"]
    run = Simulation(
        loop("{{ workload.rows }}", PARALLEL, tool="tool: {kind: python, code: 'result = unit'}"),
        {"rows": list(range(1500)), "unit": "kg"},
    )
    assert run.context("l")["render_context"]["workload"] == {"unit": "kg"}, "what the source names does"


def test_what_one_item_costs_does_not_grow_with_the_loop() -> None:
    """Counted, not timed: nothing of the size of the loop is made anew for an item."""
    run, state = loop_of(20_000, steps=1)
    before = state.runs["l"].loop
    effects = len(run.log)
    run.do("l", {"ok": True})
    after = run.state.runs["l"].loop
    assert before is not None
    assert after is not None
    assert after.items is before.items, "the same list"
    assert (after.ended - before.ended, after.next_index - before.next_index) == (1, 1)
    assert run.types()[effects:] == ["call.done", "step.exit", "command.completed", "command.issued"]


CURSOR = (
    "{step: a, loop: {cursor: {kind: postgres, auth: x, claim: 'SELECT 1'}, iterator: row, spec: {mode: cursor, frame: %s}}, "
    "tool: [{name: t, kind: noop}]}"
)


@pytest.mark.parametrize(
    ("reason", "frame", "expected"),
    [
        ("a number", "{lease_seconds: 30}", 30.0),
        ("a template", "{lease_seconds: '{{ workload.lease }}'}", 7.0),
        ("text that is a number", "{lease_seconds: '12.5'}", 12.5),
        ("nothing", "{}", 120.0),
    ],
)
def test_the_frame_of_a_cursor_may_be_written_as(reason: str, frame: str, expected: float) -> None:
    run = Simulation(document(CURSOR % frame), {"lease": "7"})
    run.decide()
    policy = run.context("a:task_sequence")["tool_config"]["frame_policy"]
    assert policy["lease_seconds"] == expected, reason
    assert policy["max_rows"] == 1


def test_a_frame_that_is_no_number_fails_the_step_by_name() -> None:
    run = Simulation(document(CURSOR % "{max_rows: '{{ workload.lease }}'}"), {"lease": "many"})
    run.decide()
    assert "loop.spec.frame.max_rows" in str(run.state.error)
