"""A store and two orchestrators in memory, and everything that can go wrong between them.

Events are delivered twice, late, out of order or not at all; an orchestrator forgets everything between any two steps, works on
a state of long ago, restores a snapshot, or loses the race to commit. What must hold is asserted where it would break.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import orjson

from shared.engine import (
    ACTIONABLE_TYPES,
    CancelCommand,
    Decision,
    Event,
    IssueCommand,
    Playbook,
    SetTimer,
    State,
    decide,
    effects_as_events,
    evolve,
    initial_events,
    initial_state,
    is_terminal_type,
    replay,
    snapshot_from_json,
    snapshot_to_json,
)
from shared.engine.state import SEQUENCE_SUFFIX
from tests.unit.engine.simulation import CATALOG_ID, EXECUTION_ID, NOW
from tests.unit.engine.workflows import Workflow

STEPS_MAX = 20_000  # of one execution; beyond, it does not end


class Store:
    """The event log with compare-and-set, commands and timers."""

    def __init__(self, playbook: Playbook) -> None:
        self.log: list[Event] = []
        self.decided = 0
        self.actionable = 0
        self.open: dict[int, IssueCommand] = {}
        self.issued: dict[int, IssueCommand] = {}
        self.timers: dict[int, SetTimer] = {}
        self.set_timers: set[int] = set()
        self.ended = False
        for effect in initial_events(playbook, payload={}, path="t/t"):
            self.append(effect.as_event(len(self.log) + 1, len(self.log) + 1, NOW))
        self.actionable = len(self.log)

    def append(self, event: Event) -> None:
        assert event.version == len(self.log) + 1
        self.log.append(event)
        if event.type in ACTIONABLE_TYPES:
            self.actionable = event.version

    def write(self, kind: str, step: str, **members: object) -> None:
        """Append what a worker or a timer says; also after the end."""
        version = len(self.log) + 1
        self.append(Event(version=version, event_id=version, type=kind, step=step, occurred_at=NOW, **members))  # type: ignore[arg-type]

    def commit(self, decision: Decision, *, expected: int, seen: int, state: State) -> bool:
        """Apply a decision unless somebody has decided since; return whether it was applied."""
        if self.ended or self.decided != expected:
            return False
        for effect in decision.effects:
            if isinstance(effect, IssueCommand):
                assert effect.command_id not in self.issued, "a command was issued twice"
                self.issued[effect.command_id] = self.open[effect.command_id] = effect
            elif isinstance(effect, SetTimer):
                assert effect.timer_id not in self.set_timers, "a timer was set twice"
                self.set_timers.add(effect.timer_id)
                self.timers[effect.timer_id] = effect
            elif isinstance(effect, CancelCommand):
                self.open.pop(effect.command_id, None)
        nothing_new = len(self.log) == seen
        at = State(execution_id=EXECUTION_ID, catalog_id=CATALOG_ID, path="", version=len(self.log))
        for event in effects_as_events(at, decision, first_event_id=len(self.log) + 1, now=NOW):
            self.append(event)
            if is_terminal_type(event.type):
                self.ended = True
                self.open.clear()
        self.decided = len(self.log) if nothing_new else max(seen, self.decided)
        return True


@dataclass
class Orchestrator:
    """Folds what it is told, decides, commits; each a step of its own."""

    store: Store
    playbook: Playbook
    state: State = field(default_factory=lambda: initial_state(EXECUTION_ID, CATALOG_ID))
    decided: int = 0
    settled: int = 0  # its own decisions' events up to here must be folded before it decides again
    pending: tuple[Decision, int, int, State] | None = None
    snapshot: bytes | None = None

    def deliver(self, event: Event) -> None:
        """Take an event from the stream: old ones change nothing, one that is ahead makes it load."""
        if event.version <= self.state.version + 1:
            self.state = evolve(self.state, event)
        else:
            self.load()

    def load(self) -> None:
        """Read what is missing from the store."""
        self.state = replay(self.state, self.store.log[self.state.version :])
        self.decided = self.store.decided

    def think(self) -> None:
        """Decide about the state as it is known here."""
        if self.state.workflow_event_id is not None and self.state.version >= self.settled:
            decision = decide(self.state, self.playbook, now=NOW)
            assert decision == decide(self.state, self.playbook, now=NOW), "deciding is pure"
            self.pending = (decision, self.decided, self.state.version, self.state)

    def commit(self) -> None:
        """Commit what was decided, however long ago."""
        if self.pending is None:
            return
        decision, expected, seen, state = self.pending
        self.pending = None
        if self.store.commit(decision, expected=expected, seen=seen, state=state):
            self.decided, self.settled = self.store.decided, len(self.store.log)
        else:
            self.load()

    def crash(self) -> None:
        """Forget everything but the snapshot, which is in the database."""
        self.state, self.decided, self.settled, self.pending = initial_state(EXECUTION_ID, CATALOG_ID), 0, 0, None
        if self.snapshot is not None:
            self.state = snapshot_from_json(orjson.loads(self.snapshot))

    def keep(self) -> None:
        """Write a snapshot, and go on with what it says."""
        self.snapshot = orjson.dumps(snapshot_to_json(self.state))
        restored = snapshot_from_json(orjson.loads(self.snapshot))
        assert restored == self.state, "a snapshot is the state"
        self.state = restored


class Cluster:
    """Runs one workflow by one schedule."""

    def __init__(self, flow: Workflow, playbook: Playbook, random: Random) -> None:
        self.flow = flow
        self.random = random
        self.store = Store(playbook)
        self.orchestrators = [Orchestrator(self.store, playbook) for _ in range(2)]
        self._steps: list[tuple[int, Callable[[], None]]] = [
            (6, self._answer),
            (2, self._fire),
            (8, self._deliver),
            (6, lambda: self._one().think()),
            (6, lambda: self._one().commit()),
            (1, lambda: self._one().crash()),
            (1, lambda: self._one().keep()),
            (2, self._repair),
            (1, self._repeat),
        ]

    def run(self) -> None:
        """Let things happen until the execution has ended; at last fairly, so that it can."""
        actions = [action for weight, action in self._steps for _ in range(weight)]
        for _ in range(60):
            self.random.choice(actions)()
        for _ in range(STEPS_MAX):
            if self.store.ended:
                break
            self._answer()
            self._repair()
            if not self.store.open or all(
                self._step_of(command) in self.flow.hangs for command in self.store.open.values()
            ):
                self._fire()
            self._repair()
        assert self.store.ended, "the execution does not end"
        for _ in range(20):  # what comes after the end
            self.random.choice(actions)()

    def _one(self) -> Orchestrator:
        return self.random.choice(self.orchestrators)

    @staticmethod
    def _step_of(command: IssueCommand) -> str:
        return command.step_name.removesuffix(SEQUENCE_SUFFIX)

    # --- what can happen -------------------------------------------------------------------------------------------------

    def _answer(self) -> None:
        """A worker, or the end of a child, reports on one command, in one of the ways in which they do."""
        open_commands = [c for c in self.store.open.values() if self._step_of(c) not in self.flow.hangs]
        if not open_commands:
            return
        command = self.random.choice(open_commands)
        del self.store.open[command.command_id]
        step = self._step_of(command)
        epoch = command.meta["playhead"]["epoch"]
        output, error = self.flow.answer(step, epoch, command.iter_index or 0, command.attempt)
        kinds = ("call.error", "command.failed") if error else ("call.done", "command.completed")
        if command.child is None and self.random.random() < 0.2:
            kinds = kinds[1:]  # a worker of the other line says no more
        for kind in kinds:
            tells = kind.startswith("call.")
            self.store.write(
                kind,
                command.step_name,
                status="FAILED" if error else "COMPLETED",
                context={"response": output} if tells else None,
                result=None if tells else {"status": "FAILED" if error else "COMPLETED", "context": output},
                meta={"playhead": {"child": True}} if command.child is not None else {},
                error=error,
                command_id=command.command_id,
            )

    def _fire(self) -> None:
        """A timer comes due. One for a step whose commands answer comes too late: in time it would be a race."""
        due = [timer for timer in self.store.timers.values() if self._may_fire(timer)]
        if not due:
            return
        timer = self.random.choice(due)
        del self.store.timers[timer.timer_id]
        self.store.write("timer.fired", timer.step_name or "workflow", meta={"purpose": timer.purpose})

    def _may_fire(self, timer: SetTimer) -> bool:
        if timer.purpose.startswith("retry"):
            return True
        return timer.step_name in self.flow.hangs or self.store.ended

    def _deliver(self) -> None:
        """An event reaches an orchestrator: the next one, or any, again or too early."""
        orchestrator = self._one()
        version = orchestrator.state.version
        if self.random.random() < 0.3:
            version = self.random.randrange(len(self.store.log))
        if version < len(self.store.log):
            orchestrator.deliver(self.store.log[version])

    def _repair(self) -> None:
        """The reconciler has somebody look at what nobody has decided."""
        store = self.store
        if store.ended or store.decided >= store.actionable:
            return
        orchestrator = self._one()
        orchestrator.load()
        orchestrator.think()
        orchestrator.commit()

    def _repeat(self) -> None:
        """A worker reports again on a command that has ended, or that nobody knows."""
        ended = [event for event in self.store.log if event.type in ("call.done", "call.error")]
        if ended:
            event = self.random.choice(ended)
            self.store.write(event.type, event.step, context={"response": {"n": "again"}}, command_id=event.command_id)
