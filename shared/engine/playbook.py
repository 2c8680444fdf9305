"""A validated playbook: what the engine runs. Made by `parse_playbook`; immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Mode = Literal["exclusive", "inclusive"]
LoopMode = Literal["sequential", "parallel", "cursor"]
OnError = Literal["stop", "continue", "fail_fast"]
Backoff = Literal["none", "fixed", "linear", "exponential"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arc:
    """A way from one step to another; `target` is None for an `end` that is no step.

    `sees_errors`: its condition looks at the event or the output of the step, so it can handle an error.
    """

    target: str | None
    when: str | None = None
    set: Mapping[str, Any] = field(default_factory=dict)
    sees_errors: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A loop over a collection, or over the rows that a cursor claims.

    Args (fields):
        collection: what is looped over, as written: a template, a list, a mapping, a number or nothing.
        max_in_flight: items at once as written, a number or a template; None: the default of the mode.
        cursor: of mode `cursor`: kind, auth, claim, options.
        frame: of mode `cursor`: max_rows, process, row_concurrency, ...
    """

    iterator: str
    collection: Any = None
    mode: LoopMode = "sequential"
    max_in_flight: Any = None
    cursor: Mapping[str, Any] | None = None
    frame: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When a failed command of a step is repeated; delays in seconds, `jitter` as a share of the delay (0..1)."""

    attempts: int
    backoff: Backoff = "exponential"
    delay: float = 1.0
    max_delay: float = 300.0
    jitter: float = 0.0
    on: str | None = None

    def delay_after(self, attempt: int, spread: float) -> float:
        """Return the seconds to wait after `attempt` (from 1) failed; `spread` is a number from -1 to 1."""
        match self.backoff:
            case "none":
                delay = 0.0
            case "fixed":
                delay = self.delay
            case "linear":
                delay = self.delay * attempt
            case _:
                delay = self.delay * float(2 ** min(attempt - 1, 40))
        return max(min(delay, self.max_delay) * (1 + self.jitter * spread), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmitRule:
    """A rule of `spec.policy.admit`; without `when` it always matches."""

    when: str | None
    allow: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """A step, equal to itself alone, so that what follows from it can be kept.

    `tool_kind` is None when it does nothing but route, `task_sequence` when it has `tasks`.

    `mentions` has every word of the tool and its input: names that the worker may look up are among them.
    """

    name: str
    tool_kind: str | None = None
    tool: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[Mapping[str, Any], ...] = ()
    input: Mapping[str, Any] = field(default_factory=dict)
    when: str | None = None
    admit: tuple[AdmitRule, ...] = ()
    set: Mapping[str, Any] = field(default_factory=dict)
    mode: Mode = "exclusive"
    arcs: tuple[Arc, ...] = ()
    loop: Loop | None = None
    retry: Retry | None = None
    timeout_seconds: float | None = None
    continue_on_item_error: bool = False
    pool: str | None = None
    mentions: frozenset[str] = frozenset()
    line: int = 0

    @property
    def is_child(self) -> bool:
        """Whether the step runs another playbook."""
        return self.tool_kind in ("playbook", "playbooks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Playbook:
    """A playbook. `reach[x]` has a bit, of `bits`, for every step that may come after `x`; cycles are cut where they close.

    `on_error` says what an error nobody handles does: end its branch (`stop`), go on over unconditional arcs (`continue`), or
    end the execution at once (`fail_fast`). The execution ends as failed each time.
    """

    name: str
    path: str
    kind: str
    workload: Mapping[str, Any]
    steps: Mapping[str, Step]
    entry: str
    reach: Mapping[str, int]
    bits: Mapping[str, int]
    upstream_counts: Mapping[str, int]
    on_error: OnError = "stop"
    timeout_seconds: float | None = None
    strict: bool = False
    pool: str | None = None

    def may_reach(self, source: str, target: str) -> bool:
        """Return whether a run of `source` may still lead to `target`, not counting ways that close a cycle."""
        return bool(self.reach.get(source, 0) & self.bits.get(target, 0))


def forward_edges(steps: Mapping[str, Step], entry: str) -> dict[str, list[str]]:
    """Return each step's targets without the edges that close a cycle, found depth first from `entry`."""
    edges: dict[str, list[str]] = {name: [] for name in steps}
    seen: dict[str, int] = {}  # 1 = on the way, 2 = done
    for root in (entry, *steps):
        if root in seen:
            continue
        seen[root] = 1
        stack = [(root, iter(steps[root].arcs))]
        while stack:
            name, arcs = stack[-1]
            arc = next(arcs, None)
            if arc is None:
                seen[name] = 2
                stack.pop()
            elif arc.target is not None and seen.get(arc.target) != 1:
                if arc.target not in edges[name]:
                    edges[name].append(arc.target)
                if arc.target not in seen:
                    seen[arc.target] = 1
                    stack.append((arc.target, iter(steps[arc.target].arcs)))
    return edges


def bits_of(steps: Mapping[str, Step]) -> dict[str, int]:
    """Return a bit for each step: sets of steps are integers, since a thousand sets of a thousand names would take 20 MB."""
    return {name: 1 << number for number, name in enumerate(steps)}


def reachability(steps: Mapping[str, Step], entry: str) -> tuple[dict[str, int], dict[str, int]]:
    """Return what each step reaches over forward edges, as bits, and how many steps lead to each."""
    bits = bits_of(steps)
    edges = forward_edges(steps, entry)
    upstream = dict.fromkeys(steps, 0)
    for targets in edges.values():
        for target in targets:
            upstream[target] += 1
    waiting = dict(upstream)
    order = [name for name, count in waiting.items() if count == 0]
    for name in order:  # grows while it is walked: a topological order
        for target in edges[name]:
            waiting[target] -= 1
            if waiting[target] == 0:
                order.append(target)
    reach: dict[str, int] = {}
    for name in reversed(order):
        found = 0
        for target in edges[name]:
            found |= bits[target] | reach[target]
        reach[name] = found
    return reach, upstream


def trapped(steps: Mapping[str, Step]) -> list[tuple[str, ...]]:
    """Return cycles that an execution cannot leave: each step's only way is an unconditional arc to the next."""
    only: dict[str, str] = {}
    for name, step in steps.items():
        targets = {arc.target for arc in step.arcs}
        if len(targets) == 1 and all(arc.when is None for arc in step.arcs) and step.when is None and not step.admit:
            (target,) = targets
            if target is not None:
                only[name] = target
    cycles: list[tuple[str, ...]] = []
    seen: set[str] = set()
    for start in only:
        way: list[str] = []
        name = start
        while name in only and name not in seen:
            seen.add(name)
            way.append(name)
            name = only[name]
        if name in way:
            cycles.append(tuple(way[way.index(name) :]))
    return cycles
