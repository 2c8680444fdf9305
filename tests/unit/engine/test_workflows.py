"""Whole workflows by random schedules: the same end whatever happens between store and orchestrators.

A short run in CI; `PLAYHEAD_PROPERTY_EXAMPLES=10000 pytest tests/unit/engine/test_workflows.py` for a long one.
"""

from __future__ import annotations

import os
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from shared.engine import initial_state, parse_playbook, replay
from tests.unit.engine.cluster import Cluster, Store
from tests.unit.engine.simulation import CATALOG_ID, EXECUTION_ID
from tests.unit.engine.workflows import Workflow, workflows

EXAMPLES = int(os.environ.get("PLAYHEAD_PROPERTY_EXAMPLES", "200"))
pytestmark = pytest.mark.timeout(120 if EXAMPLES <= 200 else 7200)
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 200,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    print_blob=True,
)
PAIRS = (["workflow.completed", "playbook.completed"], ["workflow.failed", "playbook.failed"])


def check(store: Store, flow: Workflow) -> None:
    """Assert what holds for every log."""
    types = [event.type for event in store.log]
    ends = [kind for kind in types if kind.rpartition(".")[0] in ("workflow", "playbook")][2:]
    assert ends in PAIRS, "one terminal pair"
    written_by_us = {"command.issued", "step.routed", "ctx.updated", "loop.started", "loop.done", "step.skipped"}
    assert not written_by_us & set(types[types.index(ends[1]) :]), "nothing of ours after it"
    live = replay(initial_state(EXECUTION_ID, CATALOG_ID), store.log)
    for cut in (len(store.log) // 3, len(store.log) // 2):
        start = replay(initial_state(EXECUTION_ID, CATALOG_ID), store.log[:cut])
        assert replay(start, store.log[cut:]) == live, "folding in parts is folding"
    entries = [
        (command.step_name, command.meta["playhead"]["epoch"], command.iter_index, command.attempt)
        for command in store.issued.values()
    ]
    assert len(entries) == len(set(entries)), "a step is entered once per epoch: joins run once"
    routed = [
        (record["step"], record["epoch"])
        for event in store.log
        for record in (event.meta.get("playhead") or {}).get("routed", ())
        if record.get("kind") is None
    ]
    assert len(routed) == len(set(routed)), "the arcs of a run are walked once"
    assert live.is_terminal


def outcome(store: Store, flow: Workflow) -> object:
    """Return what must be the same for every schedule."""
    end = [event for event in store.log if event.type.startswith("playbook.")][1].type
    return (end, sorted(store.issued)) if flow.exact else end


@SETTINGS
@given(workflows(), st.lists(st.integers(0, 1 << 32), min_size=2, max_size=2, unique=True))
def test_a_workflow_ends_the_same_whatever_the_schedule(flow: Workflow, seeds: list[int]) -> None:
    playbook = parse_playbook(flow.text())
    outcomes = []
    for seed in seeds:
        cluster = Cluster(flow, playbook, Random(seed))
        cluster.run()
        check(cluster.store, flow)
        outcomes.append(outcome(cluster.store, flow))
    assert outcomes[0] == outcomes[1]


@settings(SETTINGS, max_examples=max(EXAMPLES // 4, 1))
@given(workflows(), st.integers(0, 1 << 32), st.integers(0, 40))
def test_nothing_follows_a_cancellation(flow: Workflow, seed: int, when: int) -> None:
    cluster = Cluster(flow, parse_playbook(flow.text()), Random(seed))
    actions = [action for weight, action in cluster._steps for _ in range(weight)]
    for _ in range(when):
        cluster.random.choice(actions)()
    store = cluster.store
    if store.ended:
        return
    store.write("execution.cancelled", "cancel", status="CANCELLED")
    store.ended = True
    store.open.clear()
    before = len(store.issued)
    for _ in range(30):
        cluster.random.choice(actions)()
    assert len(store.issued) == before
    live = replay(initial_state(EXECUTION_ID, CATALOG_ID), store.log)
    assert live.status == "CANCELLED"
