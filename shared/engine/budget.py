"""What templates may use: steps, values and `range()` items of one rendering, and of all renderings of a decision.

A step is a round of a loop, a part of a call, an item that a filter walks over; a value is a member of what is made into text
or a result. Whoever exhausts a budget gets a `TemplateError`; nothing runs or grows without end. No clock is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from shared.engine.limits import (
    DECISION_TEMPLATE_RATIO_MAX,
    TEMPLATE_LOOP_STEPS_MAX,
    TEMPLATE_OUTPUT_CHARS_MAX,
    TEMPLATE_RANGE_MAX,
    TEMPLATE_VALUES_MAX,
    VALUE_DEPTH_MAX,
)

_TOGETHER = f", or all templates of the decision {DECISION_TEMPLATE_RATIO_MAX} times that"
CHARS_PER_STEP = 64  # work on text counts as one step per so many characters
_HOLDERS = (Mapping, list, tuple, set, frozenset)


class TemplateError(ValueError):
    """A template is malformed or cannot be evaluated; the text names the template and the reason."""


class UnusableError(TemplateError):
    """What a template needs is not there; unlike any other failure, a condition must not take it for false."""


@dataclass(slots=True)
class Budget:
    """What one rendering may still use."""

    steps: int = TEMPLATE_LOOP_STEPS_MAX
    values: int = TEMPLATE_VALUES_MAX
    range_items: int = TEMPLATE_RANGE_MAX


@dataclass(slots=True)
class Watch:
    """What one decision's templates looked up in vain; with `strict` the first of it is an error.

    `seed` makes the filter `random` give the same for the same decision; `left` is what all its templates may still use.
    """

    strict: bool = False
    seed: str = ""
    missed: list[str] = field(default_factory=list)
    left: Budget = field(
        default_factory=lambda: Budget(
            steps=TEMPLATE_LOOP_STEPS_MAX * DECISION_TEMPLATE_RATIO_MAX,
            values=TEMPLATE_VALUES_MAX * DECISION_TEMPLATE_RATIO_MAX,
        )
    )


budget: ContextVar[Budget | None] = ContextVar("budget", default=None)
watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


def is_half_spent() -> bool:
    """Whether the templates of the decision have used more than half of what they may: what can wait, should."""
    watching = watch.get()
    if watching is None:
        return False
    whole = Watch().left
    return watching.left.steps * 2 < whole.steps or watching.left.values * 2 < whole.values


@contextmanager
def budgeted() -> Iterator[None]:
    """Give one rendering its budget, out of what the decision has left."""
    watching = watch.get()
    own = Budget()
    if watching is not None:
        own.steps = min(own.steps, watching.left.steps)
        own.values = min(own.values, watching.left.values)
    steps, values = own.steps, own.values
    token = budget.set(own)
    try:
        yield
    finally:
        budget.reset(token)
        if watching is not None:
            watching.left.steps -= steps - own.steps
            watching.left.values -= values - own.values


def refuse(reason: str) -> TemplateError:
    """Return the error of a template that exceeds a bound."""
    return TemplateError(reason)


def missed(name: str) -> None:
    """Note that a template used what is not defined.

    Raises:
        UnusableError: what is not defined is an error here.
    """
    watching = watch.get()
    if watching is None:
        return
    watching.missed.append(name)
    if watching.strict:
        raise UnusableError(f"'{name}' is undefined")


def spend(steps: int) -> None:
    """Take steps from the budget of the rendering.

    Raises:
        TemplateError: it is used up.
    """
    left = budget.get()
    if left is None:
        return
    left.steps -= steps
    if left.steps < 0:
        raise refuse(f"takes more than {TEMPLATE_LOOP_STEPS_MAX} rounds of loops and calls{_TOGETHER}")


def spend_values(value: Any) -> None:
    """Take the members of `value`, at every depth, from the budget: few lists that hold each other stand for very many.

    Raises:
        TemplateError: it is used up, or `value` is nested too deeply.
    """
    left = budget.get() or Budget()
    stack = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, Mapping):
            members: Any = item.values()
        elif isinstance(item, _HOLDERS):
            members = item
        else:
            continue
        if depth > VALUE_DEPTH_MAX:
            raise refuse(f"a value is nested at most {VALUE_DEPTH_MAX} deep")
        left.values -= len(members)
        if left.values < 0:
            raise refuse(f"makes more than {TEMPLATE_VALUES_MAX} values{_TOGETHER}")
        stack.extend((member, depth + 1) for member in members if isinstance(member, _HOLDERS))


def bound_text(chars: int) -> None:
    """Refuse to make text that is too long.

    Raises:
        TemplateError: it would be.
    """
    if chars > TEMPLATE_OUTPUT_CHARS_MAX:
        raise refuse(f"makes more than {TEMPLATE_OUTPUT_CHARS_MAX} characters")
    spend(chars // CHARS_PER_STEP)
