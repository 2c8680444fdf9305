"""Executions that together do everything the table of transitions has: recorded as histories, and watched event by event."""

from __future__ import annotations

from collections.abc import Callable

from tests.unit.engine.simulation import Simulation, document

NOOP = "tool: {kind: noop}"
SEES = "when: \"{{ event.name == 'call.error' }}\""
AGAIN = "a, when: '{{ output.data.again }}'"


def step(name: str, *arcs: str, more: str = "", tool: str = NOOP) -> str:
    """Return a step that takes all arcs that hold."""
    given = ", ".join("{step: %s}" % arc for arc in arcs)
    return "{step: %s, %s%s, next: {spec: {mode: inclusive}, arcs: [%s]}}" % (name, tool, more, given)


def executor(spec: str) -> str:
    return "executor: {spec: {%s}}\n" % spec


def linear() -> Simulation:
    run = Simulation(
        document(step("a", "b, set: {ctx.x: '{{ output.data.n }}'}"), step("b", more=", set: {ctx.u.v: 1}"))
    )
    run.do("a", {"n": 1})
    run.do("b", {"n": 2})
    return run


def join() -> Simulation:
    run = Simulation(document(step("a", "b", "c"), step("b", "d"), step("c", "d"), step("d")))
    run.do("a")
    run.do("c", {"n": 3})
    run.do("b", {"n": 2})
    run.do("d")
    return run


def skipped() -> Simulation:
    steps = (step("a", "b", "c"), step("b", "d"), step("c", "d", more=", when: '{{ false }}'"), step("d"))
    run = Simulation(document(*steps))
    run.do("a")
    run.do("b")
    run.do("d")
    return run


def without_tools() -> Simulation:
    run = Simulation(document("{step: a, next: b}", step("b", "c"), "{step: c}"))
    run.do("b")
    return run


def first_skipped() -> Simulation:
    return Simulation(document(step("a", "b", more=", when: '{{ false }}'"), step("b")))


def first_broken() -> Simulation:
    return Simulation(document(step("a", more=", input: {v: '{{ 1 / 0 }}'}")))


def self_arc() -> Simulation:
    run = Simulation(document(step("a", AGAIN)))
    run.do("a", {"again": True})
    run.do("a")
    return run


def loop_after() -> Simulation:
    run = Simulation(document(step("a", "l"), step("l", more=", loop: {in: 1, iterator: i}")))
    run.do("a")
    run.do("l")
    return run


def cycle() -> Simulation:
    run = Simulation(document(step("a", "b"), step("b", AGAIN)))
    run.do("a")
    run.do("b", {"again": True})
    run.do("a")
    run.do("b")
    return run


def cycle_of_a_join() -> Simulation:
    """A step is selected again while a branch that leads to it still runs."""
    run = Simulation(document(step("s", "a", "x"), step("x", "a"), step("a", AGAIN)))
    run.do("s")
    run.do("x")
    run.do("a", {"again": True})
    run.do("a")
    return run


def waits_for_itself() -> Simulation:
    run = Simulation(document(step("s", "a", "x"), step("a", "b"), step("x", "b"), step("b", "b, when: '{{ false }}'")))
    run.do("s")
    run.do("a")
    run.do("x")
    run.do("b")
    return run


def unhandled() -> Simulation:
    run = Simulation(document(step("a", "b", "c"), step("b", "d"), step("c"), step("d")))
    run.do("a")
    run.do("b", {"status": "error", "error": {"kind": "disk"}}, error="boom")
    run.do("c")
    return run


def handled() -> Simulation:
    run = Simulation(document(step("a", f"b, {SEES}"), step("b")))
    run.do("a", error="boom")
    run.do("b")
    return run


def failed_on() -> Simulation:
    run = Simulation(document(step("a", "b"), step("b")) + executor("on_error: continue"))
    run.do("a", error="boom")
    run.do("b")
    return run


def fail_fast() -> Simulation:
    run = Simulation(document(step("a", "b", "c"), step("b"), step("c")) + executor("on_error: fail_fast"))
    run.do("a")
    run.do("b", error="boom")
    return run


def broken_templates() -> Simulation:
    arcs = "b, when: '{{ 1 / 0 }}'", "c"
    run = Simulation(
        document(step("a", *arcs), step("b"), step("c", more=", input: {v: '{{ 1 / a.n }}', w: '{{ nowhere }}'}"))
    )
    run.do("a", {"n": 0})
    return run


def output_that_is_an_error() -> Simulation:
    run = Simulation(document(step("a")))
    run.do("a", {"status": "failed", "error": "no disk"})
    return run


def other_events() -> Simulation:
    """Ends told by other events than those of a worker of ours."""
    kinds = ("command.completed", "command.failed", "command.cancelled", "child.terminated", "child.terminated")
    names = "bcdef"
    run = Simulation(document(step("a", *names), *(step(name) for name in names)))
    run.do("a")
    for name, kind, status in zip(names, kinds, ("", "", "", "COMPLETED", "FAILED"), strict=True):
        command = next(key for key, open_step in run.open.items() if open_step == name)
        del run.open[command]
        run.append(kind, name, command_id=command, status=status)
        run.decide()
    return run


def retried() -> Simulation:
    retry = ", spec: {retry: {attempts: 3, delay: 5, backoff: fixed, on: \"{{ 'again' in error }}\"}}"
    run = Simulation(document(step("a", f"b, {SEES}", more=retry), step("b")))
    run.do("a", error="again")
    run.fire()
    run.decide()
    run.do("a", error="not any more")
    run.do("b")
    return run


def retried_at_once() -> Simulation:
    run = Simulation(document(step("a", more=", spec: {retry: {attempts: 2, backoff: none}}")))
    run.do("a", error="boom")
    run.do("a", {"ok": True})
    return run


def out_of_time() -> Simulation:
    run = Simulation(document(step("a", f"b, {SEES}", more=", spec: {timeout: 30}"), step("b")))
    run.fire()
    run.decide()
    run.do("b")
    return run


def execution_out_of_time() -> Simulation:
    run = Simulation(document(step("a")) + executor("timeout: 60"))
    run.fire()
    run.decide()
    return run


def looped(spec: str, *, size: object = 3, more: str = "", tool: str = NOOP) -> Simulation:
    loop = ", loop: {in: %s, iterator: i, spec: {%s}}%s" % (size, spec, more)
    return Simulation(document(step("l", "z", more=loop, tool=tool), step("z")))


def loop_sequential() -> Simulation:
    run = looped("mode: sequential")
    run.run(lambda _: {"ok": True})
    return run


def loop_parallel() -> Simulation:
    run = looped("mode: parallel, max_in_flight: 2", size="[x, y, {z: 1}]")
    run.do("l", {"at": 1}, index=1)
    run.do("l", {"at": 2}, index=2)
    run.do("l", {"at": 0}, index=0)
    run.do("z")
    return run


def loop_empty() -> Simulation:
    run = looped("mode: parallel", size="[]")
    run.do("z")
    return run


def loop_failing() -> Simulation:
    run = looped("mode: parallel, max_in_flight: 2", size=5)
    run.do("l", error="boom", index=0)
    run.do("l", index=1)
    return run


def loop_going_on() -> Simulation:
    run = looped(
        "mode: parallel, on_item_error: continue", size="[1, 0]", tool="tool: {kind: noop, input: {v: '{{ 1 // i }}'}}"
    )
    run.do("l", {"ok": 1})
    run.do("z")
    return run


def loop_retried() -> Simulation:
    retry = ", spec: {retry: {attempts: 2, delay: 5, on: \"{{ 'again' in error }}\"}}"
    run = looped("mode: parallel", size=2, more=retry)
    run.do("l", error="again", index=0)
    run.do("l", error="never", index=1)
    return run


def cursor() -> Simulation:
    loop = ", loop: {iterator: row, cursor: {auth: pg, claim: SELECT 1}, spec: {mode: cursor, max_in_flight: 2}}"
    run = Simulation(document(step("l", "z", more=loop), step("z")))
    run.do("l:task_sequence", {"processed": 2, "failed": 0})
    run.do("l:task_sequence", {"processed": 1, "failed": 1})
    run.do("z")
    return run


def sequence() -> Simulation:
    run = Simulation(document(step("a", "b", tool="tool: [{name: x, kind: noop}, {name: y, kind: noop}]"), step("b")))
    tasks = {"x": {"n": 1}, "y": {"n": 2}}
    run.do("a:task_sequence", {"_prev": {"n": 2}, "results": tasks, "metrics": {}, "ctx": {"ctx.page": 3}})
    run.do("b")
    return run


def child() -> Simulation:
    run = Simulation(document(step("a", tool="tool: {kind: playbook, path: x/y, wait: true}")))
    run.do("a", {"n": 1})
    return run


def cancelled() -> Simulation:
    run = Simulation(document(step("a", "b"), step("b")))
    run.do("a")
    run.append("execution.cancelled", "cancel", status="CANCELLED", meta={"reason": "enough"})
    run.answer("b", {"late": True})
    run.decide()
    return run


def by_reference() -> Simulation:
    run = Simulation(document(step("a", "b"), step("b", more=", input: {n: '{{ a.n }}'}")))
    result = {"status": "COMPLETED", "context": {"n": 1}, "reference": {"locator": "noetl://big", "bytes": 10**7}}
    run.append("call.done", "a", command_id=next(iter(run.open)), result=result)
    run.open.clear()
    run.decide()
    run.do("b")
    return run


SCENARIOS: dict[str, Callable[[], Simulation]] = {
    function.__name__: function
    for function in (
        linear, join, skipped, without_tools, first_skipped, first_broken, self_arc, loop_after, cycle,
        cycle_of_a_join, waits_for_itself, unhandled, handled, failed_on, fail_fast, broken_templates,
        output_that_is_an_error, other_events, retried, retried_at_once, out_of_time, execution_out_of_time,
        loop_sequential, loop_parallel, loop_empty, loop_failing, loop_going_on, loop_retried, cursor, sequence,
        child, cancelled, by_reference,
    )
}  # fmt: skip
