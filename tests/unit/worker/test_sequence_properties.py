"""What holds for every sequence, every policy and every outcome of its tools."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.worker import policy
from services.worker.outcome import sequence_outcome
from services.worker.sequence import run_sequence
from services.worker.tools import ToolError
from shared.engine.outcome import sequence_result, sequence_variables
from tests.unit.worker.test_sequence import Scripted

RUNS_MAX = 40
NAMES = ["a", "b", "c"]
CONDITIONS = [
    "{{ output.status == 'error' }}",
    "{{ output.data.n > 5 }}",
    "{{ output.error.retryable }}",
    "{{ _attempt < 3 }}",
    "{{ 1 / 0 }}",
    "{{ nothing.at.all }}",
    True,
]

actions = st.fixed_dictionaries(
    {"do": st.sampled_from([*policy.ACTIONS, "teleport"])},
    optional={
        "to": st.sampled_from([*NAMES, "previous", "nowhere"]),
        "attempts": st.sampled_from([1, 2, 5, "3", "many"]),
        "backoff": st.sampled_from(["none", "fixed", "linear", "exponential", "odd"]),
        "delay": st.sampled_from([0, 1, "2", 1e12, "{{ 1 + 1 }}"]),
        "set": st.sampled_from([{"ctx.x": "{{ output.data.n }}"}, {"iter.i": 1}, {"y": "{{ 1 / 0 }}"}, {}]),
    },
)
rules = st.lists(
    st.one_of(
        st.builds(lambda when, then: {"when": when, "then": then}, st.sampled_from(CONDITIONS), actions),
        st.builds(lambda then: {"else": then}, actions),
        st.builds(lambda then: {"else": {"then": then}}, actions),
    ),
    max_size=3,
)
outcomes = st.one_of(
    st.builds(lambda n: {"n": n}, st.integers(0, 9)),
    st.sampled_from([1, None, [1, 2], "text", {"status": "error", "error": "no"}, {"status": "ok", "data": {"n": 7}}]),
    st.builds(lambda retry: ToolError("http", "HTTP_500", "boom", retryable=retry), st.booleans()),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rules, min_size=1, max_size=3), st.lists(outcomes, min_size=1, max_size=6))
def test_every_sequence_ends_with_a_result_that_the_engine_reads(
    monkeypatch: pytest.MonkeyPatch, policies: list[Any], results: list[Any]
) -> None:
    monkeypatch.setattr(policy, "SEQUENCE_RUNS_MAX", RUNS_MAX)
    tasks = [
        {"name": name, "kind": "tool", "spec": {"policy": {"rules": given}}}
        for name, given in zip(NAMES, policies, strict=False)
    ]
    scope = Scripted({"tool": results * RUNS_MAX})
    result = asyncio.run(run_sequence(scope, {"tasks": tasks}, {"workload": {}, "ctx": {}, "iter": {}}, {}))
    assert 1 <= result["metrics"]["task_count"] == len(scope.calls) <= RUNS_MAX
    assert result["status"] in ("ok", "break", "failed")
    assert set(result["results"]) <= set(NAMES)
    assert all(0 <= seconds <= 86_400 for seconds in scope.slept)
    outcome = sequence_outcome(result)
    assert (outcome.error is None) == (result["status"] != "failed")
    if outcome.error is not None:
        assert outcome.error
        assert result["failed_task"] in NAMES
    assert sequence_variables(result) == {key: value for key, value in result["ctx"].items()}
    assert sequence_result(result)["results"] == result["results"]
