"""An execution without a server: the pure core, a log in memory, and workers that answer in any order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.engine import (
    AppendEvent,
    CancelCommand,
    Decision,
    Event,
    IssueCommand,
    Options,
    Playbook,
    SetTimer,
    State,
    decide,
    effects_as_events,
    evolve,
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

    def __init__(self, text: str, payload: dict[str, Any] | None = None, *, options: Options | None = None) -> None:
        self.playbook: Playbook = parse_playbook(text)
        self.options = options or Options()
        self.now = NOW
        self.commands: dict[int, IssueCommand] = {}
        self.timers: dict[int, SetTimer] = {}
        self.cancelled: list[str] = []
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
        for event in effects_as_events(self.state, decision, first_event_id=len(self.log) + 1, now=self.now):
            self._append(event)
        for effect in decision.effects:
            if isinstance(effect, IssueCommand):
                assert effect.command_id not in self.commands, "a command id was issued twice"
                self.open[effect.command_id] = effect.step_name
                self.commands[effect.command_id] = effect
                self.contexts[effect.command_id] = dict(effect.context)
            elif isinstance(effect, SetTimer):
                self.timers.setdefault(effect.timer_id, effect)
            elif isinstance(effect, CancelCommand):
                self.cancelled.append(self.open.pop(effect.command_id))

    def decide(self) -> Decision:
        """Decide and append."""
        decision = decide(self.state, self.playbook, now=self.now, options=self.options)
        self._append_effects(decision)
        return decision

    def fire(self, purpose: str = "") -> None:
        """Let time pass until the next timer, or the next whose purpose starts so, and append its event."""
        timers = [timer for timer in self.timers.values() if timer.purpose.startswith(purpose)]
        timer = min(timers, key=lambda timer: timer.due_at)
        del self.timers[timer.timer_id]
        self.now = datetime.fromisoformat(timer.due_at)
        self.append("timer.fired", timer.step_name or "workflow", meta={"purpose": timer.purpose})

    def waits(self) -> list[tuple[str, timedelta]]:
        """Return the timers that have not fired: what for, and how long from now."""
        return sorted(
            (timer.purpose, datetime.fromisoformat(timer.due_at) - self.now) for timer in self.timers.values()
        )

    def append(self, kind: str, step: str, **members: Any) -> None:
        """Append an event that others wrote."""
        version = len(self.log) + 1
        self._append(Event(version=version, event_id=version, type=kind, step=step, occurred_at=self.now, **members))

    def do(self, step: str, response: Any = None, *, error: str | None = None, index: int | None = None) -> None:
        """Answer and decide."""
        self.answer(step, response, error=error, index=index)
        self.decide()

    def answer(self, step: str, response: Any = None, *, error: str | None = None, index: int | None = None) -> None:
        """Append what a worker reports when it has run the open command of `step`, of a loop that of item `index`."""
        command_id = next(
            key
            for key, name in self.open.items()
            if name == step and (index is None or self.commands[key].iter_index == index)
        )
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

    def types(self, step: str | None = None) -> list[str]:
        """Return the types of the events, of one step or of all."""
        return [event.type for event in self.log if step is None or event.step == step]

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
