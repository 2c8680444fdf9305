"""A document that is no playbook is refused with its line, its key and the fix."""

from __future__ import annotations

import pytest

from shared.engine import PlaybookError, check_playbook, parse_playbook, read_document
from shared.engine.limits import PLAYBOOK_BYTES_MAX
from tests.unit.engine.simulation import document

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: t}\n"
STEP = "workflow:\n  - step: a\n    tool: {kind: noop}\n"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: [1\n", 2, "not YAML"),
        ("a: b: c\n", 1, "not YAML"),
        ("- a\n", 1, "mapping"),
        ("", 1, "mapping"),
        (HEAD + STEP + "    input:\n      x: 99999999999999999999\n", 8, "at most 64 bits"),
        ("a: \x00", 0, "not YAML"),
        (HEAD, 1, "at least one step"),
        (HEAD.replace("v2", "v3") + STEP, 1, "apiVersion"),
        (HEAD.replace("Playbook", "Pie") + STEP, 2, "kind"),
        (HEAD.replace("{name: t}", "{}") + STEP, 3, "metadata.name"),
        (HEAD + STEP.replace("noop", "pithon"), 6, "workflow.0.tool.kind"),
        (HEAD + STEP.replace("{kind: noop}", "3"), 6, "workflow.0.tool"),
        (HEAD + STEP.replace("step: a", "stop: a"), 5, "workflow.0.step"),
        (HEAD + STEP + "  - step: a\n    tool: {kind: noop}\n", 7, "Duplicate"),
        (HEAD + STEP + "    next: {arcs: [{step: nowhere}]}\n", 7, "nowhere"),
        (HEAD + STEP + "    next: {spec: {mode: sideways}, arcs: []}\n", 7, "mode"),
        (HEAD + STEP + "    when: '{{ 1 + }}'\n", 7, "when"),
        (HEAD + STEP + "    set: {x: '{{ y | no_filter }}'}\n", 7, "set"),
        (HEAD + "workload: [1]\n" + STEP, 4, "workload"),
        (HEAD + "workflow: {a: 1}\n", 4, "workflow"),
    ],
)
def test_a_problem_is_named_with_its_line(text: str, line: int, said: str) -> None:
    playbook, problems = check_playbook(text)
    assert playbook is None
    found = [problem for problem in problems if said in str(problem)]
    assert found, [str(problem) for problem in problems]
    assert found[0].line == line, str(found[0])


def test_a_playbook_that_names_everything_wrong_says_all_of_it_at_once() -> None:
    text = HEAD.replace("v2", "v3") + STEP.replace("noop", "pithon") + "    next: {arcs: [{step: nowhere}]}\n"
    with pytest.raises(PlaybookError) as caught:
        parse_playbook(text)
    assert len(caught.value.problems) >= 2


def test_a_step_that_nothing_leads_to_is_a_warning() -> None:
    playbook, problems = check_playbook(HEAD + STEP + "  - step: b\n    tool: {kind: noop}\n")
    assert playbook is not None
    assert [(problem.line, problem.severity) for problem in problems] == [(7, "warning")]
    assert "no arc leads here" in problems[0].message


@pytest.mark.parametrize("executor", ["{entry_step: b}", "{spec: {entry_step: b}}"])
def test_the_entry_step_can_be_named(executor: str) -> None:
    text = HEAD + f"executor: {executor}\n" + STEP + "  - step: b\n    tool: {kind: noop}\n"
    assert parse_playbook(text).entry == "b"
    with pytest.raises(PlaybookError, match="line 4"):
        parse_playbook(text.replace("entry_step: b", "entry_step: nowhere"))


def test_an_unknown_key_is_a_warning_and_does_not_keep_it_from_running() -> None:
    playbook, problems = check_playbook(HEAD + STEP + "    nxet: x\n")
    assert playbook is not None
    assert [(problem.severity, problem.line) for problem in problems] == [("warning", 7)]


def test_aliases_that_stand_for_billions_are_refused() -> None:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10))
    _, problems = check_playbook(f"l0: &l0 [x]\n{levels}\n")
    assert "more than" in str(problems[0])


def test_a_document_over_the_limit_is_refused() -> None:
    _, problems = check_playbook("a: " + "x" * PLAYBOOK_BYTES_MAX)
    assert "at most" in str(problems[0])


def test_a_document_nested_too_deeply_is_refused() -> None:
    _, problems = check_playbook("a: " + "[" * 50_000)
    assert problems


def test_plain_data_is_what_json_can_hold() -> None:
    document = read_document("a: 2026-01-01\nb: 1\nc: {d: [true, null, 1.5]}\n")
    assert document.data == {
        "a": "2026-01-01",
        "b": 1,
        "c": {"d": [True, None, 1.5]},
    }
    assert document.places["c", "d", 1] == (3, 15)


def test_a_playbook_knows_what_can_still_be_reached() -> None:
    playbook = parse_playbook(
        document(
            "{step: a, tool: {kind: noop}, next: {arcs: [{step: b}, {step: c}]}}",
            "{step: b, tool: {kind: noop}, next: {arcs: [{step: c}]}}",
            "{step: c, tool: {kind: noop}, next: {arcs: [{step: a, when: '{{ false }}'}]}}",
        )
    )
    assert playbook.may_reach("a", "c")
    assert not playbook.may_reach("c", "a"), "a way that closes a cycle is not waited for"
    assert playbook.upstream_counts == {"a": 0, "b": 1, "c": 2}


def test_a_step_that_names_the_keychain_mentions_what_its_definitions_name() -> None:
    playbook = parse_playbook(
        "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: x}\nworkload: {pg_auth: a}\n"
        "keychain: [{name: db, kind: credential, credential: '{{ pg_auth }}'}]\n"
        "workflow:\n- {step: a, tool: {kind: python, input: {h: '{{ keychain.db.host }}'}, code: x}}\n"
        "- {step: b, tool: {kind: noop}}\n"
    )
    assert "pg_auth" in playbook.steps["a"].mentions
    assert "pg_auth" not in playbook.steps["b"].mentions


def test_a_document_that_was_stored_runs_whatever_is_warned_of_today() -> None:
    text = (
        "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: x}\nexecutor: {spec: {strict: true}}\n"
        "workflow:\n- {step: a, retrys: 3, tool: {kind: noop, input: {v: '{{ nowhere }}'}}}\n"
    )
    assert check_playbook(text)[0] is None
    assert parse_playbook(text).strict
