"""A validated playbook: what the engine runs. Made by `parse_playbook`; immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Mode = Literal["exclusive", "inclusive"]
OnError = Literal["stop", "continue", "fail_fast"]


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
class Step:
    """A step; `tool` is None when it does nothing but route."""

    name: str
    tool_kind: str | None = None
    tool: Mapping[str, Any] = field(default_factory=dict)
    input: Mapping[str, Any] = field(default_factory=dict)
    when: str | None = None
    set: Mapping[str, Any] = field(default_factory=dict)
    mode: Mode = "exclusive"
    arcs: tuple[Arc, ...] = ()
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Playbook:
    """A playbook. `reach[x]` has every step that can still come after `x`, cycles cut where they close.

    `on_error` says what an error nobody handles does: end its branch (`stop`), go on over unconditional arcs (`continue`), or
    end the execution at once (`fail_fast`). The execution ends as failed each time.
    """

    name: str
    path: str
    kind: str
    workload: Mapping[str, Any]
    steps: Mapping[str, Step]
    entry: str
    reach: Mapping[str, frozenset[str]]
    upstream_counts: Mapping[str, int]
    on_error: OnError = "stop"

    def may_reach(self, source: str, target: str) -> bool:
        """Return whether a run of `source` may still lead to `target`, not counting ways that close a cycle."""
        return target in self.reach.get(source, frozenset())


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


def reachability(steps: Mapping[str, Step], entry: str) -> tuple[dict[str, frozenset[str]], dict[str, int]]:
    """Return what each step reaches over forward edges, and how many steps lead to each."""
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
    reach: dict[str, frozenset[str]] = {}
    for name in reversed(order):
        found: set[str] = set()
        for target in edges[name]:
            found.add(target)
            found |= reach[target]
        reach[name] = frozenset(found)
    return reach, upstream
