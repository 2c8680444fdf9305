"""What holds for every playbook, every order of results and every failure."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.engine import VersionGapError, decide, evolve, initial_state, replay
from tests.unit.engine.simulation import CATALOG_ID, EXECUTION_ID, NOW, Simulation, document

SETTINGS = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def playbooks(draw: st.DrawFn) -> str:
    """A playbook of 1 to 7 steps with arcs forwards, and now and then one back that ends after two rounds."""
    count = draw(st.integers(1, 7))
    steps: list[str] = []
    for index in range(count):
        targets = (
            draw(st.lists(st.integers(index + 1, count - 1), max_size=3, unique=True)) if index + 1 < count else []
        )
        arcs = []
        for target in targets:
            when = draw(
                st.sampled_from(["", "", ", when: '{{ true }}'", ", when: '{{ false }}'", ", when: '{{ s0.n > 5 }}'"])
            )
            arcs.append("{step: s%d%s}" % (target, when))
        if index and draw(st.integers(0, 5)) == 0:
            arcs.insert(
                0, "{step: s%d, when: '{{ (ctx.r%d | default(0)) < 2 }}'}" % (draw(st.integers(0, index - 1)), index)
            )
        mode = draw(st.sampled_from(["exclusive", "inclusive"]))
        tool = draw(st.sampled_from([", tool: {kind: noop}", ", tool: {kind: noop}", ", tool: {kind: noop}", ""]))
        after = ", next: {spec: {mode: %s}, arcs: [%s]}" % (mode, ", ".join(arcs)) if arcs else ""
        counter = ", set: {ctx.r%d: '{{ (ctx.r%d | default(0)) + 1 }}'}" % (index, index)
        steps.append("{step: s%d%s%s%s}" % (index, tool, counter, after))
    return document(*steps)


def play(text: str, data: st.DataObject, *, failures: bool = True) -> Simulation:
    """Run to the end: any open command ends next, some fail, and decisions come after each or after several."""
    run = Simulation(text)
    for _ in range(400):
        if not run.open:
            break
        for _ in range(data.draw(st.integers(1, 3))):
            if run.open:
                step = data.draw(st.sampled_from(sorted(set(run.open.values()))))
                failed = failures and data.draw(st.integers(0, 5)) == 0
                run.answer(step, {"n": data.draw(st.integers(0, 9))}, error="boom" if failed else None)
        run.decide()
    return run


@SETTINGS
@given(playbooks(), st.data())
def test_a_replay_of_the_log_is_the_live_state(text: str, data: st.DataObject) -> None:
    run = play(text, data)
    assert run.replayed() == run.state
    cut = data.draw(st.integers(0, len(run.log)))
    resumed = replay(replay(initial_state(EXECUTION_ID, CATALOG_ID), run.log[:cut]), run.log[cut:])
    assert resumed == run.state


@SETTINGS
@given(playbooks(), st.data())
def test_duplicates_and_disorder_change_nothing(text: str, data: st.DataObject) -> None:
    """A reader folds what is next, ignores what is old and leaves what is ahead for later, as the orchestrator does."""
    run = play(text, data)
    state = initial_state(EXECUTION_ID, CATALOG_ID)
    arrivals = data.draw(st.permutations([*run.log, *run.log[:5]]))
    for _ in range(len(run.log) + 1):
        for event in arrivals:
            if event.version <= state.version + 1:
                state = evolve(state, event)
            else:
                with pytest.raises(VersionGapError):
                    evolve(state, event)
    assert state == run.state


@SETTINGS
@given(playbooks(), st.data())
def test_deciding_twice_issues_once(text: str, data: st.DataObject) -> None:
    run = Simulation(text)
    for _ in range(30):
        if not run.open:
            break
        run.answer(next(iter(run.open.values())), {"n": data.draw(st.integers(0, 9))})
        before = run.state
        first, second = (decide(before, run.playbook, now=NOW) for _ in range(2))
        assert first == second
        assert run.state is before
        run.decide()  # the simulation asserts that no command id is issued a second time
        if not run.state.is_terminal:
            assert decide(run.state, run.playbook, now=NOW).effects == ()


@SETTINGS
@given(playbooks(), st.data())
def test_every_execution_ends_once(text: str, data: st.DataObject) -> None:
    run = play(text, data)
    assert run.state.is_terminal
    ends = run.ends()
    assert ends in (["workflow.completed", "playbook.completed"], ["workflow.failed", "playbook.failed"])
    assert run.log[-1].type.startswith("playbook.")
    assert [event.version for event in run.log] == list(range(1, len(run.log) + 1))


@SETTINGS
@given(playbooks(), st.data())
def test_a_step_never_runs_twice_at_once(text: str, data: st.DataObject) -> None:
    run = play(text, data, failures=False)
    running: set[str] = set()
    for event in run.log:
        if event.type == "command.issued":
            assert event.step not in running
            running.add(event.step)
        elif event.type == "call.done":
            running.remove(event.step)


@st.composite
def acyclic(draw: st.DrawFn) -> str:
    """Fan-outs and joins without conditions: every step is reached, so every step must run."""
    count = draw(st.integers(2, 7))
    sources: list[list[int]] = [[] for _ in range(count)]
    for index in range(1, count):
        for source in draw(st.lists(st.integers(0, index - 1), min_size=1, max_size=3, unique=True)):
            sources[source].append(index)
    steps = []
    for index, targets in enumerate(sources):
        arcs = ", ".join("{step: s%d}" % target for target in targets)
        after = ", next: {spec: {mode: inclusive}, arcs: [%s]}" % arcs if targets else ""
        steps.append("{step: s%d, tool: {kind: noop}%s}" % (index, after))
    return document(*steps)


@SETTINGS
@given(acyclic(), st.data())
def test_without_conditions_every_step_runs_exactly_once_in_any_order(text: str, data: st.DataObject) -> None:
    run = play(text, data, failures=False)
    assert sorted(run.issued()) == sorted(run.playbook.steps)
    ended: set[str] = set()
    for event in run.log:  # a step starts only after all the steps that lead to it
        if event.type == "command.issued":
            sources = {
                name for name, step in run.playbook.steps.items() if event.step in [arc.target for arc in step.arcs]
            }
            assert sources <= ended
        elif event.type == "call.done":
            ended.add(event.step)
