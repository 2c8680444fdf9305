"""Rules of a task's policy, and the moves between tasks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.worker.limits import RETRY_DELAY_SECONDS_MAX, SEQUENCE_RUNS_MAX
from services.worker.policy import (
    ACTIONS,
    Action,
    End,
    Move,
    Place,
    PolicyError,
    action_of,
    choose,
    move,
    rules_of,
)

NAMES = ["a", "b", "c"]


def rules(*given: Any) -> Any:
    return rules_of({"spec": {"policy": {"rules": list(given)}}})


async def holds(condition: Any) -> bool:
    return condition in (True, "yes")


@pytest.mark.parametrize(
    ("given", "failed", "do"),
    [
        ([], False, "continue"),  # no rule: success goes on
        ([], True, "fail"),  # no rule: an error fails
        ([{"when": "yes", "then": {"do": "break"}}, {"when": "yes", "then": {"do": "fail"}}], False, "break"),  # first
        ([{"when": "no", "then": {"do": "break"}}], True, "fail"),  # no match: the default
        ([{"when": True, "then": {"do": "break"}}], False, "break"),  # a condition that is no text
        ([{"then": {"do": "break"}}], False, "break"),  # a rule without a condition
        ([{"when": "no", "then": {"do": "fail"}}, {"else": {"then": {"do": "break"}}}], False, "break"),
        ([{"when": "no", "then": {"do": "fail"}}, {"else": {"do": "break"}}], False, "break"),  # else without then
        ([{"when": "no", "then": {"do": "fail"}, "else": {"do": "break"}}], False, "break"),  # both in one entry
        ([{"when": "yes", "then": {"do": "fail"}, "else": {"do": "break"}}], False, "fail"),
        ([{"else": None, "then": {"do": "break"}}], False, "break"),  # an `else:` whose `then` is not indented enough
    ],
)
async def test_the_first_rule_that_matches_decides(given: list[Any], failed: bool, do: str) -> None:
    then = await choose(rules(*given), holds, failed=failed)
    assert then["do"] == do


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"expr": "x", "then": {"do": "fail"}}, "Use 'when'"),
        ({"then": {"do": "continue", "set_vars": {}}}, "Use 'set'"),
        ({"when": "x"}, "needs `then`"),
        ({"then": {}}, "must have 'do'"),
        ({"else": "break"}, "needs `then`"),
        ({"else": None}, "needs `then`"),
        ("break", "must be a mapping"),
    ],
)
def test_a_malformed_rule_says_what_to_write(rule: Any, says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        rules(rule)


def test_rules_must_be_a_list() -> None:
    with pytest.raises(PolicyError, match="rules"):
        rules_of({"spec": {"policy": {"rules": "x"}}})
    assert rules_of({"spec": {"policy": None}}) == rules_of({}) == ()


@pytest.mark.parametrize(
    ("then", "attempt", "seconds"),
    [
        ({}, 1, 0.0),  # the original's default is no backoff, which waits not at all
        ({"backoff": "none", "delay": 9}, 1, 0.0),
        ({"delay": 2}, 3, 2.0),  # a delay that stands there is meant; the original drops it
        ({"backoff": "fixed", "delay": 2}, 3, 2.0),
        ({"backoff": "whatever", "delay": 2}, 3, 2.0),
        ({"backoff": "linear", "delay": "0.5"}, 3, 1.5),
        ({"backoff": "exponential", "delay": 1}, 4, 8.0),
        ({"backoff": "exponential", "delay": 1, "max_delay": 5}, 4, 5.0),
        ({"backoff": "exponential"}, 1000, RETRY_DELAY_SECONDS_MAX),
        ({"backoff": "fixed"}, 1, 1.0),
    ],
)
def test_delays(then: dict[str, Any], attempt: int, seconds: float) -> None:
    assert action_of({"do": "retry", **then}).delay_after(attempt) == seconds


@pytest.mark.parametrize(
    ("then", "says"),
    [
        ({"do": "stop"}, "unknown policy action 'stop'"),
        ({"do": "retry", "attempts": "many"}, "`attempts`"),
        ({"do": "retry", "attempts": 0}, "`attempts`"),
        ({"do": "retry", "delay": -1}, "`delay`"),
        ({"do": "retry", "delay": "nan"}, "`delay`"),
        ({"do": "retry", "max_delay": "inf"}, "`max_delay`"),
        ({"do": "continue", "set": [1]}, "`set`"),
    ],
)
def test_an_action_that_cannot_be_followed(then: dict[str, Any], says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        action_of(then)


@pytest.mark.parametrize(
    ("place", "action", "failed", "expected"),
    [
        (Place(0), Action(do="continue"), False, Move(Place(1, 1, 2))),
        (Place(0), Action(do="continue"), True, Move(Place(1, 1, 2))),  # an error that the policy accepts
        (Place(2), Action(do="continue"), False, End("ok")),
        (Place(1), Action(do="break"), False, End("break")),
        (Place(1), Action(do="fail"), True, End("failed")),
        (Place(1), Action(do="retry", attempts=2), True, Move(Place(1, 2, 2))),
        (Place(1, 2), Action(do="retry", attempts=2), True, End("failed", None, "ATTEMPTS_EXHAUSTED")),
        (Place(2), Action(do="jump", to="a"), False, Move(Place(0, 1, 2))),
        (Place(1, 3), Action(do="jump", to="b"), False, Move(Place(1, 1, 2))),  # a task entered anew counts anew
        (Place(2), Action(do="jump", to="previous"), False, Move(Place(1, 1, 2))),
        (Place(0), Action(do="jump", to="@previous"), False, Move(Place(0, 1, 2))),
    ],
)
def test_moves(place: Place, action: Action, failed: bool, expected: Move | End) -> None:
    assert move(place, action, NAMES, failed=failed) == expected


def test_ends_that_no_error_explains_say_why() -> None:
    unknown = move(Place(0), Action(do="jump", to="z"), NAMES, failed=False)
    assert isinstance(unknown, End)
    assert "'z'" in str(unknown.reason)
    again = move(Place(0, 3), Action(do="retry", attempts=3), NAMES, failed=False)
    assert isinstance(again, End)
    assert "after 3 attempts" in str(again.reason)
    asked = move(Place(0), Action(do="fail", message="enough"), NAMES, failed=False)
    assert asked == End("failed", "enough")


actions = st.builds(
    Action,
    do=st.sampled_from(ACTIONS),
    to=st.sampled_from([*NAMES, "previous", "nowhere", None]),
    attempts=st.integers(1, 1000),
    backoff=st.sampled_from(["none", "fixed", "linear", "exponential", "?"]),
    delay=st.floats(0, 1e12),
    max_delay=st.floats(0, 1e12),
)


@given(actions, st.integers(1, 10**6))
def test_a_delay_is_bounded(action: Action, attempt: int) -> None:
    assert 0 <= action.delay_after(attempt) <= RETRY_DELAY_SECONDS_MAX


@given(st.lists(st.tuples(actions, st.booleans()), min_size=1, max_size=5), st.integers(1, SEQUENCE_RUNS_MAX))
def test_a_sequence_always_ends(script: list[tuple[Action, bool]], first_runs: int) -> None:
    """Whatever the policies say, for ever, the number of runs grows by one and ends at the limit."""
    place, turn = Place(runs=first_runs), 0
    while True:
        action, failed = script[turn % len(script)]
        then = move(place, action, NAMES, failed=failed)
        if isinstance(then, End):
            assert then.status in ("ok", "break", "failed")
            return
        assert then.place.runs == place.runs + 1 <= SEQUENCE_RUNS_MAX
        assert 0 <= then.place.index < len(NAMES)
        place, turn = then.place, turn + 1
