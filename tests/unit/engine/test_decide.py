"""Given an execution, when something ended, then what comes next."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.engine import failure
from tests.unit.engine.simulation import Simulation, document

NOOP = "tool: {kind: noop}"


def test_steps_follow_their_arcs_and_the_last_one_ends_the_execution() -> None:
    run = Simulation(document("{step: a, %s, next: {arcs: [{step: b}]}}" % NOOP, "{step: b, %s}" % NOOP))
    assert run.issued() == ["a"]
    run.answer("a", {"n": 1})
    run.decide()
    assert run.issued() == ["a", "b"]
    run.answer("b", {"n": 2})
    run.decide()
    assert run.ends() == ["workflow.completed", "playbook.completed"]
    assert run.state.status == "COMPLETED"


def test_the_step_called_start_is_first_wherever_it_stands() -> None:
    assert Simulation(document("{step: other, %s}" % NOOP, "{step: start, %s}" % NOOP)).issued() == ["start"]


ARCS = (
    "{step: a, %s, next: {spec: {mode: %s}, arcs: [{step: b, when: '{{ workload.n > 1 }}'}, "
    "{step: c, when: '{{ workload.n > 2 }}'}, {step: d}]}}"
)


@pytest.mark.parametrize(
    ("mode", "n", "expected"),
    [
        ("exclusive", 0, ["d"]),
        ("exclusive", 2, ["b"]),
        ("exclusive", 3, ["b"]),
        ("inclusive", 0, ["d"]),
        ("inclusive", 2, ["b", "d"]),
        ("inclusive", 3, ["b", "c", "d"]),
    ],
)
def test_arcs_are_taken_by_mode(mode: str, n: int, expected: list[str]) -> None:
    steps = [ARCS % (NOOP, mode), *["{step: %s, %s}" % (name, NOOP) for name in "bcd"]]
    run = Simulation(document(*steps), {"n": n})
    run.answer("a")
    run.decide()
    assert run.issued() == ["a", *expected]


def test_no_arc_that_holds_ends_the_branch() -> None:
    run = Simulation(
        document("{step: a, %s, next: {arcs: [{step: b, when: '{{ false }}'}]}}" % NOOP, "{step: b, %s}" % NOOP)
    )
    run.answer("a")
    run.decide()
    assert run.ends()[-1] == "playbook.completed"
    assert run.issued() == ["a"]


def test_an_arc_to_an_end_that_is_no_step_ends_the_branch() -> None:
    run = Simulation(document("{step: a, %s, next: {arcs: [{step: end}]}}" % NOOP))
    run.answer("a")
    run.decide()
    assert run.ends()[-1] == "playbook.completed"


def test_a_step_whose_condition_does_not_hold_is_skipped_with_its_arcs() -> None:
    run = Simulation(
        document("{step: a, %s, when: '{{ workload.go }}', next: {arcs: [{step: b}]}}" % NOOP, "{step: b, %s}" % NOOP),
        {"go": False},
    )
    assert [event.type for event in run.log if event.step == "a"] == ["step.skipped"]
    assert run.issued() == []
    assert run.state.status == "COMPLETED"


def test_a_join_sees_a_skipped_branch_as_ended() -> None:
    run = Simulation(
        document(
            "{step: a, %s, next: {spec: {mode: inclusive}, arcs: [{step: b}, {step: c}]}}" % NOOP,
            "{step: b, %s, next: {arcs: [{step: d}]}}" % NOOP,
            "{step: c, %s, when: '{{ false }}', next: {arcs: [{step: d}]}}" % NOOP,
            "{step: d, %s}" % NOOP,
        )
    )
    run.run(lambda _: {})
    assert run.issued() == ["a", "b", "d"]


def test_a_step_without_a_tool_only_routes() -> None:
    run = Simulation(document("{step: a, next: {arcs: [{step: b}]}}", "{step: b, %s}" % NOOP))
    assert run.issued() == ["b"]


DIAMOND = document(
    "{step: a, %s, next: {spec: {mode: inclusive}, arcs: [{step: b}, {step: c}]}}" % NOOP,
    "{step: b, %s, next: {arcs: [{step: d}]}}" % NOOP,
    "{step: c, %s, next: {arcs: [{step: x}]}}" % NOOP,
    "{step: x, %s, next: {arcs: [{step: d}]}}" % NOOP,
    "{step: d, %s}" % NOOP,
)


@pytest.mark.parametrize("order", [("b", "c", "x"), ("c", "b", "x"), ("c", "x", "b")])
def test_a_join_waits_for_every_live_branch_and_runs_once(order: tuple[str, ...]) -> None:
    run = Simulation(DIAMOND)
    run.answer("a")
    run.decide()
    for step in order:
        assert "d" not in run.issued()
        run.answer(step)
        run.decide()
    assert run.issued().count("d") == 1
    run.answer("d")
    run.decide()
    assert run.ends() == ["workflow.completed", "playbook.completed"]


def test_a_join_does_not_wait_for_a_branch_that_took_another_way() -> None:
    run = Simulation(
        document(
            "{step: a, %s, next: {spec: {mode: inclusive}, arcs: [{step: b}, {step: c}]}}" % NOOP,
            "{step: b, %s, next: {arcs: [{step: d}]}}" % NOOP,
            "{step: c, %s, next: {arcs: [{step: e, when: '{{ true }}'}, {step: d}]}}" % NOOP,
            "{step: d, %s}" % NOOP,
            "{step: e, %s}" % NOOP,
        )
    )
    for step in ("a", "b"):
        run.answer(step)
        run.decide()
    assert "d" not in run.issued()
    run.answer("c")
    run.decide()
    assert sorted(run.issued()) == ["a", "b", "c", "d", "e"]


def test_a_failure_nobody_handles_ends_the_execution_as_failed_with_its_error() -> None:
    run = Simulation(document("{step: a, tool: {kind: python, code: x}}"))
    run.answer("a", {"status": "error"}, error="boom")
    run.decide()
    assert run.ends() == ["workflow.failed", "playbook.failed"]
    assert run.state.error == "boom"


def test_an_arc_whose_condition_holds_handles_the_failure() -> None:
    run = Simulation(
        document(
            "{step: a, %s, next: {arcs: [{step: b, when: \"{{ output.status == 'error' }}\"}]}}" % NOOP,
            "{step: b, %s}" % NOOP,
        )
    )
    run.answer("a", {"status": "error", "error": {"message": "boom"}}, error="boom")
    run.decide()
    run.answer("b")
    run.decide()
    assert run.state.status == "COMPLETED"


UNHANDLED = "{step: a, %s, next: {arcs: [{step: b, when: '{{ workload.go }}'}, {step: b}]}}" % NOOP


@pytest.mark.parametrize(
    ("on_error", "issued"), [(None, ["a"]), ("stop", ["a"]), ("continue", ["a", "b"]), ("fail_fast", ["a"])]
)
def test_an_error_that_no_condition_looks_at_is_not_handled(on_error: str | None, issued: list[str]) -> None:
    text = document(UNHANDLED, "{step: b, %s}" % NOOP)
    if on_error:
        text += "executor: {spec: {on_error: %s}}\n" % on_error
    run = Simulation(text, {"go": True})
    run.answer("a", {"detail": 7}, error="boom")
    run.decide()
    run.run(lambda _: {})
    assert run.issued() == issued
    assert (run.state.status, run.state.error) == ("FAILED", "boom")
    result = run.log[-1].result
    assert result is not None
    assert result["context"] == {"step": "a", "attempt": 1, "error": "boom", "detail": 7}


def test_fail_fast_does_not_wait_for_other_branches() -> None:
    run = Simulation(
        document(
            "{step: a, %s, next: {spec: {mode: inclusive}, arcs: [{step: b}, {step: c}]}}" % NOOP,
            "{step: b, %s}" % NOOP,
            "{step: c, %s}" % NOOP,
        )
        + "executor: {on_error: fail_fast}\n"
    )
    run.answer("a")
    run.decide()
    run.answer("b", error="boom")
    run.decide()
    assert run.ends() == ["workflow.failed", "playbook.failed"]


def test_an_output_that_calls_itself_an_error_is_one_under_any_event() -> None:
    run = Simulation(document("{step: a, %s}" % NOOP))
    run.answer("a", {"status": "error", "error": {"message": "no disk"}})
    run.decide()
    assert (run.state.status, run.state.error) == ("FAILED", "no disk")


def test_a_condition_that_cannot_be_evaluated_does_not_hold_and_leaves_a_diagnostic() -> None:
    run = Simulation(
        document(
            "{step: a, %s, next: {arcs: [{step: b, when: '{{ 1 / workload.zero > 1 }}'}]}}" % NOOP,
            "{step: b, %s}" % NOOP,
        ),
        {"zero": 0},
    )
    run.answer("a")
    run.decide()
    assert run.state.status == "COMPLETED"
    routed = next(event for event in run.log if event.type == "step.routed")
    assert routed.context is not None
    assert "1 / workload.zero" in routed.context["diagnostics"][0]


def test_the_other_branch_finishes_before_a_failed_execution_ends() -> None:
    run = Simulation(
        document(
            "{step: a, %s, next: {spec: {mode: inclusive}, arcs: [{step: b}, {step: c}]}}" % NOOP,
            "{step: b, %s}" % NOOP,
            "{step: c, %s}" % NOOP,
        )
    )
    run.answer("a")
    run.decide()
    run.answer("b", error="boom")
    run.decide()
    assert run.ends() == []
    run.answer("c")
    run.decide()
    assert run.ends() == ["workflow.failed", "playbook.failed"]


def rendered(expression: str, *, payload: dict[str, Any] | None = None, response: Any = None, more: str = "") -> Any:
    """Return what `expression` gives as input of the second step."""
    run = Simulation(
        document(
            "{step: a, %s%s, next: {arcs: [{step: b, set: {ctx.total: '{{ output.data.n }}'}}]}}" % (NOOP, more),
            "{step: b, tool: {kind: noop, input: {v: %s}}}" % json.dumps(expression),
            workload="{n: 1, deep: {x: 1, y: [1, 2]}, name: Ada}",
        ),
        payload,
    )
    run.answer("a", {"n": 7} if response is None else response)
    run.decide()
    return run.context("b")["tool_config"]["input"]["v"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("{{ workload.n }}", 1),
        ("{{ a.n }}", 7),
        ("{{ a }}", {"n": 7, "context": {"n": 7}}),
        ("{{ a.data.n }}", 7),
        ("{{ ctx.total }}", 7),
        ("{{ total }}", 7),
        ("n is {{ a.n }}", "n is 7"),
        ("{{ workload.deep.y }}", [1, 2]),
        ("{{ nowhere.to.be.found }}", None),
        ("<{{ nowhere }}>", "<>"),
        ("[{{ workload.n }}, {{ a.n }}]", [1, 7]),
        ("{{ '00' }}7", "007"),
        ("{{ steps.a.n }}", 7),
        ("{{ result.n }}", 7),  # of the step before, as older playbooks write it
        ("{{ output.data.n }}", 7),
        ("{{ output.n }}", 7),
        ("{{ outcome.result.n }}", 7),
        ("{{ nowhere | default(5) }}", 5),
        ("{{ execution_id }}", "1000001"),
        ("{{ a.n > 3 and workload.n == 1 }}", True),
        ("{{ keychain.token.access }}", "{{ keychain.token.access }}"),
        ("plain", "plain"),
    ],
)
def test_a_template_gives(expression: str, expected: Any) -> None:
    assert rendered(expression) == expected


def test_the_payload_replaces_top_level_keys_of_the_workload() -> None:
    payload = {"deep": {"x": 9}, "new": True}
    assert rendered("{{ workload.deep }}", payload=payload) == {"x": 9}, "not filled in from the playbook"
    assert rendered("{{ workload.new }}", payload=payload) is True
    assert rendered("{{ workload.name }}", payload=payload) == "Ada"


def test_a_step_sets_variables_that_later_steps_see() -> None:
    assert rendered("{{ ctx.twice }}", more=", set: {ctx.twice: '{{ output.data.n * 2 }}'}") == 14


def test_only_what_the_author_wrote_is_left_to_the_worker_and_data_is_never_a_template() -> None:
    run = Simulation(
        document(
            "{step: a, %s, next: {arcs: [{step: b}]}}" % NOOP,
            "{step: b, tool: {kind: noop, input: {v: '{{ a.text }}'}, auth: {key: '{{ keychain.k.token }}'}}, "
            "input: {r: {$noetl_ref: {kind: keychain, name: k, field: f}}}}",
        )
    )
    run.answer("a", {"text": "{{ keychain.k.token }} {{ 1 + 1 }}"})
    run.decide()
    context = run.context("b")
    assert context["tool_config"]["args"]["v"] == "{{ keychain.k.token }} {{ 1 + 1 }}"
    assert sorted(context["deferred"]) == [["input", "r"], ["tool_config", "args", "r"], ["tool_config", "auth", "key"]]


def test_a_template_that_fails_ends_its_step_and_names_itself() -> None:
    run = Simulation(
        document(
            "{step: a, %s, next: {arcs: [{step: b}]}}" % NOOP,
            "{step: b, tool: {kind: noop, input: {v: '{{ 1 / a.n }}'}}, "
            "next: {arcs: [{step: c, when: \"{{ event.name == 'call.error' }}\"}]}}",
            "{step: c, tool: {kind: noop, input: {v: '{{ b }}'}}}",
        )
    )
    run.answer("a", {"n": 0})
    run.decide()
    assert run.issued() == ["a", "c"], "an arc handles it like any other error"
    failed = next(event for event in run.log if event.type == "call.error")
    assert "step 'b', tool.input" in str(failed.error)
    assert "1 / a.n" in str(failed.error)


@pytest.mark.parametrize(
    "expression",
    ["{{ ''.__class__.__mro__ }}", "{{ range(10**9) | list }}", "{{ 'x' * 10**9 }}", "{{ 9 ** 9 ** 9 }}"],
)
def test_a_template_cannot_escape_or_exhaust(expression: str) -> None:
    run = Simulation(
        document(
            "{step: a, %s, next: {arcs: [{step: b}]}}" % NOOP,
            "{step: b, tool: {kind: noop, input: {v: %s}}}" % json.dumps(expression),
        )
    )
    run.answer("a")
    run.decide()
    if run.open:
        assert run.context("b")["tool_config"]["input"]["v"] is None
    else:
        assert run.state.status == "FAILED"


def test_a_cycle_of_steps_without_tools_ends_as_failure() -> None:
    run = Simulation(document("{step: a, next: {arcs: [{step: b}]}}", "{step: b, next: {arcs: [{step: a}]}}"))
    assert run.ends() == ["workflow.failed", "playbook.failed"]
    assert "cycle" in str(run.state.error)


def test_a_loop_back_runs_steps_again_until_its_condition_fails() -> None:
    run = Simulation(
        document(
            "{step: a, %s, set: {ctx.n: '{{ (ctx.n | default(0)) + 1 }}'}, next: {arcs: [{step: b}]}}" % NOOP,
            "{step: b, %s, next: {arcs: [{step: a, when: '{{ ctx.n < 3 }}'}]}}" % NOOP,
        )
    )
    run.run(lambda _: {})
    assert run.issued() == ["a", "b"] * 3
    assert run.state.status == "COMPLETED"


def test_large_data_travels_only_with_the_commands_that_mention_it() -> None:
    run = Simulation(
        document(
            "{step: a, %s, next: {arcs: [{step: b}]}}" % NOOP,
            "{step: b, tool: {kind: noop, input: {v: '{{ a.n }}'}}, next: {arcs: [{step: c}]}}",
            "{step: c, tool: {kind: python, code: 'result = len(ctx[\"blob\"])'}}",
        ),
        {"blob": "x" * 100_000},
    )
    run.answer("a", {"n": 1})
    run.decide()
    context = run.context("b")["render_context"]
    assert "blob" not in context["workload"]
    assert "blob" not in context
    run.answer("b")
    run.decide()
    assert len(run.context("c")["render_context"]["workload"]["blob"]) == 100_000


def test_nothing_is_decided_after_the_end() -> None:
    run = Simulation(document("{step: a, %s}" % NOOP))
    run.answer("a")
    run.decide()
    assert run.decide().effects == ()


def test_a_failure_decision_ends_the_execution() -> None:
    run = Simulation(document("{step: a, %s}" % NOOP))
    run._append_effects(failure(run.state, error="cannot go on"))
    assert (run.state.status, run.state.error) == ("FAILED", "cannot go on")
