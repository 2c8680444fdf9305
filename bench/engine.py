"""The engine alone: decide and evolve, without a server, on one core.

`python -m bench.engine` prints events per second for chains and loops, and the cost of an item from 1,000 to 100,000 items.
"""

from __future__ import annotations

import argparse
import gc
import resource
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any

from shared.engine import (
    Event,
    IssueCommand,
    State,
    decide,
    effects_as_events,
    evolve,
    initial_events,
    initial_state,
    parse_playbook,
)

NOW = datetime(2026, 11, 24, tzinfo=UTC)
HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: bench}\nworkflow:\n"
EVENTS_MIN = 5000  # of one timed run: reading the clock takes as long as ten events
REPORTS = ("command.claimed", "command.started", "call.done", "command.completed")  # what a worker says about a command


def chain(steps: int) -> str:
    """Return a playbook of steps one after the other, each with a template."""
    lines = []
    for number in range(steps):
        arcs = f"[{{step: s{number + 1}}}]" if number + 1 < steps else "[]"
        tool = "{kind: noop, input: {v: '{{ workload.n }}'}}"
        lines.append(f"  - {{step: s{number}, tool: {tool}, next: {{arcs: {arcs}}}}}\n")
    return HEAD + "".join(lines)


def loop(in_flight: int) -> str:
    """Return a playbook with a loop over `workload.rows`."""
    spec = f"{{mode: parallel, max_in_flight: {in_flight}}}"
    over = f"{{in: '{{{{ workload.rows }}}}', iterator: item, spec: {spec}}}"
    return HEAD + "  - {step: l, tool: {kind: noop, input: {v: '{{ item.id }}'}}, loop: " + over + "}\n"


class Drive:
    """Runs one execution; counts its events."""

    def __init__(self, text: str, payload: dict[str, Any]) -> None:
        self.playbook = parse_playbook(text)
        self.state: State = initial_state(1, 2)
        self.open: deque[tuple[int, str]] = deque()
        self.events = 0
        for effect in initial_events(self.playbook, payload=payload, path="bench"):
            self._fold(effect.as_event(self.state.version + 1, self.events + 1, NOW))

    def _fold(self, event: Event) -> None:
        self.state = evolve(self.state, event)
        self.events += 1

    def _decide(self) -> None:
        decision = decide(self.state, self.playbook, now=NOW)
        for event in effects_as_events(self.state, decision, first_event_id=self.events + 1, now=NOW):
            self._fold(event)
        for effect in decision.effects:
            if isinstance(effect, IssueCommand):
                self.open.append((effect.command_id, effect.step_name))

    def run(self) -> None:
        """Run to the end."""
        self._decide()
        while self.open:
            command_id, step = self.open.popleft()
            for kind in REPORTS:
                self._fold(
                    Event(
                        version=self.state.version + 1,
                        event_id=self.events + 1,
                        type=kind,
                        step=step,
                        status="COMPLETED",
                        context={"response": {"n": 1}} if kind == "call.done" else None,
                        command_id=command_id,
                    )
                )
            self._decide()
        assert self.state.status == "COMPLETED", self.state.status


def report(name: str, text: str, payload: dict[str, Any], *, units: int, unit: str, repeat: int) -> None:
    """Print the best of `repeat` runs, each of as many executions as make `EVENTS_MIN` events."""
    executions = max(EVENTS_MIN // (5 * units), 1)
    best, events = float("inf"), 0
    for _ in range(repeat):
        drives = [Drive(text, payload) for _ in range(executions)]
        gc.collect()
        start = time.process_time()
        for drive in drives:
            drive.run()
        best = min(best, time.process_time() - start)
        events = sum(drive.events for drive in drives)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{name:34} {events / best:8,.0f} events/s {best / units / executions * 1e6:8.1f} us per {unit}"
        f" {memory:6.0f} MiB at most so far"
    )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000, help="items of the largest loop (default 100,000)")
    parser.add_argument("--repeat", type=int, default=3, help="runs of which the best counts (default 3)")
    options = parser.parse_args()
    for steps in (1, 10, 200):
        report(f"chain of {steps} steps", chain(steps), {"n": 1}, units=steps, unit="step", repeat=options.repeat)
    for size in (1000, 10_000, options.items):
        rows = [{"id": index} for index in range(size)]
        report(
            f"loop of {size:,}, 100 at once", loop(100), {"rows": rows}, units=size, unit="item", repeat=options.repeat
        )


if __name__ == "__main__":
    main()
