"""Routing, errors, joins, sub-playbooks, ends: what the engine promises beyond the ordinary way, a test each."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.engine import LOST, NeedsDataError, Options, loaded, status_document
from tests.unit.engine.simulation import Simulation, document

NOOP = "tool: {kind: noop}"
SEES = "{{ event.name == 'call.error' }}"


def step(name: str, *arcs: str, more: str = "", mode: str = "exclusive") -> str:
    """Return a step with arcs, each `target` or `target, when: ...`."""
    given = ", ".join("{step: %s}" % arc for arc in arcs)
    return "{step: %s, %s%s, next: {spec: {mode: %s}, arcs: [%s]}}" % (name, NOOP, more, mode, given)


# --- routing ----------------------------------------------------------------------------------------------------------


def test_result_then_set_then_conditions_then_set_of_the_arc_then_target() -> None:
    run = Simulation(
        document(
            "{step: a, %s, set: {ctx.x: '{{ output.data.n }}'}, next: {arcs: ["
            "{step: b, when: '{{ ctx.x == 7 and a.n == 7 }}', set: {ctx.x: '{{ ctx.x + 1 }}'}}]}}" % NOOP,
            "{step: b, tool: {kind: noop, input: {x: '{{ ctx.x }}'}}}",
        )
    )
    run.do("a", {"n": 7})
    assert run.context("b")["tool_config"]["input"] == {"x": 8}


def test_the_sets_of_all_arcs_of_a_fan_out_are_made_after_all_conditions() -> None:
    arcs = ("b, set: {ctx.n: 1}", "c, when: '{{ ctx.n is defined }}'")
    run = Simulation(document(step("a", *arcs, mode="inclusive"), step("b"), step("c")))
    run.do("a")
    assert run.issued() == ["a", "b"]


@pytest.mark.parametrize(
    ("reason", "key", "expected"),
    [
        ("ctx is stripped", "ctx.v", 1),
        ("iter is stripped", "iter.v", 1),
        ("step is stripped", "step.v", 1),
        ("workload is stripped", "workload.v", 1),
        ("a plain key", "v", 1),
        ("deeper keys make mappings", "ctx.v.x", {"x": 1}),
    ],
)
def test_a_set_key(reason: str, key: str, expected: Any) -> None:
    run = Simulation(
        document(
            step("a", "b", more=", set: {%s: 1}" % key), "{step: b, tool: {kind: noop, input: {v: '{{ ctx.v }}'}}}"
        )
    )
    run.do("a")
    assert run.context("b")["tool_config"]["input"] == {"v": expected}, reason


def test_a_deeper_key_leaves_its_neighbours() -> None:
    run = Simulation(
        document(
            step("a", "b", more=", set: {ctx.user.name: Ada, ctx.user.age: 36}"),
            "{step: b, tool: {kind: noop, input: {v: '{{ ctx.user }}'}}}",
        ),
        {"user": {"id": 1}},
    )
    run.do("a")
    assert run.context("b")["tool_config"]["input"]["v"] == {"id": 1, "name": "Ada", "age": 36}


def test_a_set_that_fails_fails_the_execution_by_name() -> None:
    run = Simulation(document(step("a", "b", more=", set: {ctx.x: '{{ 1 / 0 }}'}"), step("b")))
    run.do("a")
    assert run.issued() == ["a"]
    assert run.state.status == "FAILED"
    assert "step 'a'" in str(run.state.error)
    assert "1 / 0" in str(run.state.error)


@pytest.mark.parametrize(
    ("reason", "rules", "runs"),
    [
        ("a rule that holds and forbids", "[{when: '{{ n == 1 }}', then: {allow: false}}]", False),
        ("a rule that does not hold", "[{when: '{{ n == 2 }}', then: {allow: false}}]", True),
        (
            "the first that holds decides",
            "[{when: '{{ n }}', then: {allow: true}}, {else: {then: {allow: false}}}]",
            True,
        ),
        ("else comes last", "[{when: '{{ n == 2 }}', then: {allow: true}}, {else: {then: {allow: false}}}]", False),
        ("no rule admits", "[]", True),
    ],
)
def test_rules_of_admission(reason: str, rules: str, runs: bool) -> None:
    spec = ", spec: {policy: {admit: {rules: %s}}}" % rules
    run = Simulation(document(step("a", "b", more=spec), step("b")), {"n": 1})
    assert run.issued() == (["a"] if runs else []), reason
    assert run.types("a")[:1] == (["command.issued"] if runs else ["step.skipped"])


def test_a_condition_of_a_step_that_fails_does_not_hold_and_leaves_a_diagnostic() -> None:
    rules = ", spec: {policy: {admit: {rules: [{when: '{{ 1 / 0 }}', then: {allow: false}}]}}}"
    run = Simulation(document(step("a", "b", more=", when: '{{ 1 / 0 }}'"), step("b")))
    (skipped,) = (event for event in run.log if event.type == "step.skipped")
    assert skipped.meta["playhead"]["diagnostics"] == ["step 'a', when: {{ 1 / 0 }}: division by zero"]
    assert run.state.status == "COMPLETED"
    assert Simulation(document(step("a", more=rules))).issued() == ["a"], "a rule that fails does not match"


def test_a_chain_of_skipped_steps_lets_the_join_go_on() -> None:
    run = Simulation(
        document(
            step("a", "b", "c", mode="inclusive"),
            step("b", "d"),
            step("c", "x", more=", when: '{{ false }}'"),
            step("x", "d"),
            step("d"),
        )
    )
    run.do("a")
    run.do("b")
    assert run.issued() == ["a", "b", "d"]
    run.do("d")
    assert run.state.status == "COMPLETED"


def test_all_branches_skipped_still_ends() -> None:
    run = Simulation(document(step("a", "b, when: '{{ false }}'", "c, when: '{{ false }}'"), step("b"), step("c")))
    run.do("a")
    assert run.ends() == ["workflow.completed", "playbook.completed"]


def test_an_event_name_is_that_of_the_event_that_led_here() -> None:
    run = Simulation(
        document(step("a", "b"), "{step: b, tool: {kind: noop, input: {e: '{{ event.name }} of {{ event.step }}'}}}")
    )
    run.do("a")
    assert run.context("b")["tool_config"]["input"]["e"] == "call.done of b"


# --- joins and re-entries ---------------------------------------------------------------------------------------------


def test_a_join_sees_the_results_of_all_branches() -> None:
    join = "{step: d, tool: {kind: noop, input: {v: ['{{ b.n }}', '{{ c.n }}']}}}"
    run = Simulation(document(step("a", "b", "c", mode="inclusive"), step("b", "d"), step("c", "d"), join))
    run.do("a")
    run.do("c", {"n": 3})
    run.do("b", {"n": 2})
    assert run.context("d")["tool_config"]["input"]["v"] == [2, 3]
    assert run.issued().count("d") == 1


def test_a_join_runs_after_a_branch_that_failed() -> None:
    run = Simulation(document(step("a", "b", "c", mode="inclusive"), step("b", "d"), step("c", "d"), step("d")))
    run.do("a")
    run.do("b", error="boom")
    assert "d" not in run.issued()
    run.do("c")
    run.do("d")
    assert run.issued() == ["a", "b", "c", "d"]
    assert run.ends() == ["workflow.failed", "playbook.failed"]


def test_a_step_that_is_entered_again_is_a_new_epoch_with_a_new_command() -> None:
    again = "a, when: '{{ output.data.again }}'"
    run = Simulation(document(step("a", "b"), step("b", again)))
    run.do("a")
    run.do("b", {"again": True})
    run.do("a")
    run.do("b")
    assert run.issued() == ["a", "b", "a", "b"]
    assert len(run.commands) == 4, "each with an id of its own"
    assert (run.state.runs["a"].epoch, run.state.runs["b"].epoch) == (2, 2)
    assert run.state.status == "COMPLETED"


def test_a_step_with_an_arc_to_itself_is_a_loop() -> None:
    again = "a, when: '{{ output.data.more }}'"
    run = Simulation(document(step("a", again, "b"), step("b")))
    for _ in range(3):
        run.do("a", {"more": True})
    run.do("a", {"more": False})
    assert run.issued() == ["a"] * 4 + ["b"]


def test_a_diamond_in_a_cycle_joins_once_each_round() -> None:
    run = Simulation(
        document(
            step("a", "b", "c", mode="inclusive"),
            step("b", "d"),
            step("c", "d"),
            step("d", "a, when: '{{ output.data.again }}'"),
        )
    )
    run.do("a")
    run.do("b")
    run.do("c")
    run.do("d", {"again": True})
    run.do("a")
    run.do("c")
    run.do("b")
    run.do("d")
    assert sorted(run.issued()) == ["a", "a", "b", "b", "c", "c", "d", "d"]
    assert run.state.status == "COMPLETED"


# --- errors and ends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "when"),
    [
        ("the event", "{{ event.name == 'call.error' }}"),
        ("the status of the output", "{{ output.status == 'error' }}"),
        ("the outcome", "{{ outcome.status == 'error' }}"),
        ("the error of the output", "{{ output.error.kind == 'timeout' }}"),
        ("the text of the error", "{{ 'boom' in error }}"),
        ("the step's own output", "{{ a.error.kind == 'timeout' }}"),
        ("without braces", "event.name != 'call.done'"),
    ],
)
def test_an_arc_that_looks_at_an_error_handles_it(reason: str, when: str) -> None:
    run = Simulation(document(step("a", "b, when: %s" % json.dumps(when), "c"), step("b"), step("c")))
    run.do("a", {"status": "error", "error": {"kind": "timeout", "message": "boom"}}, error="boom")
    assert run.issued() == ["a", "b"], reason
    run.do("b")
    assert run.ends() == ["workflow.completed", "playbook.completed"], reason


def test_a_handler_sees_the_error() -> None:
    handler = "{step: b, tool: {kind: noop, input: {e: '{{ error }}', k: '{{ a.error.kind }}', o: '{{ output.error.kind }}'}}}"
    run = Simulation(document(step("a", "b, when: %s" % json.dumps(SEES)), handler))
    run.do("a", {"error": {"kind": "timeout"}}, error="boom")
    assert run.context("b")["tool_config"]["input"] == {"e": "boom", "k": "timeout", "o": "timeout"}


def test_a_variable_called_error_is_there_when_nothing_failed() -> None:
    run = Simulation(document("{step: a, tool: {kind: noop, input: {e: '{{ error }}'}}}"), {"error": "mine"})
    assert run.context("a")["tool_config"]["input"] == {"e": "mine"}


def test_an_error_handled_by_an_end_completes() -> None:
    run = Simulation(document(step("a", "end, when: %s" % json.dumps(SEES))))
    run.do("a", error="boom")
    assert run.state.status == "COMPLETED"


@pytest.mark.parametrize(
    ("reason", "steps", "answers", "end"),
    [
        ("a failing first step", [step("a")], {"a": "boom"}, "failed"),
        ("a failing last step", [step("a", "b"), step("b")], {"b": "boom"}, "failed"),
        (
            "a failing step with arcs that do not hold",
            [step("a", "b, when: '{{ false }}'"), step("b")],
            {"a": "boom"},
            "failed",
        ),
        ("a last step with a quiet router", [step("a", "end")], {}, "completed"),
        ("a last sequence", ["{step: a, tool: [{name: x, kind: noop}]}"], {}, "completed"),
        ("a last step without a tool", [step("a", "b"), "{step: b}"], {}, "completed"),
        ("no step with a tool", ["{step: a}"], {}, "completed"),
        ("a last loop", ["{step: a, %s, loop: {in: 2, iterator: i}}" % NOOP], {}, "completed"),
        ("a last empty loop", ["{step: a, %s, loop: {in: [], iterator: i}}" % NOOP], {}, "completed"),
        ("a last step that is skipped", [step("a", "b"), step("b", more=", when: '{{ false }}'")], {}, "completed"),
        (
            "a handler that fails",
            [step("a", "b, when: %s" % json.dumps(SEES)), step("b")],
            {"a": "x", "b": "y"},
            "failed",
        ),
    ],
)
def test_there_is_exactly_one_terminal_pair(reason: str, steps: list[str], answers: dict[str, str], end: str) -> None:
    run = Simulation(document(*steps))
    while run.open:
        name = next(iter(run.open.values()))
        run.do(name, error=answers.get(name))
    assert run.ends() == [f"workflow.{end}", f"playbook.{end}"], reason
    assert run.types()[-2:] == run.ends()
    assert run.decide().effects == ()
    assert run.replayed() == run.state


@pytest.mark.parametrize("kind", ["call.error", "command.failed", "command.cancelled"])
def test_any_event_of_a_failure_drives(kind: str) -> None:
    run = Simulation(document(step("a")))
    run.append(kind, "a", command_id=next(iter(run.open)), error="boom")
    run.decide()
    assert run.state.status == "FAILED"


def test_a_worker_that_only_says_completed_drives_it() -> None:
    run = Simulation(document(step("a", "b"), "{step: b, tool: {kind: noop, input: {v: '{{ a.n }}'}}}"))
    result = {"status": "success", "context": {"command_id": "x", "n": 4}}
    run.append("command.completed", "a", command_id=next(iter(run.open)), result=result)
    run.decide()
    assert run.context("b")["tool_config"]["input"]["v"] == 4


RUST = {"status": "COMPLETED", "context": {"result": {"status": "success", "context": {"data": {"n": 4}}}}}


def test_a_result_of_the_rust_worker_is_unwrapped() -> None:
    run = Simulation(document(step("a", "b"), "{step: b, tool: {kind: noop, input: {v: '{{ a.n }}'}}}"))
    run.append("call.done", "a", command_id=next(iter(run.open)), result=RUST)
    run.decide()
    assert run.context("b")["tool_config"]["input"]["v"] == 4


@pytest.mark.parametrize("status", ["error", "failed", "timeout"])
def test_a_failure_that_the_rust_worker_calls_done_is_one(status: str) -> None:
    run = Simulation(document(step("a")))
    inner = {"status": status, "context": {"data": {"exit": 1}}}
    result = {"status": "COMPLETED", "context": {"result": inner}}
    run.append("call.done", "a", command_id=next(iter(run.open)), result=result)
    run.decide()
    assert run.state.status == "FAILED"


def test_what_arrives_twice_counts_once() -> None:
    run = Simulation(document(step("a", "b"), step("b")))
    command = next(iter(run.open))
    run.answer("a", {"n": 1})
    run.append("call.done", "a", command_id=command, context={"response": {"n": 2}})
    run.append("call.error", "a", command_id=command, error="boom")
    run.decide()
    assert run.state.results["a"]["n"] == 1
    assert run.issued() == ["a", "b"]


def test_after_cancel_nothing_is_routed_and_a_late_result_changes_nothing() -> None:
    run = Simulation(document(step("a", "b"), step("b")))
    run.append("execution.cancelled", "cancel", status="CANCELLED")
    assert run.state.status == "CANCELLED"
    assert run.decide().effects == ()
    late = run.state
    run.answer("a", {"n": 1})
    assert run.decide().effects == ()
    assert (run.state.results, run.state.runs, run.state.status) == (late.results, late.runs, "CANCELLED")


def test_a_finalized_execution_is_over() -> None:
    run = Simulation(document(step("a")))
    run.append("playbook.failed", "t/t", status="failed", error="abandoned")
    assert (run.state.status, run.state.error) == ("FAILED", "abandoned")
    assert run.decide().effects == ()


# --- sub-playbooks ----------------------------------------------------------------------------------------------------


def child(keys: str, *, arcs: str = "") -> Simulation:
    return Simulation(document("{step: a, tool: {kind: playbook, %s}%s}" % (keys, arcs), step("b"), workload="{n: 3}"))


@pytest.mark.parametrize(
    ("reason", "keys", "wait"),
    [
        ("it does not wait by default", "path: x/y", False),
        ("return_step waits, whatever it says", "path: x/y, return_step: end", True),
        ("wait waits", "path: x/y, wait: true", True),
        ("wait as text", "path: x/y, wait: 'yes'", True),
        ("wait wins over return_step", "path: x/y, return_step: end, wait: false", False),
    ],
)
def test_a_playbook_tool_says_whether_it_waits(reason: str, keys: str, wait: bool) -> None:
    effect = next(iter(child(keys).commands.values()))
    assert effect.child is not None
    assert (effect.child["path"], effect.child["wait"]) == ("x/y", wait), reason


def test_a_child_is_given_its_input() -> None:
    run = child(
        "path: 'x/{{ workload.n }}', version: 2, args: {a: 1, b: 1}, payload: {b: 2, c: 2}, input: {c: 3, n: '{{ n }}'}"
    )
    (effect,) = run.commands.values()
    assert effect.child == {
        "path": "x/3",
        "catalog_id": None,
        "version": 2,
        "payload": {"a": 1, "b": 2, "c": 3, "n": 3},
        "wait": False,
        "ignore_failure": False,
    }


def test_a_playbook_tool_without_a_path_fails_its_step() -> None:
    run = child("wait: true")
    assert "needs `path` or `catalog_id`" in str(run.state.error)


@pytest.mark.parametrize(
    ("reason", "event", "end"),
    [
        ("its end ends the step", {"type": "call.done", "status": "COMPLETED"}, "COMPLETED"),
        ("a failed child fails the step", {"type": "call.error", "error": "boom"}, "FAILED"),
        (
            "the engine's mark decides, not the child's status",
            {"type": "call.done", "response": {"status": "failed"}},
            "COMPLETED",
        ),
        ("an event of its end", {"type": "child.terminated", "status": "COMPLETED"}, "COMPLETED"),
        ("an event of its failure", {"type": "child.terminated", "status": "FAILED", "error": "boom"}, "FAILED"),
        ("an event of its cancellation", {"type": "child.terminated", "status": "CANCELLED"}, "FAILED"),
    ],
)
def test_the_end_of_a_child(reason: str, event: dict[str, Any], end: str) -> None:
    run = child("path: x/y, wait: true")
    run.append(
        event["type"],
        "a",
        status=event.get("status", ""),
        command_id=next(iter(run.open)),
        context={"response": event.get("response", {"n": 1})},
        meta={"playhead": {"child": True}},
        error=event.get("error"),
    )
    run.decide()
    assert run.state.status == end, reason


# --- names, strictness, data by reference -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "template", "expected"),
    [
        ("a key of the workload", "{{ n }}", 3),
        ("workload falls back to what was set", "{{ workload.x }}", 1),
        ("ctx has the workload too", "{{ ctx.n }}", 3),
        ("and the results", "{{ ctx.a.r }}", 9),
        ("a step", "{{ a.r }}", 9),
        ("steps", "{{ steps.a.r }}", 9),
        ("args of the arcs", "{{ args.x }}", 1),
        ("args of the step's input", "{{ args.y }}", 2),
        ("job", "{{ job.uuid }}", "1000001"),
        ("job by its other name", "{{ job.execution_id }}", "1000001"),
        ("execution_id is text", "{{ execution_id }}", "1000001"),
        ("catalog_id is text", "{{ catalog_id }}", "2000002"),
        ("path", "{{ path }}", "t/t"),
        ("now is the time of the decision", "{{ now().year }}", 2026),
        ("output is that of the step before", "{{ output.data.r }}", 9),
        ("output has its members too", "{{ output.r }}", 9),
        ("output says ok", "{{ output.status }}", "ok"),
    ],
)
def test_a_name_is_there(reason: str, template: str, expected: Any) -> None:
    second = "{step: b, input: {y: 2}, tool: {kind: noop, input: {v: %s}}}" % json.dumps(template)
    run = Simulation(document(step("a", "b, args: {x: 1}"), second, workload="{n: 3}"))
    run.do("a", {"r": 9})
    assert run.context("b")["tool_config"]["args"] == {"v": expected, "y": 2}, reason


def test_the_input_of_a_step_wins_over_that_of_its_tool_and_that_over_args() -> None:
    tool = "tool: {kind: noop, args: {a: 1, b: 1, c: 1}, input: {b: 2, c: 2}}"
    run = Simulation(document("{step: a, input: {c: 3}, %s}" % tool))
    assert run.context("a")["tool_config"]["args"] == {"a": 1, "b": 2, "c": 3}


def test_a_mapping_ctx_in_the_payload_is_variables() -> None:
    run = Simulation(document("{step: a, tool: {kind: noop, input: {v: '{{ ctx.x }}'}}}"), {"ctx": {"x": 5}})
    assert run.context("a")["tool_config"]["input"]["v"] == 5


@pytest.mark.parametrize("by", ["document", "setting"])
def test_what_is_undefined_is_told_and_fails_its_step_when_strict(by: str) -> None:
    steps = document(
        step("a", "b"), "{step: b, tool: {kind: noop, input: {v: '{{ a.nope }}', w: '{{ ctx.nowhere }}'}}}"
    )
    lenient = Simulation(steps)
    lenient.answer("a", {"n": 1})
    decision = lenient.decide()
    assert (decision.misses, decision.missed) == (2, ("a.nope", "ctx.nowhere"))
    issued = next(event for event in lenient.log if event.type == "command.issued" and event.step == "b")
    assert issued.meta["playhead"]["undefined"] == ["a.nope", "ctx.nowhere"]
    text = steps + "executor: {spec: {strict: true}}\n" if by == "document" else steps
    strict = Simulation(text, options=Options(strict=by == "setting"))
    strict.do("a", {"n": 1})
    assert (strict.state.status, strict.issued()) == ("FAILED", ["a"])
    assert "step 'b', tool.input: {{ a.nope }}: 'a.nope' is undefined" in str(strict.state.error)


def test_a_condition_that_asks_for_what_is_undefined_fails_its_step_when_strict() -> None:
    run = Simulation(document(step("a", "b, when: '{{ nowhere }}'"), step("b")), options=Options(strict=True))
    run.do("a")
    assert run.state.status == "FAILED"
    assert "arc to 'b'" in str(run.state.error)


LARGE = {"status": "COMPLETED", "context": {"n": 1}, "reference": {"locator": "noetl://big", "bytes": 10**7}}


def after_large(second: str) -> Simulation:
    run = Simulation(document(step("a", "b"), second))
    run.append("call.done", "a", command_id=next(iter(run.open)), result=LARGE)
    return run


def test_a_step_that_needs_a_stored_result_is_decided_with_it() -> None:
    run = after_large("{step: b, tool: {kind: noop, input: {n: '{{ a.n }}', rows: '{{ a.rows | length }}'}}}")
    with pytest.raises(NeedsDataError, match="noetl://big"):
        run.decide()
    with loaded({"noetl://big": {"n": 1, "rows": [1, 2, 3]}}):
        run.decide()
    assert run.context("b")["tool_config"]["input"] == {"n": 1, "rows": 3}


def test_a_stored_result_that_is_gone_fails_the_step_that_needs_it() -> None:
    run = after_large("{step: b, tool: {kind: noop, input: {rows: '{{ a.rows }}'}}}")
    with loaded({"noetl://big": LOST}):
        run.decide()
    assert run.state.status == "FAILED"
    assert run.state.error == (
        "step 'b', tool.input: {{ a.rows }}: the stored result noetl://big does not exist or has expired"
    )


def test_a_condition_does_not_take_what_is_gone_for_false() -> None:
    run = Simulation(document(step("a", "b, when: '{{ a.rows }}'"), step("b")))
    run.append("call.done", "a", command_id=next(iter(run.open)), result=LARGE)
    with loaded({"noetl://big": LOST}):
        run.decide()
    assert run.state.status == "FAILED"
    assert "noetl://big does not exist or has expired" in str(run.state.error)


# --- the status document ----------------------------------------------------------------------------------------------


def test_the_status_document_follows_the_execution() -> None:
    run = Simulation(document(step("a", "b"), step("b"), workload="{n: 3}"))
    assert status_document(run.state) == {
        "current_step": "a",
        "completed_steps": [],
        "variables": {"n": 3},
        "failed": False,
        "completed": False,
    }
    run.do("a", {"r": 1})
    run.do("b", error="boom")
    shown = status_document(run.state)
    assert (shown["current_step"], shown["completed_steps"], shown["failed"]) == ("b", ["a", "b"], True)
    assert shown["variables"]["a"]["r"] == 1


def test_the_status_document_is_bounded() -> None:
    run = Simulation(document(step("a"), workload="{n: 3}"), {"blob": "x" * 200_000, "small": 1})
    variables = status_document(run.state)["variables"]
    assert variables["blob"] == {"truncated": True, "size_bytes": 200_002}
    assert variables["small"] == 1
