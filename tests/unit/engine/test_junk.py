"""Junk anywhere in a playbook is a problem with a place, or runs to an end; it never raises anything else."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.engine import check_playbook
from tests.unit.engine.simulation import Simulation

WHOLE: dict[str, Any] = {
    "apiVersion": "noetl.io/v2",
    "kind": "Playbook",
    "metadata": {"name": "t", "path": "t/t", "tags": ["a"]},
    "executor": {
        "spec": {"entry_step": "a", "on_error": "stop", "timeout": "1h", "strict": False, "execution_pool": "p"}
    },
    "workload": {"n": 1, "rows": [1, 2]},
    "keychain": [{"name": "k", "kind": "credential"}],
    "workbook": [{"name": "w", "tool": {"kind": "noop", "input": {"x": 1}}}],
    "workflow": [
        {
            "step": "a",
            "when": "{{ true }}",
            "input": {"v": "{{ n }}"},
            "tool": {"kind": "http", "url": "http://x/{{ n }}", "method": "GET", "headers": {"a": "b"}},
            "set": {"ctx.x": "{{ output.data }}"},
            "spec": {
                "timeout": 5,
                "retry": {"attempts": 2, "backoff": "linear", "delay": "1s", "jitter": 0.5, "on": "{{ true }}"},
                "policy": {"admit": {"rules": [{"when": "{{ true }}", "then": {"allow": True}}]}},
            },
            "next": {
                "spec": {"mode": "inclusive"},
                "arcs": [{"step": "l", "when": "{{ true }}", "set": {"y": 1}}, {"step": "s"}],
            },
        },
        {
            "step": "l",
            "tool": {"kind": "noop"},
            "loop": {
                "in": "{{ rows }}",
                "iterator": "i",
                "spec": {"mode": "parallel", "max_in_flight": 2, "on_item_error": "fail"},
            },
            "next": [{"step": "c"}],
        },
        {
            "step": "s",
            "tool": [
                {
                    "name": "x",
                    "kind": "noop",
                    "spec": {
                        "policy": {
                            "rules": [{"when": "x", "then": {"do": "retry", "attempts": 2}}, {"else": {"do": "fail"}}]
                        }
                    },
                },
                {"name": "y", "kind": "workbook", "task": "w"},
            ],
            "next": "c",
        },
        {
            "step": "c",
            "tool": {"kind": "playbook", "path": "x/y", "wait": True, "payload": {"a": 1}},
            "next": {"arcs": [{"step": "r"}]},
        },
        {
            "step": "r",
            "tool": {"kind": "noop"},
            "loop": {
                "iterator": "row",
                "cursor": {"kind": "postgres", "auth": "pg", "claim": "SELECT 1", "options": {}},
                "spec": {"mode": "cursor", "frame": {"max_rows": 3}},
            },
        },
    ],
}
JUNK = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**20), 10**20),
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from(
            [
                "",
                "{{",
                "{{ x",
                "{{ 1 / 0 }}",
                "{% for %}",
                "a",
                "noop",
                "{{ nope.a.b }}",
                "-1",
                "9" * 30,
                "s:task_sequence",
            ]
        ),
        st.text(max_size=5),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from(["step", "kind", "in", "when", "then", "name", "rules"]), st.text(max_size=4)),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return every place of a document."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


PLACES = places(WHOLE)


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(PLACES), JUNK), min_size=1, max_size=2))
def test_junk_anywhere_is_a_problem_or_runs(changes: list[tuple[tuple[str | int, ...], Any]]) -> None:
    document = copy.deepcopy(WHOLE)
    for path, junk in changes:
        place: Any = document
        try:
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = junk
        except (KeyError, IndexError, TypeError):
            continue  # the other change has taken the place away
    text = json.dumps(document)
    playbook, problems = check_playbook(text)
    if playbook is None:
        assert problems
        assert all(problem.message and problem.line >= 0 for problem in problems)
        return
    run = Simulation(text)
    for _ in range(30):
        if not run.open:
            break
        run.do(next(iter(run.open.values())), {"n": 1})
    assert run.replayed() == run.state


def test_the_document_without_junk_is_right() -> None:
    playbook, problems = check_playbook(json.dumps(WHOLE))
    assert playbook is not None
    assert problems == []
    run = Simulation(json.dumps(WHOLE))
    run.run(lambda _: {"n": 1})
    assert run.state.status == "COMPLETED"
