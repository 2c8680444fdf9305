"""Given a step with retries or a timeout, when it fails or takes too long, then it is repeated, given up, or ended in time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shared.engine import evolve
from shared.engine.playbook import Retry
from tests.unit.engine.simulation import Simulation, document

NOOP = "tool: {kind: noop}"


def retried(retry: str, *, after: str = "next: {arcs: [{step: b}]}", more: str = "") -> Simulation:
    return Simulation(
        document("{step: a, %s, spec: {retry: {%s}}, %s%s}" % (NOOP, retry, after, more), "{step: b, %s}" % NOOP)
    )


def test_each_attempt_is_a_command_of_its_own_after_a_durable_wait() -> None:
    run = retried("attempts: 3, delay: 5, backoff: fixed")
    first = next(iter(run.open))
    run.do("a", error="boom")
    assert run.open == {}
    assert run.ends() == []
    assert run.waits() == [("retry:1:0:1", timedelta(seconds=5))]
    assert run.decide().effects == (), "nothing more until the timer fires"
    run.fire()
    run.decide()
    second = next(iter(run.open))
    assert second != first
    assert run.commands[second].attempt == 2
    run.do("a", {"ok": True})
    assert run.issued() == ["a", "a", "b"]
    run.do("b")
    assert run.state.status == "COMPLETED"


def test_after_the_last_attempt_the_step_has_failed_and_says_which_it_was() -> None:
    run = retried("attempts: 3, backoff: none")
    for number in (1, 2, 3):
        run.do("a", error=f"boom {number}")
    assert run.issued() == ["a"] * 3
    assert (run.state.status, run.state.error) == ("FAILED", "boom 3")
    result = run.log[-1].result
    assert result is not None
    assert result["context"] == {"step": "a", "attempt": 3, "error": "boom 3"}


@pytest.mark.parametrize(
    ("reason", "retry", "delays"),
    [
        ("exponential is the default", "delay: 1", [1, 2, 4, 8]),
        ("one second is the default", "backoff: fixed", [1, 1, 1, 1]),
        ("fixed", "backoff: fixed, delay: 3", [3, 3, 3, 3]),
        ("linear", "backoff: linear, delay: 3", [3, 6, 9, 12]),
        ("never over max_delay", "delay: 10, max_delay: 25", [10, 20, 25, 25]),
        ("with a unit", "delay: 250ms", [0.25, 0.5, 1, 2]),
    ],
)
def test_the_wait_grows_as_told(reason: str, retry: str, delays: list[float]) -> None:
    run = retried(f"attempts: 5, {retry}")
    for delay in delays:
        run.do("a", error="boom")
        assert [wait for _, wait in run.waits()] == [timedelta(seconds=delay)], reason
        run.fire()
        run.decide()


def test_jitter_spreads_a_wait_by_its_share_and_no_more() -> None:
    retry = Retry(attempts=2, backoff="fixed", delay=100, jitter=0.2)
    assert [retry.delay_after(1, spread) for spread in (-1, 0, 1)] == [80, 100, 120]
    run = retried("attempts: 2, delay: 100, jitter: 0.2")
    run.do("a", error="boom")
    (_, wait), *_ = run.waits()
    assert timedelta(seconds=80) <= wait <= timedelta(seconds=120)
    assert wait != timedelta(seconds=100)


@pytest.mark.parametrize(
    ("reason", "on", "response", "again"),
    [
        ("the condition sees the output", "{{ output.error.retryable }}", {"error": {"retryable": True}}, True),
        ("it does not hold", "{{ output.error.retryable }}", {"error": {"retryable": False}}, False),
        ("it sees the text of the error", "{{ 'boom' in error }}", None, True),
        ("it sees the number of the attempt", "{{ attempt > 1 }}", None, False),
        ("it sees the event", "{{ event.name == 'call.error' }}", None, True),
        ("one that fails does not hold", "{{ 1 / 0 }}", None, False),
    ],
)
def test_only_what_the_condition_names_is_repeated(reason: str, on: str, response: object, again: bool) -> None:
    run = retried(f'attempts: 2, on: "{on}"')
    run.do("a", response, error="boom")
    assert bool(run.timers) is again, reason
    assert (run.state.status == "FAILED") is not again


def test_a_timer_for_what_is_over_changes_nothing() -> None:
    run = retried("attempts: 3, delay: 5", more=", next: {arcs: [{step: a, when: '{{ ctx.again }}'}]}")
    run.do("a", error="boom")
    (timer,) = run.timers.values()
    run.fire()
    run.decide()
    run.do("a", {"ok": True})
    before = run.state
    run.append("timer.fired", "a", meta={"purpose": timer.purpose})
    assert run.state.runs == before.runs
    assert run.decide().effects == ()


def test_a_late_result_of_an_earlier_attempt_changes_nothing() -> None:
    run = retried("attempts: 3, delay: 5")
    first = next(iter(run.open))
    run.do("a", error="boom")
    run.append("call.done", "a", command_id=first, context={"response": {"late": True}})
    assert run.state.runs["a"].status == "running"
    run.fire()
    run.decide()
    run.append("call.done", "a", command_id=first, context={"response": {"late": True}})
    run.decide()
    assert run.state.runs["a"].status == "running"
    assert "a" not in run.state.results


def test_deciding_twice_about_a_failed_attempt_sets_one_timer() -> None:
    run = retried("attempts: 3, delay: 5")
    run.answer("a", error="boom")
    state = run.state
    run.decide()
    effects = [effect for effect in run.decide().effects]
    run.state = state
    again = run.decide()
    assert effects == []
    assert len(run.timers) == 1, "the same id"
    assert [effect.to_json()["timer_id"] for effect in again.effects if effect.to_json()["kind"] == "timer"] == list(
        run.timers
    )


def test_items_of_a_loop_are_repeated_one_by_one() -> None:
    run = Simulation(
        document(
            "{step: a, %s, loop: {in: 3, iterator: i, spec: {mode: parallel}}, spec: {retry: {attempts: 2, delay: 5}}}"
            % NOOP
        )
    )
    run.do("a", error="boom", index=1)
    assert run.waits() == [("retry:1:1:1", timedelta(seconds=5))]
    run.do("a", index=0)
    run.do("a", index=2)
    assert run.ends() == [], "the loop waits for its item"
    run.fire()
    run.decide()
    run.do("a", {"n": 1}, index=1)
    assert run.state.results["a"]["stats"] == {"total": 3, "success": 3, "failed": 0}
    assert run.state.status == "COMPLETED"


def test_a_loop_that_fails_waits_for_no_timers() -> None:
    run = Simulation(
        document(
            "{step: a, %s, loop: {in: 2, iterator: i, spec: {mode: parallel}}, "
            "spec: {retry: {attempts: 2, delay: 5, on: \"{{ 'again' in error }}\"}}}" % NOOP
        )
    )
    run.do("a", error="again", index=0)
    run.do("a", error="never", index=1)
    assert (run.state.status, run.state.error) == ("FAILED", "item 1: never")


# --- time -------------------------------------------------------------------------------------------------------------

TIMED = "{step: a, %s, spec: {timeout: 30}, next: {arcs: [{step: b%s}]}}"


def test_a_step_that_takes_too_long_is_cancelled_and_has_failed() -> None:
    run = Simulation(document(TIMED % (NOOP, ""), "{step: b, %s}" % NOOP))
    assert run.waits() == [("timeout:1", timedelta(seconds=30))]
    late = next(iter(run.open))
    run.fire()
    run.decide()
    assert run.cancelled == ["a"]
    assert (run.state.status, run.state.error) == ("FAILED", "step 'a' took longer than 30 s")
    end = run.state
    run.append("call.done", "a", command_id=late, context={"response": {"late": True}})
    assert evolve(end, run.log[-1]).results == end.results, "a late result changes nothing"


def test_an_arc_can_handle_a_timeout() -> None:
    run = Simulation(document(TIMED % (NOOP, ", when: \"{{ event.name == 'call.error' }}\""), "{step: b, %s}" % NOOP))
    run.fire()
    run.decide()
    assert run.issued() == ["a", "b"]
    run.do("b")
    assert run.state.status == "COMPLETED"


def test_a_step_that_ended_in_time_has_no_timeout() -> None:
    run = Simulation(document(TIMED % (NOOP, ""), "{step: b, %s}" % NOOP))
    run.do("a")
    run.fire("timeout")
    run.decide()
    assert run.issued() == ["a", "b"]
    assert run.state.runs["a"].status == "completed"


def test_the_timeout_of_an_earlier_entry_does_not_end_a_later_one() -> None:
    run = Simulation(
        document(
            "{step: a, %s, spec: {timeout: 30}, set: {ctx.n: '{{ (ctx.n | default(0)) + 1 }}'}, "
            "next: {arcs: [{step: a, when: '{{ ctx.n < 2 }}'}]}}" % NOOP
        )
    )
    run.do("a")
    assert [purpose for purpose, _ in run.waits()] == ["timeout:1", "timeout:2"]
    run.fire("timeout:1")
    run.decide()
    assert run.state.runs["a"].status == "running"


def test_the_timeout_covers_all_attempts_and_all_items() -> None:
    run = Simulation(
        document(
            "{step: a, %s, loop: {in: 5, iterator: i, spec: {mode: parallel, max_in_flight: 2}}, "
            "spec: {timeout: 30, retry: {attempts: 9, delay: 60}}}" % NOOP
        )
    )
    run.do("a", error="boom", index=0)
    run.fire("timeout")
    run.decide()
    assert run.cancelled == ["a"], "an item that waits for its next attempt keeps its place"
    assert run.state.status == "FAILED"


def test_an_execution_that_takes_too_long_ends_as_failed() -> None:
    run = Simulation(document("{step: a, %s}" % NOOP) + "executor: {spec: {timeout: 1h}}\n")
    assert run.waits() == [("execution.timeout", timedelta(hours=1))]
    run.fire()
    run.decide()
    assert run.ends() == ["workflow.failed", "playbook.failed"]
    assert run.state.error == "the execution took longer than 3600 s"
    assert run.decide().effects == ()
