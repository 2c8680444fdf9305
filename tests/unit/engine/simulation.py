"""An execution without a server: the pure core, a log in memory, and workers that answer in any order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from shared.engine import (
    AppendEvent,
    Decision,
    Event,
    IssueCommand,
    Playbook,
    State,
    TemplateError,
    decide,
    effects_as_events,
    evolve,
    failure,
    initial_events,
    initial_state,
    parse_playbook,
    replay,
)

NOW = datetime(2026, 11, 24, tzinfo=UTC)
EXECUTION_ID, CATALOG_ID = 1_000_001, 2_000_002


def document(*steps: str, workload: str = "{}") -> str:
    """Return a playbook with these steps, each a YAML flow mapping."""
    lines = "\n".join(f"  - {step}" for step in steps)
    return (
        "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: t, path: t/t}\n"
        f"workload: {workload}\nworkflow:\n{lines}\n"
    )


class Simulation:
    """One execution. `state` is folded live; `log` is what a store would have."""

    def __init__(self, text: str, payload: dict[str, Any] | None = None) -> None:
        self.playbook: Playbook = parse_playbook(text)
        self.log: list[Event] = []
        self.open: dict[int, str] = {}  # command id: step
        self.contexts: dict[int, dict[str, Any]] = {}
        self.state: State = initial_state(EXECUTION_ID, CATALOG_ID)
        for effect in initial_events(self.playbook, payload=payload or {}, path="t/t"):
            self._append_effects(Decision(effects=(effect,)))
        self.decide()

    def _append(self, event: Event) -> None:
        self.log.append(event)
        self.state = evolve(self.state, event)

    def _append_effects(self, decision: Decision) -> None:
        for event in effects_as_events(self.state, decision, first_event_id=len(self.log) + 1, now=NOW):
            self._append(event)
        for effect in decision.effects:
            if isinstance(effect, IssueCommand):
                assert effect.command_id not in self.contexts, "a command id was issued twice"
                self.open[effect.command_id] = effect.step_name
                self.contexts[effect.command_id] = dict(effect.context)

    def decide(self) -> Decision:
        """Decide and append; a decision that cannot be made ends the execution, as in the orchestrator."""
        try:
            decision = decide(self.state, self.playbook, now=NOW)
        except TemplateError as error:
            decision = failure(self.state, error=str(error))
        self._append_effects(decision)
        return decision

    def answer(self, step: str, response: Any = None, *, error: str | None = None) -> None:
        """Append what a worker reports when it has run the open command of `step`."""
        command_id = next(key for key, name in self.open.items() if name == step)
        del self.open[command_id]
        kinds = (
            ("call.error", "step.exit", "command.failed") if error else ("call.done", "step.exit", "command.completed")
        )
        for kind in kinds:
            version = len(self.log) + 1
            context = {"response": response} if kind.startswith("call.") else None
            self._append(
                Event(
                    version=version,
                    event_id=version,
                    type=kind,
                    step=step,
                    status="FAILED" if error else "COMPLETED",
                    context=context,
                    error=error,
                    command_id=command_id,
                    meta={"command_id": command_id},
                )
            )

    def run(self, answers: Callable[[str], Any], *, steps_max: int = 500) -> None:
        """Answer open commands, oldest first, and decide after each, until nothing is open."""
        for _ in range(steps_max):
            if not self.open:
                return
            step = next(iter(self.open.values()))
            self.answer(step, answers(step))
            self.decide()
        raise AssertionError("the execution does not end")

    # --- what tests look at ------------------------------------------------------------------------------------------

    def issued(self) -> list[str]:
        """Return the steps in the order in which their commands were issued."""
        return [event.step for event in self.log if event.type == "command.issued"]

    def context(self, step: str) -> dict[str, Any]:
        """Return the context of the newest command of `step`."""
        events = [event for event in self.log if event.type == "command.issued" and event.step == step]
        assert events[-1].command_id is not None
        return self.contexts[events[-1].command_id]

    def ends(self) -> list[str]:
        """Return the terminal events."""
        return [event.type for event in self.log if event.type.rpartition(".")[0] in ("workflow", "playbook")][2:]

    def replayed(self) -> State:
        """Return the state folded from the log alone."""
        return replay(initial_state(EXECUTION_ID, CATALOG_ID), self.log)


def event_effects(decision: Decision) -> list[str]:
    """Return the types of the events of a decision."""
    return [effect.event_type for effect in decision.effects if isinstance(effect, AppendEvent)]
