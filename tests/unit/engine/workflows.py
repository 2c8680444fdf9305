"""Workflows as hypothesis makes them: blocks one after the other, and what each command will answer.

Only what is confluent by design is made: a condition looks at its own step's output or at variables that only its own cycle
sets, so that the same steps must run whatever the order of deliveries. `exact` is False where the language itself lets
the order decide which commands are issued (an error that stops others); the end must be the same even then.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import xxhash
from hypothesis import strategies as st


@dataclass(repr=False)
class Workflow:
    """A playbook and its workers.

    Args (fields):
        steps: as in the document.
        hangs: steps whose commands never answer; they have a timeout.
        salt: decides with the command's identity what it answers.
    """

    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    executor: dict[str, Any] = field(default_factory=dict)
    hangs: set[str] = field(default_factory=set)
    failing: dict[str, int] = field(default_factory=dict)  # step: of ten commands so many fail
    exact: bool = True
    salt: int = 0

    def __repr__(self) -> str:
        return f"{self.text()} hangs={self.hangs} failing={self.failing} salt={self.salt} exact={self.exact}"

    def text(self) -> str:
        """Return the document; JSON is YAML."""
        head = {"apiVersion": "noetl.io/v2", "kind": "Playbook", "metadata": {"name": "t", "path": "t/t"}}
        return json.dumps({**head, "executor": {"spec": self.executor}, "workflow": list(self.steps.values())})

    def number(self, *what: object) -> int:
        """Return a number from 0 to 9 that depends on nothing but what it is for."""
        return xxhash.xxh3_64_intdigest(f"{self.salt}:{what}".encode()) % 10

    def answer(self, step: str, epoch: int, index: int, attempt: int) -> tuple[dict[str, Any], str | None]:
        """Return what a command answers: its output, and its error."""
        output = {"n": self.number(step, epoch, index, attempt)}
        failed = self.number("fails", step, epoch, index, attempt) < self.failing.get(step, 0)
        return output, f"boom {step}" if failed else None


_KINDS = (*["noop"] * 6, "none", "sequence", "child", "loop", "loop", "cursor", "skipped")
_CONDITIONS = (
    *[None] * 9,
    "{{ output.data.n >= 0 }}",
    "{{ output.data.n > 3 }}",
    "{{ output.status == 'error' }}",
    "{{ event.name == 'call.done' }}",
    "{{ 1 / 0 }}",
    "{{ false }}",
)


class _Maker:
    """Draws one workflow."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.flow = Workflow(salt=draw(st.integers(0, 1 << 16)))
        if draw(st.integers(0, 2)) == 0:
            self.flow.executor["on_error"] = draw(st.sampled_from(["continue", "fail_fast"]))
        if self.flow.executor.get("on_error") == "fail_fast":
            self.flow.exact = False

    def chance(self, one_in: int) -> bool:
        return self.draw(st.integers(1, one_in)) == 1

    def add(self, *, plain: bool = False) -> str:
        """Add a step of some kind and return its name."""
        name = f"s{len(self.flow.steps)}"
        step: dict[str, Any] = {"step": name, "tool": {"kind": "noop"}}
        self.flow.steps[name] = step
        if plain:
            return name
        kind = self.draw(st.sampled_from(_KINDS))
        if kind == "none":
            del step["tool"]
            return name
        if kind == "sequence":
            step["tool"] = [{"name": "x", "kind": "noop"}]
        elif kind == "child":
            step["tool"] = {"kind": "playbook", "path": "x/y", "wait": True}
        elif kind == "loop":
            self._loop(step)
        elif kind == "cursor":
            spec = {"mode": "cursor", "max_in_flight": self.draw(st.integers(1, 3))}
            step["loop"] = {"iterator": "row", "cursor": {"claim": "SELECT 1"}, "spec": spec}
        elif kind == "skipped":
            step["when"] = "{{ false }}"
        if kind != "cursor" and self.chance(7):
            self._failing(step, kind)
        if self.chance(8):
            step.setdefault("spec", {})["timeout"] = 100
            if self.chance(2) and kind in ("noop", "sequence", "child"):
                self.flow.hangs.add(name)
        return name

    def _loop(self, step: dict[str, Any]) -> None:
        mode = self.draw(st.sampled_from(["sequential", "parallel"]))
        size = self.draw(st.integers(0, 5))
        collection = self.draw(st.sampled_from([size, list(range(size)), json.dumps(list(range(size)))]))
        spec = {"mode": mode, "max_in_flight": self.draw(st.integers(1, 4))}
        step["loop"] = {"in": collection, "iterator": "item", "spec": spec}

    def _failing(self, step: dict[str, Any], kind: str) -> None:
        self.flow.failing[step["step"]] = self.draw(st.integers(1, 10))
        if self.chance(2):
            step["spec"] = {
                "retry": {"attempts": self.draw(st.integers(2, 4)), "delay": self.draw(st.sampled_from([0, 5]))}
            }
            if self.chance(3):
                step["spec"]["retry"]["on"] = "{{ output.data.n > 4 }}"
        if kind == "loop":
            if self.chance(2):
                step["loop"]["spec"]["on_item_error"] = "continue"
            elif step["loop"]["spec"]["mode"] == "parallel":
                self.flow.exact = False  # which items had started when one failed is for the order to say

    def arc(self, source: str, target: str, when: str | None = None, *, first: bool = False) -> None:
        """Add an arc."""
        following = self.flow.steps[source].setdefault("next", {"spec": {"mode": "inclusive"}, "arcs": []})
        arc = {"step": target, **({"when": when} if when else {})}
        following["arcs"].insert(0 if first else len(following["arcs"]), arc)

    def some_condition(self) -> str | None:
        """Return a condition over the own step's output, or none."""
        return self.draw(st.sampled_from(_CONDITIONS))

    # --- blocks: (first step, last step); every step of a block leads to its last ----------------------------------------

    def chain(self) -> tuple[str, str]:
        names = [self.add(plain=not self.flow.steps) for _ in range(self.draw(st.integers(1, 3)))]
        for source, target in pairwise(names):
            self.arc(source, target, self.some_condition())
            if self.chance(4):
                self.arc(source, target, "{{ output.status == 'error' }}")
        return names[0], names[-1]

    def branch(self, depth: int) -> tuple[str, str]:
        """A branch of a diamond: mostly a chain, now and then a diamond or a cycle of its own."""
        if depth < 2 and self.chance(5):
            return self.diamond(depth + 1)
        if self.chance(5):
            return self.around(self.chain())
        return self.chain()

    def diamond(self, depth: int = 0) -> tuple[str, str]:
        first, last = self.add(plain=True), self.add()
        for _ in range(self.draw(st.integers(2, 4))):
            start, end = self.branch(depth)
            self.arc(first, start, self.some_condition())
            self.arc(end, last, self.some_condition())
        if self.chance(3):
            self.flow.steps[first]["next"]["spec"]["mode"] = "exclusive"
        return first, last

    def web(self) -> tuple[str, str]:
        """Arcs forwards from anywhere to anywhere; what has none leads to the last."""
        names = [self.add(plain=not index) for index in range(self.draw(st.integers(3, 7)))]
        for index, name in enumerate(names[:-1]):
            targets = self.draw(st.lists(st.integers(index + 1, len(names) - 1), min_size=1, max_size=3, unique=True))
            for target in targets:
                self.arc(name, names[target], self.some_condition())
        return names[0], names[-1]

    def around(self, block: tuple[str, str]) -> tuple[str, str]:
        """Put a cycle around a block: it runs a bounded number of times."""
        first, last = block
        turn = self.add(plain=True)
        self.arc(last, turn)
        key = f"r{turn}"
        self.flow.steps[turn]["set"] = {f"ctx.{key}": "{{ (ctx.%s | default(0)) + 1 }}" % key}
        out = self.add()
        rounds = self.draw(st.integers(1, 3))
        self.arc(turn, first, "{{ ctx.%s < %d }}" % (key, rounds))
        self.arc(turn, out, "{{ ctx.%s >= %d }}" % (key, rounds))
        return first, out


@st.composite
def workflows(draw: st.DrawFn) -> Workflow:
    """Draw a workflow of one to three blocks, some with a cycle around them, some within others."""
    maker = _Maker(draw)
    last: str | None = None
    for _ in range(draw(st.integers(1, 4))):
        block = draw(st.sampled_from([maker.diamond, maker.web, maker.chain]))()
        if maker.chance(3):
            block = maker.around(block)
        if last is not None:
            maker.arc(last, block[0], maker.some_condition())
        last = block[1]
    maker.flow.executor["entry_step"] = "s0"
    return maker.flow
