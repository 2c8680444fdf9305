"""Every way to write a playbook that one of the dialects knows: accepted, warned of, or refused; one row and reason each."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from shared.engine import Playbook, Problem, check_playbook
from shared.engine.playbook import AdmitRule, Arc, Retry, Step

ARC_B = Arc(target="b")


def text_of(step: dict[str, Any], **root: Any) -> str:
    """Return a document whose first step is `step`, followed by steps `b` and `c`."""
    noop = {"kind": "noop"}
    steps = [{"step": "a", "tool": noop, **step}, {"step": "b", "tool": noop}, {"step": "c", "tool": noop}]
    document = {"apiVersion": "noetl.io/v2", "kind": "Playbook", "metadata": {"name": "t"}, "workflow": steps, **root}
    return yaml.safe_dump(document, sort_keys=False)


def checked(step: dict[str, Any], *, strict: bool = False, **root: Any) -> tuple[Playbook | None, list[Problem]]:
    """Return what a check says, without the steps that nothing leads to."""
    playbook, problems = check_playbook(text_of(step, **root), strict=strict)
    return playbook, [problem for problem in problems if "no arc leads here" not in problem.message]


def step_of(step: dict[str, Any], **root: Any) -> Step:
    playbook, problems = checked(step, **root)
    assert playbook is not None, [str(problem) for problem in problems]
    assert [problem for problem in problems if problem.severity == "error"] == []
    return playbook.steps["a"]


def arc(target: str | None, when: str | None = None, *, sees: bool = False, **values: Any) -> Arc:
    return Arc(target=target, when=when, set=values, sees_errors=sees)


# --- arcs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "written", "mode", "arcs"),
    [
        ("the router", {"arcs": [{"step": "b"}]}, "exclusive", (ARC_B,)),
        ("the router with a mode", {"spec": {"mode": "inclusive"}, "arcs": [{"step": "b"}]}, "inclusive", (ARC_B,)),
        ("the router without arcs in it", {"arcs": []}, "exclusive", ()),
        ("quiet changes nothing", {"spec": {"on_no_match": "quiet"}, "arcs": [{"step": "b"}]}, "exclusive", (ARC_B,)),
        ("a name", "b", "exclusive", (ARC_B,)),
        ("a list of names runs all", ["b", "c"], "inclusive", (ARC_B, arc("c"))),
        ("a list of arcs runs the first", [{"step": "b"}, {"step": "c"}], "exclusive", (ARC_B, arc("c"))),
        ("an arc's args are set", [{"step": "b", "args": {"x": 1}}], "exclusive", (arc("b", x=1),)),
        ("an arc's set", {"arcs": [{"step": "b", "set": {"ctx.x": 1}}]}, "exclusive", (arc("b", **{"ctx.x": 1}),)),
        ("set wins over args", [{"step": "b", "args": {"x": 1}, "set": {"x": 2}}], "exclusive", (arc("b", x=2),)),
        ("a condition", {"arcs": [{"step": "b", "when": "{{ n }}"}]}, "exclusive", (arc("b", "{{ n }}"),)),
        ("of the event", [{"step": "b", "when": "event.x"}], "exclusive", (arc("b", "event.x", sees=True),)),
        (
            "of the output",
            [{"step": "b", "when": "{{ output.x }}"}],
            "exclusive",
            (arc("b", "{{ output.x }}", sees=True),),
        ),
        ("of the outcome", [{"step": "b", "when": "outcome.x"}], "exclusive", (arc("b", "outcome.x", sees=True),)),
        ("of the error", [{"step": "b", "when": "error"}], "exclusive", (arc("b", "error", sees=True),)),
        ("of the step itself", [{"step": "b", "when": "a.x"}], "exclusive", (arc("b", "a.x", sees=True),)),
        ("of another step sees no error", [{"step": "b", "when": "c.x"}], "exclusive", (arc("b", "c.x"),)),
        ("an end that is no step ends", "end", "exclusive", (arc(None),)),
        ("nothing", None, "exclusive", ()),
    ],
)
def test_next_can_be_written(reason: str, written: Any, mode: str, arcs: tuple[Arc, ...]) -> None:
    step = step_of({"next": written})
    assert (step.mode, step.arcs) == (mode, arcs), reason


def test_the_step_may_say_the_mode_of_its_arcs() -> None:
    step = step_of({"next": [{"step": "b"}, {"step": "c"}], "spec": {"next_mode": "inclusive"}})
    assert step.mode == "inclusive"


# --- tools ------------------------------------------------------------------------------------------------------------


def task(name: str, kind: str = "noop", **keys: Any) -> dict[str, Any]:
    return {"name": name, "kind": kind, **keys}


@pytest.mark.parametrize(
    ("reason", "written", "kind", "tasks"),
    [
        ("a mapping", {"kind": "noop"}, "noop", []),
        ("text is the kind", "noop", "noop", []),
        ("no tool at all routes", None, None, []),
        ("a list of named tasks", [task("x"), task("y")], "task_sequence", [task("x"), task("y")]),
        ("tasks without names get them", [{"kind": "noop"}] * 2, "task_sequence", [task("task_0"), task("task_1")]),
        ("a list of labels", [{"x": {"kind": "noop"}}], "task_sequence", [task("x")]),
        ("a map of labels", {"x": {"kind": "noop"}, "y": {"kind": "noop"}}, "task_sequence", [task("x"), task("y")]),
        ("a name below spec is not its name", [task("x", spec={"name": [1]})], "task_sequence", [task("x", spec={})]),
        ("a task's set", [task("x", set={"ctx.n": 1})], "task_sequence", [task("x", set={"ctx.n": 1})]),
    ],
)
def test_a_tool_can_be_written(reason: str, written: Any, kind: str | None, tasks: list[dict[str, Any]]) -> None:
    step = step_of({"tool": written})
    assert (step.tool_kind, list(step.tasks)) == (kind, tasks), reason


def test_a_single_tool_with_rules_is_a_sequence_of_one() -> None:
    policy = {"policy": {"rules": [{"else": {"do": "continue"}}]}}
    step = step_of({"tool": {"kind": "noop", "spec": policy}})
    assert step.tool_kind == "task_sequence"
    assert [(found["kind"], found["spec"]) for found in step.tasks] == [("noop", policy)]


@pytest.mark.parametrize(
    ("reason", "written"),
    [
        ("when and then", {"when": "{{ output.status == 'error' }}", "then": {"do": "retry", "attempts": 5}}),
        ("else with then", {"else": {"then": {"do": "continue"}}}),
        ("else without then", {"else": {"do": "continue"}}),
        ("then alone always matches", {"then": {"do": "fail"}}),
        ("jump to another task", {"when": "x", "then": {"do": "jump", "to": "y"}}),
        ("jump to the one before", {"when": "x", "then": {"do": "jump", "to": "previous"}}),
        ("break", {"when": "x", "then": {"do": "break"}}),
        ("a backoff that only fixtures know", {"when": "x", "then": {"do": "retry", "backoff": "fixed"}}),
    ],
)
def test_a_rule_can_be_written(reason: str, written: dict[str, Any]) -> None:
    playbook, problems = checked({"tool": [task("x", spec={"policy": {"rules": [written]}}), task("y")]})
    assert playbook is not None, reason
    assert problems == [], reason


def test_a_step_names_an_action_of_the_workbook() -> None:
    book = [{"name": "greet", "desc": "d", "tool": {"kind": "python", "code": "x", "args": {"a": 1, "b": 1}}}]
    step = step_of({"tool": {"kind": "workbook", "name": "greet", "args": {"b": 2}}}, workbook=book)
    assert (step.tool_kind, step.tool["code"], step.tool["args"]) == ("python", "x", {"a": 1, "b": 2})


# --- steps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "written", "member", "value"),
    [
        ("input", {"input": {"x": 1}}, "input", {"x": 1}),
        ("args are input", {"args": {"x": 1}}, "input", {"x": 1}),
        ("input wins over args", {"args": {"x": 1, "y": 2}, "input": {"x": 3}}, "input", {"x": 3, "y": 2}),
        ("when", {"when": "{{ x }}"}, "when", "{{ x }}"),
        ("set", {"set": {"ctx.x": 1}}, "set", {"ctx.x": 1}),
        ("a pool", {"execution_pool": "gpu"}, "pool", "gpu"),
        ("a pool under spec", {"spec": {"pool": "gpu"}}, "pool", "gpu"),
        ("a timeout in seconds", {"spec": {"timeout": 30}}, "timeout_seconds", 30.0),
        ("a timeout with a unit", {"spec": {"timeout": "5m"}}, "timeout_seconds", 300.0),
        ("a short timeout", {"spec": {"timeout": "250ms"}}, "timeout_seconds", 0.25),
        ("attempts alone", {"spec": {"retry": 4}}, "retry", Retry(attempts=4, max_delay=604800.0)),
        (
            "a whole retry",
            {
                "spec": {
                    "retry": {
                        "attempts": 5,
                        "backoff": "linear",
                        "delay": "2s",
                        "max_delay": 9,
                        "jitter": 0.2,
                        "on": "x",
                    }
                }
            },
            "retry",
            Retry(attempts=5, backoff="linear", delay=2.0, max_delay=9.0, jitter=0.2, on="x"),
        ),
        (
            "errors of items",
            {"loop": {"in": [1], "iterator": "i", "spec": {"on_item_error": "continue"}}},
            "continue_on_item_error",
            True,
        ),
        (
            "rules of admission",
            {
                "spec": {
                    "policy": {
                        "admit": {
                            "rules": [{"when": "x", "then": {"allow": False}}, {"else": {"then": {"allow": True}}}]
                        }
                    }
                }
            },
            "admit",
            (AdmitRule(when="x", allow=False), AdmitRule(when=None, allow=True)),
        ),
        (
            "output beside the tool",
            {"output": {"select": [{"path": "x"}]}},
            "tool",
            {"output": {"select": [{"path": "x"}]}},
        ),
    ],
)
def test_a_step_can_be_written(reason: str, written: dict[str, Any], member: str, value: Any) -> None:
    assert getattr(step_of(written), member) == value, reason


@pytest.mark.parametrize(
    ("reason", "written", "collection", "mode", "limit"),
    [
        ("a template", {"in": "{{ x }}"}, "{{ x }}", "sequential", None),
        ("a list", {"in": [1, 2]}, [1, 2], "sequential", None),
        ("a number", {"in": 3}, 3, "sequential", None),
        ("nothing", {"in": None}, None, "sequential", None),
        ("the old name of in", {"in_": "{{ x }}"}, "{{ x }}", "sequential", None),
        ("parallel", {"in": [], "spec": {"mode": "parallel"}}, [], "parallel", None),
        ("a limit", {"in": [], "spec": {"mode": "parallel", "max_in_flight": 5}}, [], "parallel", 5),
        ("a limit as a template", {"in": [], "spec": {"max_in_flight": "{{ n }}"}}, [], "sequential", "{{ n }}"),
        ("a policy that nobody executes", {"in": [], "spec": {"policy": {"exec": "local"}}}, [], "sequential", None),
    ],
)
def test_a_loop_can_be_written(reason: str, written: dict[str, Any], collection: Any, mode: str, limit: Any) -> None:
    loop = step_of({"loop": {"iterator": "item", **written}}).loop
    assert loop is not None
    assert (loop.collection, loop.mode, loop.max_in_flight) == (collection, mode, limit), reason


def test_a_cursor_loop_has_slots_that_run_the_tasks() -> None:
    cursor = {"kind": "postgres", "auth": "pg", "claim": "SELECT 1"}
    step = step_of(
        {"loop": {"cursor": cursor, "iterator": "row", "spec": {"mode": "cursor", "frame": {"max_rows": 5}}}}
    )
    assert step.loop is not None
    assert (step.tool_kind, step.loop.cursor, step.loop.frame) == ("cursor_worker", cursor, {"max_rows": 5})
    assert [found["kind"] for found in step.tasks] == ["noop"]


@pytest.mark.parametrize(
    ("reason", "root", "member", "value"),
    [
        ("v1 runs", {"apiVersion": "noetl.io/v1"}, "entry", "a"),
        ("v10 runs", {"apiVersion": "noetl.io/v10"}, "entry", "a"),
        ("an agent runs", {"kind": "Agent"}, "kind", "Agent"),
        ("the first step starts", {}, "entry", "a"),
        ("a named step starts", {"executor": {"spec": {"entry_step": "b"}}}, "entry", "b"),
        ("also without spec", {"executor": {"entry_step": "b"}}, "entry", "b"),
        ("the path is the name", {}, "path", "t"),
        ("the path is its own", {"metadata": {"name": "t", "path": "x/t"}}, "path", "x/t"),
        ("an unhandled error stops", {}, "on_error", "stop"),
        ("or continues", {"executor": {"spec": {"on_error": "continue"}}}, "on_error", "continue"),
        ("or fails fast", {"executor": {"spec": {"on_error": "fail_fast"}}}, "on_error", "fail_fast"),
        ("a timeout", {"executor": {"spec": {"timeout": "1h"}}}, "timeout_seconds", 3600.0),
        ("strict", {"executor": {"spec": {"strict": True}}}, "strict", True),
        ("a pool", {"executor": {"spec": {"execution_pool": "gpu"}}}, "pool", "gpu"),
        ("no workload", {}, "workload", {}),
        ("a profile that changes nothing", {"executor": {"profile": "local", "requires": {"tools": []}}}, "entry", "a"),
        ("a keychain", {"keychain": [{"name": "k", "kind": "credential"}]}, "entry", "a"),
    ],
)
def test_a_document_can_be_written(reason: str, root: dict[str, Any], member: str, value: Any) -> None:
    next_b = {"next": ["b", "c"]}
    playbook, _ = checked(next_b, **root)
    assert playbook is not None, reason
    assert getattr(playbook, member) == value, reason


# --- what nobody runs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "step", "root", "key", "advice"),
    [
        ("branches of an old dialect", {"case": []}, {}, "workflow.0.case", "next.arcs[].when"),
        ("a sink", {"sink": {}}, {}, "workflow.0.sink", "add a step"),
        ("a save", {"save": {}}, {}, "workflow.0.save", "add a step"),
        ("variables of a step", {"vars": {}}, {}, "workflow.0.vars", "`set`"),
        ("a retry beside spec", {"retry": {}}, {}, "workflow.0.retry", "spec.retry"),
        ("a type", {"type": "python"}, {}, "workflow.0.type", "kind"),
        ("a command", {"command": "x"}, {}, "workflow.0.command", "`tool`"),
        ("set_ctx", {"set_ctx": {}}, {}, "workflow.0.set_ctx", "ctx.<name>"),
        ("set_iter", {"set_iter": {}}, {}, "workflow.0.set_iter", "iter.<name>"),
        ("a result", {"result": {}}, {}, "workflow.0.result", "tool.output"),
        ("an outcome", {"outcome": {}}, {}, "workflow.0.outcome", "next.arcs[].when"),
        ("variables of the document", {}, {"vars": {}}, "vars", "workload"),
        ("eval of a tool", {"tool": {"kind": "noop", "eval": []}}, {}, "workflow.0.tool.eval", "spec.policy.rules"),
        ("retry of a tool", {"tool": {"kind": "noop", "retry": {}}}, {}, "workflow.0.tool.retry", "do: retry"),
        (
            "mode beside spec",
            {"loop": {"in": [1], "iterator": "i", "mode": "parallel"}},
            {},
            "workflow.0.loop.mode",
            "loop.spec",
        ),
        ("a key with a slip of the pen", {"nxet": "b"}, {}, "workflow.0.nxet", "unknown key"),
        ("a key of the document", {}, {"tracing": {}}, "tracing", "unknown key"),
        (
            "a key of an arc",
            {"next": {"arcs": [{"step": "b", "cond": "x"}]}},
            {},
            "workflow.0.next.arcs.0.cond",
            "unknown key",
        ),
        ("a key of a tool", {"tool": {"kind": "noop", "urll": 1}}, {}, "workflow.0.tool.urll", "no key"),
    ],
)
def test_what_nobody_runs_is_a_warning_and_strict_makes_it_an_error(
    reason: str, step: dict[str, Any], root: dict[str, Any], key: str, advice: str
) -> None:
    playbook, problems = checked(step, **root)
    assert playbook is not None, reason
    found = next(problem for problem in problems if problem.key == key)
    assert found.severity == "warning"
    assert advice in found.message, reason
    lines = text_of(step, **root).splitlines()
    assert key.rpartition(".")[2] in lines[found.line - 1], "the line of the key"
    for strictly in ({"strict": True}, {"executor": {"spec": {"strict": True}}}):
        playbook, problems = checked(step, **{**root, **strictly})
        assert playbook is None, reason
        assert next(problem for problem in problems if problem.key == key).severity == "error"


def test_a_cycle_that_nothing_can_leave_is_a_warning() -> None:
    _, problems = checked({"next": "b"}, workflow=[{"step": "a", "next": "b"}, {"step": "b", "next": "a"}])
    assert ["has no way out" in problem.message for problem in problems] == [True]


def test_a_cycle_with_a_condition_is_no_warning() -> None:
    steps = [{"step": "a", "next": "b"}, {"step": "b", "next": [{"step": "a", "when": "{{ b.x }}"}]}]
    assert checked({}, workflow=steps)[1] == []


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "step", "root", "key", "said"),
    [
        ("another version", {}, {"apiVersion": "noetl.io/v3"}, "apiVersion", "noetl.io/v2"),
        ("another kind", {}, {"kind": "Pie"}, "kind", "Invalid kind"),
        ("no name", {}, {"metadata": {}}, "metadata.name", "Field required"),
        ("a workload that is no mapping", {}, {"workload": [1]}, "workload", "mapping"),
        ("a keychain that is no list", {}, {"keychain": {}}, "keychain", "list"),
        ("a workbook that is no list", {}, {"workbook": {}}, "workbook", "list"),
        ("an unknown entry", {}, {"executor": {"spec": {"entry_step": "x"}}}, "executor.spec.entry_step", "not found"),
        ("an unknown on_error", {}, {"executor": {"spec": {"on_error": "x"}}}, "executor.spec.on_error", "fail_fast"),
        ("an arc to nowhere", {"next": "x"}, {}, "workflow.0.next.arcs.0.step", "does not exist"),
        ("a router without arcs", {"next": {"spec": {}}}, {}, "workflow.0.next", "'arcs'"),
        ("a router that is an arc", {"next": {"step": "b"}}, {}, "workflow.0.next", "'arcs'"),
        (
            "an unknown mode",
            {"next": {"spec": {"mode": "x"}, "arcs": []}},
            {},
            "workflow.0.next.spec.mode",
            "exclusive",
        ),
        (
            "an arc without a step",
            {"next": {"arcs": [{"when": "x"}]}},
            {},
            "workflow.0.next.arcs.0.step",
            "Field required",
        ),
        (
            "a boolean condition",
            {"next": {"arcs": [{"step": "b", "when": True}]}},
            {},
            "workflow.0.next.arcs.0.when",
            "valid string",
        ),
        ("a malformed condition", {"when": "{{ 1 + }}"}, {}, "workflow.0.when", "not a valid condition"),
        ("a malformed template", {"set": {"x": "{{ y | nope }}"}}, {}, "workflow.0.set.x", "nope"),
        (
            "a malformed template of a tool",
            {"tool": {"kind": "http", "url": "{{ y | nope }}"}},
            {},
            "workflow.0.tool.url",
            "nope",
        ),
        ("an unknown tool", {"tool": {"kind": "pithon"}}, {}, "workflow.0.tool.kind", "python"),
        ("a tool without a kind", {"tool": {"code": "x"}}, {}, "workflow.0.tool", "'kind'"),
        ("an empty sequence", {"tool": []}, {}, "workflow.0.tool", "at least one task"),
        ("a task that is text", {"tool": ["a"]}, {}, "workflow.0.tool.0", "must be an object"),
        ("two tasks of one name", {"tool": [task("x"), task("x")]}, {}, "workflow.0.tool.1.name", "duplicate"),
        (
            "an action that is not there",
            {"tool": {"kind": "workbook", "name": "x"}},
            {},
            "workflow.0.tool.name",
            "not found",
        ),
        (
            "a rule without then",
            {"tool": [task("x", spec={"policy": {"rules": [{"when": "x"}]}})]},
            {},
            "workflow.0.tool.0.spec.policy.rules.0",
            "'then'",
        ),
        (
            "a rule with expr",
            {"tool": [task("x", spec={"policy": {"rules": [{"expr": "x", "then": {"do": "fail"}}]}})]},
            {},
            "workflow.0.tool.0.spec.policy.rules.0.expr",
            "Use 'when'",
        ),
        (
            "a rule that does nothing known",
            {"tool": [task("x", spec={"policy": {"rules": [{"then": {"do": "x"}}]}})]},
            {},
            "workflow.0.tool.0.spec.policy.rules.0.then.do",
            "continue",
        ),
        (
            "a jump to nowhere",
            {"tool": [task("x", spec={"policy": {"rules": [{"then": {"do": "jump", "to": "z"}}]}})]},
            {},
            "workflow.0.tool.0.spec.policy.rules.0.then.to",
            "no task",
        ),
        (
            "a policy without rules",
            {"tool": [task("x", spec={"policy": {}})]},
            {},
            "workflow.0.tool.0.spec.policy.rules",
            "Field required",
        ),
        ("a loop over nothing", {"loop": {"iterator": "i"}}, {}, "workflow.0.loop", "one of 'in'"),
        (
            "a loop over two things",
            {"loop": {"iterator": "i", "in": [], "cursor": {"claim": "x"}}},
            {},
            "workflow.0.loop",
            "not both",
        ),
        ("a loop without a name", {"loop": {"in": []}}, {}, "workflow.0.loop.iterator", "Field required"),
        (
            "a cursor in another mode",
            {"loop": {"iterator": "i", "cursor": {"claim": "x"}}},
            {},
            "workflow.0.loop.spec.mode",
            "requires spec.mode='cursor'",
        ),
        (
            "a cursor mode without one",
            {"loop": {"iterator": "i", "in": [], "spec": {"mode": "cursor"}}},
            {},
            "workflow.0.loop.spec.mode",
            "loop.cursor source",
        ),
        (
            "an unknown loop mode",
            {"loop": {"iterator": "i", "in": [], "spec": {"mode": "x"}}},
            {},
            "workflow.0.loop.spec.mode",
            "parallel",
        ),
        (
            "no item at once",
            {"loop": {"iterator": "i", "in": [], "spec": {"max_in_flight": 0}}},
            {},
            "workflow.0.loop.spec.max_in_flight",
            "from 1",
        ),
        (
            "a loop without a tool",
            {"tool": None, "loop": {"iterator": "i", "in": []}},
            {},
            "workflow.0.loop",
            "needs a tool",
        ),
        ("no attempt", {"spec": {"retry": {"attempts": 0}}}, {}, "workflow.0.spec.retry.attempts", "from 1"),
        (
            "an unknown backoff",
            {"spec": {"retry": {"backoff": "x"}}},
            {},
            "workflow.0.spec.retry.backoff",
            "exponential",
        ),
        ("a timeout that is none", {"spec": {"timeout": "soon"}}, {}, "workflow.0.spec.timeout", "30s"),
        (
            "a rule of admission without an answer",
            {"spec": {"policy": {"admit": {"rules": [{"when": "x"}]}}}},
            {},
            "workflow.0.spec.policy.admit.rules.0.then.allow",
            "true or false",
        ),
        ("a name like a sequence's", {"step": "a:task_sequence"}, {}, "workflow.0.step", "does not end in"),
    ],
)
def test_what_cannot_run_is_refused_with_its_key_and_the_fix(
    reason: str, step: dict[str, Any], root: dict[str, Any], key: str, said: str
) -> None:
    playbook, problems = checked(step, **root)
    assert playbook is None, reason
    found = [problem for problem in problems if problem.severity == "error"]
    assert [problem.key for problem in found] == [key], [str(problem) for problem in problems]
    assert said in found[0].message, reason
    assert found[0].line > 0, reason
