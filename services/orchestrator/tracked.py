"""Executions in memory: folded state, and how far they have been decided. Bounded; what is dropped is loaded again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from shared.engine import ACTIONABLE_TYPES, Event, State, VersionGapError, evolve, initial_state, own_meta
from shared.engine.limits import SNAPSHOT_BYTES_PER_EVENT, SNAPSHOT_EVENTS_MIN

# Events that only a decision writes: right behind the decided mark they carry it along, as the API does at the commit.
_DECIDED_TYPES = frozenset(
    {"playbook.initialized", "command.issued", "step.routed", "ctx.updated", "loop.started", "loop.done"}
)
_PASSED_TYPES = frozenset(
    {"step.skipped", "step.exit", "call.error"}
)  # by decisions and by workers; ours carry an epoch
_FIRST_TYPE = "workflow.initialized"  # the start of an execution is decided with it, that of a sub-playbook is not


def _is_decided(event: Event) -> bool:
    if event.type == _FIRST_TYPE:
        return "undecided" not in own_meta(event)
    return event.type in _DECIDED_TYPES or (event.type in _PASSED_TYPES and "epoch" in own_meta(event))


def _is_actionable(event: Event) -> bool:
    return event.type in ACTIONABLE_TYPES or event.type == _FIRST_TYPE


class Tracked:
    """One execution.

    Attributes:
        state: folded up to `state.version`.
        decided: the decided mark as far as known; compare-and-set finds out when it is wrong.
        actionable: version of the newest folded event that may need a decision.
        settled: version up to which our own decisions' events must be folded before the next decision.
        kept_version, kept_bytes: of the newest snapshot that is known.
        shown: the state whose status document the API has; `showing` is that of the decision on its way.
    """

    __slots__ = ("actionable", "decided", "kept_bytes", "kept_version", "settled", "showing", "shown", "state")

    def __init__(self, state: State) -> None:
        self.state = state
        self.kept_version = state.version
        self.kept_bytes = 0
        self.shown: State | None = None
        self.showing: State | None = None
        self.decided = 0
        self.actionable = 0
        self.settled = 0

    @property
    def needs_decision(self) -> bool:
        """Whether something happened that nobody has decided, and everything decided before has been folded."""
        return not self.state.is_terminal and self.actionable > self.decided and self.state.version >= self.settled

    @property
    def needs_snapshot(self) -> bool:
        """Whether so much has happened since the newest snapshot that another one is worth its bytes."""
        size = max(self.kept_bytes, self.state.data_bytes)
        events = max(SNAPSHOT_EVENTS_MIN, size // SNAPSHOT_BYTES_PER_EVENT)
        return not self.state.is_terminal and self.state.version - self.kept_version >= events

    def fold(self, event: Event) -> None:
        """Fold one event.

        Raises:
            VersionGapError: events before it are missing.
        """
        if event.version <= self.state.version:
            return
        self.state = evolve(self.state, event)
        if _is_decided(event):
            if event.version == self.decided + 1:
                self.decided = event.version
        elif _is_actionable(event):
            self.actionable = event.version

    def shows(self, state: State) -> bool:
        """Whether the status document that the API has is also that of `state`; states share what did not change."""
        shown = self.shown
        return (
            shown is not None
            and shown.results is state.results
            and shown.variables is state.variables
            and shown.completed_steps is state.completed_steps
            and shown.current_step == state.current_step
            and bool(shown.failures) == bool(state.failures)
            and shown.status == state.status
        )

    def committed(self, *, decided: int, stream: int) -> None:
        """Take over the marks of a committed decision."""
        self.decided = decided
        self.settled = stream
        self.shown = self.showing


class TrackedExecutions:
    """At most `size_max` executions, the least recently used dropped first."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._items: OrderedDict[int, Tracked] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, execution_id: int) -> Tracked | None:
        """Return an execution and mark it as used."""
        found = self._items.get(execution_id)
        if found is not None:
            self._items.move_to_end(execution_id)
        return found

    def put(self, execution_id: int, tracked: Tracked) -> None:
        """Keep an execution."""
        self._items[execution_id] = tracked
        self._items.move_to_end(execution_id)
        while len(self._items) > self._size_max:
            self._items.popitem(last=False)

    def drop(self, execution_id: int) -> None:
        """Forget an execution."""
        self._items.pop(execution_id, None)

    def receive(self, execution_id: int, envelopes: Iterable[Mapping[str, Any]]) -> bool:
        """Fold what arrived for one execution; return False when the API has to fill a gap.

        Raises:
            ValueError: an envelope is no event.
        """
        ordered = sorted(envelopes, key=lambda item: int(item["stream_version"]))
        tracked = self.get(execution_id)
        if tracked is None:
            if int(ordered[0]["stream_version"]) != 1:
                return all(not _is_actionable(Event.from_envelope(item)) for item in ordered)
            tracked = Tracked(initial_state(execution_id, int(ordered[0]["catalog_id"])))
            self.put(execution_id, tracked)
        for item in ordered:
            if item.get("elided") and int(item["stream_version"]) > tracked.state.version:
                return False
            try:
                tracked.fold(Event.from_envelope(item))
            except VersionGapError:
                return False
        return True
