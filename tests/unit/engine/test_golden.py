"""Playbooks that the original ran: they are read, the same steps run as often, with the same outputs, to the same end."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from shared.engine import check_playbook
from tests.unit.engine.simulation import Simulation

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
# Where the original is wrong (engine_spec.md section 7) and what happens here instead: how often a step runs, and the end.
DIFFERENT: dict[str, tuple[dict[str, int], str | None]] = {
    "c_parallel_join": ({"join": 1}, None),  # it runs a join once per branch
    "x_parallel_inclusive": ({"join": 1}, None),
    "f_subplaybook_child0": ({}, "playbook.completed"),  # it leaves an execution of one step without an end
    "f_subplaybook_child1": ({}, "playbook.completed"),
    "g_fail": ({}, "playbook.failed"),  # it leaves a failed first step without an end
    "g_fail2": ({}, "playbook.failed"),
    "g_fail3": ({}, "playbook.completed"),  # it fails an execution although an arc handled the error
    "x_fail_handled": ({}, "playbook.completed"),
    "g_fail_uncond": ({"after": 0}, "playbook.failed"),  # it follows an error over an arc without a condition
    "x_http_404": ({"end": 0}, None),
    "g_retry": ({}, "playbook.failed"),
    "g_retry_ok": ({}, None),
    "x_admit_deny": ({"gate": 0, "end": 0}, None),  # it does not look at rules of admission
    "iterator_save_test_2": ({"process_items:task_sequence": 3}, None),  # it repeats items of loops over sequences
    "x_loop_pipeline": ({"start:task_sequence": 2}, None),
    "x_seq_loop_pipeline": ({"p:task_sequence": 3}, None),
    "h_cancel": ({"end": 0}, None),  # it goes on after it was cancelled
}
SCENARIOS = sorted((*GOLDEN.glob("engine/*.json"), *GOLDEN.glob("runs/*/log.json")))


def name_of(file: Path) -> str:
    return file.parent.name if file.name == "log.json" else file.stem


def read(file: Path) -> tuple[str, dict[str, Any], list[dict[str, Any]]]:
    """Return a scenario's playbook, its payload and the events."""
    data = json.loads(file.read_text())
    if file.name == "log.json":
        return (file.parent / "playbook.yaml").read_text(), data["workload"], data["events"]
    return data["playbook"], data["payload"], data["events"]


def recorded(events: list[dict[str, Any]]) -> dict[str, list[tuple[Any, str | None]]]:
    """Return what the workers reported, by step in order: (output, error)."""
    found: dict[str, list[tuple[Any, str | None]]] = defaultdict(list)
    for event in events:
        if event["event_type"] in ("call.done", "call.error"):
            output = event["output"] if "output" in event else (event.get("result") or {}).get("context")
            error = event.get("error") if event["event_type"] == "call.error" else None
            found[event["node_name"]].append((output, error))
    return found


@pytest.mark.parametrize("file", SCENARIOS, ids=name_of)
def test_a_recorded_playbook_takes_the_same_way(file: Path) -> None:
    text, payload, events = read(file)
    answers = recorded(events)
    run = Simulation(text, payload)
    for event in events:  # one after the other, as they were answered
        if event["event_type"] in ("call.done", "call.error") and event["node_name"] in run.open.values():
            response, error = answers[event["node_name"]].pop(0)
            run.do(event["node_name"], response, error=error)
        elif event["event_type"] == "execution.cancelled":
            run.append("execution.cancelled", "cancel", status="CANCELLED")
    kinds = [event["event_type"] for event in events]
    ends = [kind for kind in kinds if kind.startswith("playbook.") or kind == "execution.cancelled"][1:]
    counts, end = DIFFERENT.get(name_of(file), ({}, None))
    issued = Counter(event["node_name"] for event in events if event["event_type"] == "command.issued")
    assert Counter(run.issued()) == +Counter({**issued, **counts})
    terminal = ("playbook.completed", "playbook.failed", "execution.cancelled")
    assert {kind for kind in run.types() if kind in terminal} == {end or ends[-1]}
    assert run.replayed() == run.state


PLAYBOOKS = sorted((*GOLDEN.glob("playbooks/**/*.yaml"), *GOLDEN.glob("runs/*/*.yaml")))
WARNED = {  # what nobody runs, or reaches, in these
    "should_error_tool_is_required": "'command' is not run: put it under `tool`",
    "postgres_jsonb_test": "Step 'cleanup': no arc leads here",
    "test_loop_with_pagination": "Step 'cleanup': no arc leads here",
    "test_implicit_end_routing": "Step 'end': no arc leads here",
}


@pytest.mark.parametrize("file", PLAYBOOKS, ids=lambda file: str(file.relative_to(GOLDEN).with_suffix("")))
def test_a_public_playbook_is_read_without_a_complaint_that_is_not_right(file: Path) -> None:
    playbook, problems = check_playbook(file.read_text())
    assert playbook is not None, [str(problem) for problem in problems]
    name = file.parent.name if file.stem == "playbook" else file.stem
    expected = [WARNED[name]] if name in WARNED else []
    assert len(problems) == len(expected), [str(problem) for problem in problems]
    for problem, text in zip(problems, expected, strict=True):
        assert text in problem.message


def test_the_recorded_playbooks_are_there() -> None:
    assert len(PLAYBOOKS) >= 100
    assert len(SCENARIOS) >= 60
