"""What a task sequence does next: the rules of a task's `spec.policy` and the moves between tasks. Pure.

Rules are those of engine_spec.md section 1.6, as the union of both lines of workers: the first that matches wins, `else` with
and without `then`, a rule with neither `when` nor `else` always matches; without a match success goes on and an error fails.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.worker.limits import (
    RETRY_ATTEMPTS,
    RETRY_ATTEMPTS_MAX,
    RETRY_DELAY_SECONDS,
    RETRY_DELAY_SECONDS_MAX,
    SEQUENCE_RUNS_MAX,
)

ACTIONS = ("continue", "retry", "jump", "break", "fail")
PREVIOUS = frozenset({"previous", "prev", "_previous", "@previous"})
_BACKOFF_DOUBLINGS_MAX = 40  # beyond, the delay is at its limit anyway and the power would overflow


class PolicyError(ValueError):
    """A rule cannot be followed as it is written; the text says which key and what to write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What a rule says to do. `to` names the task to jump to; `delay` and `max_delay` are seconds.

    `set` has variables as written, their values not rendered.
    """

    do: str
    to: str | None = None
    attempts: int = RETRY_ATTEMPTS
    backoff: str = "none"
    delay: float = RETRY_DELAY_SECONDS
    max_delay: float = RETRY_DELAY_SECONDS_MAX
    set: Mapping[str, Any] = field(default_factory=dict)
    message: str | None = None

    def delay_after(self, attempt: int) -> float:
        """Return the seconds to wait after `attempt` (from 1), 0 to `RETRY_DELAY_SECONDS_MAX`."""
        match self.backoff:
            case "none":
                wait = 0.0
            case "linear":
                wait = self.delay * attempt
            case "exponential":
                wait = self.delay * float(2 ** min(attempt - 1, _BACKOFF_DOUBLINGS_MAX))
            case _:  # `fixed`, and what nobody knows: the original's
                wait = self.delay
        return max(min(wait, self.max_delay, RETRY_DELAY_SECONDS_MAX), 0.0)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule; without `when` it always matches. `then` is as written."""

    when: Any
    then: Mapping[str, Any]


def rules_of(task: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Return the rules of a task, in order.

    Raises:
        PolicyError: a rule is malformed, in the original's words where it has some.
    """
    spec = task.get("spec")
    policy = spec.get("policy") if isinstance(spec, Mapping) else None
    if policy is None:
        return ()
    given = policy.get("rules") if isinstance(policy, Mapping) else None
    if not isinstance(given, list):
        raise PolicyError("spec.policy needs `rules`, a list of {when, then}")
    return tuple(rule for index, raw in enumerate(given) for rule in _rules(raw, f"spec.policy.rules[{index}]"))


def _rules(raw: Any, where: str) -> list[Rule]:
    """Return what one entry says: a rule, and a second one that always matches when it has an `else` as well."""
    if not isinstance(raw, Mapping):
        raise PolicyError(f"{where} must be a mapping with `when` and `then`")
    if "expr" in raw:
        raise PolicyError("Policy rule uses 'expr' which is not allowed. Use 'when'.")
    found = [Rule(raw.get("when"), _then(raw["then"], where))] if "then" in raw else []
    if raw.get("else") is not None or (
        "else" in raw and not found
    ):  # `else:` over an indented `then:` is nothing itself
        other = raw["else"]
        found.append(Rule(None, _then(other.get("then", other) if isinstance(other, Mapping) else None, where)))
    return found or [Rule(None, _then(None, where))]


def _then(then: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(then, Mapping):
        raise PolicyError(f"{where} needs `then`: {{do: {' | '.join(ACTIONS)}}}")
    if "set_vars" in then:
        raise PolicyError("Policy rule uses 'set_vars' which is not allowed. Use 'set'.")
    if not then.get("do"):
        raise PolicyError(f"Policy rule 'then' must have 'do' field: one of {', '.join(ACTIONS)} ({where})")
    return then


async def choose(rules: Sequence[Rule], holds: Callable[[Any], Awaitable[bool]], *, failed: bool) -> Mapping[str, Any]:
    """Return the `then` of the first rule that matches; else go on after success, fail after an error."""
    for rule in rules:
        if rule.when is None or await holds(rule.when):
            return rule.then
    return {"do": "fail" if failed else "continue"}


def action_of(then: Mapping[str, Any]) -> Action:
    """Read a `then` whose values (all but `set`) are rendered.

    Raises:
        PolicyError: the action is unknown, or a number is none.
    """
    do = str(then.get("do"))
    if do not in ACTIONS:
        raise PolicyError(f"unknown policy action '{do}'; use one of {', '.join(ACTIONS)}")
    given = then.get("set")
    if given is not None and not isinstance(given, Mapping):
        raise PolicyError("`set` of a policy rule must be a mapping")
    message = then.get("message") or then.get("reason") or then.get("error")
    return Action(
        do=do,
        to=str(then["to"]) if then.get("to") not in (None, "") else None,
        attempts=int(min(_number(then, "attempts", RETRY_ATTEMPTS, least=1), RETRY_ATTEMPTS_MAX)),
        # A delay without a backoff is meant to be waited for; the original waits not at all then.
        backoff=str(then.get("backoff") or ("none" if then.get("delay") is None else "fixed")).lower(),
        delay=_number(then, "delay", RETRY_DELAY_SECONDS),
        max_delay=_number(then, "max_delay", RETRY_DELAY_SECONDS_MAX),
        set=given or {},
        message=str(message) if message else None,
    )


def _number(then: Mapping[str, Any], key: str, default: float, *, least: float = 0.0) -> float:
    given = then.get(key)
    if given is None or given == "":
        return float(default)
    try:
        value = float(given)
    except (TypeError, ValueError):
        value = -1.0
    if not least <= value < float("inf"):
        raise PolicyError(f"`{key}` of a policy rule must be a number of at least {least:g}, not {str(given)[:50]!r}")
    return value


# --- moves ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sequence is: the task that runs, its attempt (from 1), and the runs of all tasks so far, this one included."""

    index: int = 0
    attempt: int = 1
    runs: int = 1


@dataclass(frozen=True, slots=True)
class Move:
    """Run the task at `place`, after `delay` seconds."""

    place: Place
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class End:
    """The sequence is over: `ok`, `break` or `failed`; `reason` is set when no task's error says why."""

    status: str
    reason: str | None = None
    code: str | None = None


def move(place: Place, action: Action, names: Sequence[str], *, failed: bool) -> Move | End:
    """Return what follows the run at `place`. A sequence has at most `SEQUENCE_RUNS_MAX` runs, so it always ends.

    Args:
        place: of the run that is over.
        action: what its policy says.
        names: of the sequence's tasks.
        failed: whether the run failed.
    """
    match action.do:
        case "break":
            return End("break")
        case "fail":
            return End("failed", action.message or (None if failed else f"policy of task '{names[place.index]}': fail"))
        case "retry":
            if place.attempt >= action.attempts:
                reason = None if failed else f"task '{names[place.index]}' was still to be retried"
                return End("failed", reason and f"{reason} after {place.attempt} attempts", "ATTEMPTS_EXHAUSTED")
            target, attempt, delay = place.index, place.attempt + 1, action.delay_after(place.attempt)
        case "jump":
            found = _target(action.to, place.index, names)
            if found is None:
                return End("failed", f"jump to '{action.to}': no task of the sequence has that name", "UNKNOWN_TASK")
            target, attempt, delay = found, 1, 0.0
        case _:
            if place.index + 1 >= len(names):
                return End("ok")
            target, attempt, delay = place.index + 1, 1, 0.0
    if place.runs >= SEQUENCE_RUNS_MAX:
        return End("failed", f"the sequence has run {SEQUENCE_RUNS_MAX} tasks; that is the limit", "TOO_MANY_RUNS")
    return Move(Place(target, attempt, place.runs + 1), delay)


def _target(to: str | None, index: int, names: Sequence[str]) -> int | None:
    if to in names:
        return names.index(str(to))
    return max(index - 1, 0) if to in PREVIOUS else None
