"""How the state changes: the functions that both folding an event and planning a decision use, so that they cannot differ.

Constant amortised work each: maps that grow with the number of commands or items are persistent, and nothing walks them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rpds import HashTrieMap

from shared.engine.copying import replace
from shared.engine.foreign import RUST_LOOP
from shared.engine.jsontext import size_of
from shared.engine.limits import LOOP_RESULTS_BYTES_MAX
from shared.engine.outcome import failed_output, nested
from shared.engine.references import as_result, result_ref
from shared.engine.state import Attempt, Event, LoopState, State, StepRun

ROUTING_KEY = "playhead"  # key in `meta` of decided events: {"epoch": n, "routed": [record ..], ...}
EXECUTION_TIMEOUT = "execution.timeout"


def own_meta(event: Event) -> Mapping[str, Any]:
    """Return what our own decision left in an event's meta."""
    found = event.meta.get(ROUTING_KEY)
    return found if isinstance(found, Mapping) else {}


def integer(value: object, default: int) -> int:
    """Return `value` when it is an integer, else `default`."""
    return value if isinstance(value, int) else default


# --- entering ---------------------------------------------------------------------------------------------------------


def fold_command(
    state: State, step: str, *, epoch: int, index: int, attempt: int, attempts_max: int, command_id: int, version: int
) -> State:
    """A command of (step, epoch, index) is on its way; the first of an epoch enters the step."""
    run = state.runs.get(step)
    if run is None or run.epoch < epoch:
        run = StepRun(step=step, epoch=epoch, status="running", attempts_max=attempts_max, entered_version=version)
        state = fold_entry(state, run)
    elif run.epoch > epoch or run.status != "running":
        return state
    loop = run.loop
    if loop is not None and index >= loop.next_index:
        loop = replace(loop, next_index=index + 1)
    run = replace(
        run,
        attempts=run.attempts.insert(index, Attempt(index=index, number=attempt, command_id=command_id)),
        loop=loop,
    )
    return replace(
        state,
        runs={**state.runs, step: run},
        open=state.open.insert(command_id, (step, index)),
        current_step=step,
    )


def fold_entry(state: State, run: StepRun) -> State:
    """Enter a step: it no longer waits and its newest run is `run`."""
    waiting = state.waiting
    if run.step in waiting:
        waiting = {name: sources for name, sources in waiting.items() if name != run.step}
    return replace(state, runs={**state.runs, run.step: run}, waiting=waiting, current_step=run.step)


def fold_passed(state: State, step: str, epoch: int, event: Event) -> State:
    """A step without a command is over: it was skipped, or has no tool."""
    skipped = event.type == "step.skipped"
    run = StepRun(
        step=step,
        epoch=epoch,
        status="skipped" if skipped else "completed",
        entered_version=event.version,
        ended_version=event.version,
        ended_event_id=event.event_id or None,
        outcome_type=event.type,
    )
    state = fold_entry(state, run)
    state = replace(state, unrouted=(*state.unrouted, step))
    return state if skipped else replace(state, completed_steps=_with(state.completed_steps, step))


# --- records ----------------------------------------------------------------------------------------------------------


def fold_record(state: State, record: Mapping[str, Any]) -> State:
    """Apply what a decision noted: a routing record, or what it made of a failed attempt."""
    match record.get("kind"):
        case "retry":
            return _retry(state, record)
        case "gave_up":
            return _gave_up(state, record)
        case _:
            return _routed(state, record)


def _routed(state: State, record: Mapping[str, Any]) -> State:
    """The arcs of a run have been walked: `{step, epoch, targets, set, handled, error?}`."""
    step = str(record.get("step", ""))
    run = state.runs.get(step)
    if run is None or run.epoch != record.get("epoch") or run.routed:
        return state
    handled = bool(record.get("handled"))
    waiting = state.waiting
    if record.get("targets"):
        waiting = dict(waiting)
        for target in record["targets"]:
            waiting[target] = _with(waiting.get(target, ()), step)
    failures = state.failures
    if run.status == "failed" and not handled:
        failures = (*failures, (step, run.error or "failed"))
    if record.get("error"):
        failures = (*failures, (step, str(record["error"])))
    state = replace(
        state,
        runs={**state.runs, step: replace(run, routed=True, handled=handled)},
        unrouted=tuple(name for name in state.unrouted if name != step),
        waiting=waiting,
        failures=failures,
    )
    return fold_variables(state, record.get("set") or {})


def fold_variables(state: State, values: Mapping[str, Any]) -> State:
    """Set variables; a key such as `a.b` sets a member of `a`."""
    if not values:
        return state
    values = nested(values, state.variables, state.workload)
    sizes, total = state.sizes, state.data_bytes
    for name, value in values.items():
        key, size = f"v:{name}", size_of(value)
        total += size - (sizes.get(key) or 0)
        sizes = sizes.insert(key, size)
    return replace(state, variables={**state.variables, **values}, sizes=sizes, data_bytes=total)


def _attempt_of(state: State, record: Mapping[str, Any]) -> tuple[StepRun, Attempt] | None:
    run = state.runs.get(str(record.get("step", "")))
    if run is None or run.epoch != record.get("epoch") or run.status != "running":
        return None
    attempt = run.attempts.get(integer(record.get("index"), 0))
    return None if attempt is None or attempt.number != record.get("attempt") else (run, attempt)


def _retry(state: State, record: Mapping[str, Any]) -> State:
    """A failed attempt is repeated when its timer fires."""
    found = _attempt_of(state, record)
    if found is None or found[1].status != "failed":
        return state
    return with_attempt(state, found[0], replace(found[1], status="waiting", command_id=None))


def _gave_up(state: State, record: Mapping[str, Any]) -> State:
    """A failed attempt is not repeated: its item has failed."""
    found = _attempt_of(state, record)
    if found is None or found[1].status != "failed":
        return state
    run, attempt = found
    run = replace(run, attempt=attempt.number)
    return settle(state, run, attempt.index, response=attempt.response, error=attempt.error or "failed", event=None)


def with_attempt(state: State, run: StepRun, attempt: Attempt) -> State:
    """Put in the newest attempt of an item."""
    run = replace(run, attempts=run.attempts.insert(attempt.index, attempt))
    return replace(state, runs={**state.runs, run.step: run})


def _with(items: tuple[str, ...], item: str) -> tuple[str, ...]:
    return items if item in items else (*items, item)


def retry_purpose(epoch: int, index: int, attempt: int) -> str:
    """Return what a timer is for that repeats an attempt."""
    return f"retry:{epoch}:{index}:{attempt}"


def timeout_purpose(epoch: int) -> str:
    """Return what a timer is for that ends a step."""
    return f"timeout:{epoch}"


# --- ends -------------------------------------------------------------------------------------------------------------


def fold_own_end(state: State, step: str, own: Mapping[str, Any], error: str, event: Event | None) -> State:
    """An item (`own` has its `index`) or a whole step has failed by our own decision."""
    run = state.runs.get(step)
    epoch = int(own["epoch"])
    if run is None or run.epoch < epoch:
        version = event.version if event is not None else state.version
        run = StepRun(step=step, epoch=epoch, status="running", entered_version=version)
        state = fold_entry(state, run)
    if run.epoch != epoch or run.status != "running":
        return state
    response = {"status": "error", "error": error}
    if "index" in own and run.loop is not None:
        return settle(state, run, int(own["index"]), response=response, error=error, event=event)
    opened = state.open
    for attempt in run.attempts.values():
        if attempt.command_id is not None and attempt.command_id in opened:
            opened = opened.remove(attempt.command_id)
    return end_run(replace(state, open=opened), run, response=response, error=error, event=event)


def settle(state: State, run: StepRun, index: int, *, response: Any, error: str | None, event: Event | None) -> State:
    """An item has ended for good; without a loop it is the step."""
    if run.loop is None:
        return end_run(state, run, response=response, error=error, event=event)
    attempts = run.attempts.remove(index) if index in run.attempts else run.attempts
    run = replace(run, attempts=attempts, loop=_with_item(run.loop, index, response, error))
    state = replace(state, runs={**state.runs, run.step: run}, current_step=run.step)
    return finish_rust_loop(state, run, event)


def _with_item(loop: LoopState, index: int, response: Any, error: str | None) -> LoopState:
    results, size = loop.results, loop.results_bytes
    if error is not None:
        response = failed_output(error, response)
    if results is not None:
        size += size_of(response)
        results = results.insert(index, response) if size <= LOOP_RESULTS_BYTES_MAX else None
    return replace(
        loop,
        next_index=max(loop.next_index, index + 1),
        success=loop.success + (error is None),
        failed=loop.failed + (error is not None),
        results=results,
        results_bytes=size,
        error=loop.error or (None if error is None else f"item {index}: {error}"),
    )


def end_run(
    state: State, run: StepRun, *, response: Any, error: str | None, event: Event | None, outcome: str | None = None
) -> State:
    """A run is over: its output is the newest of its step, and its arcs are to be walked."""
    response = as_result(response)
    ended = replace(
        run,
        status="completed" if error is None else "failed",
        attempts=HashTrieMap(),
        loop=None,
        ended_version=event.version if event is not None else state.version,
        ended_event_id=(event.event_id or None) if event is not None else None,
        outcome_type=outcome or ("call.done" if error is None else "call.error"),
        response=response,
        error=error,
    )
    results, sizes, total = state.results, state.sizes, state.data_bytes
    if error is None:
        key, size = f"r:{run.step}", size_of(response)
        total += size - (sizes.get(key) or 0)
        results, sizes = {**results, run.step: response}, sizes.insert(key, size)
    return replace(
        state,
        runs={**state.runs, run.step: ended},
        unrouted=(*state.unrouted, run.step),
        results=results,
        sizes=sizes,
        data_bytes=total,
        completed_steps=_with(state.completed_steps, run.step),
        current_step=run.step,
    )


# --- loops ------------------------------------------------------------------------------------------------------------


def fold_loop_started(
    state: State, step: str, *, epoch: int, attempts_max: int, context: Mapping[str, Any], version: int
) -> State:
    """Enter a loop: `context` has its id, mode, limit and collection."""
    items = context.get("collection")
    size = integer(context.get("size"), 0)
    loop = LoopState(
        loop_id=str(context.get("loop_event_id") or ""),
        mode=str(context.get("mode") or "sequential"),
        items=items if isinstance(items, list) else range(size),
        size=size,
        limit=max(integer(context.get("max_in_flight"), 1), 1),
        continue_on_error=context.get("on_item_error") == "continue",
    )
    run = StepRun(
        step=step, epoch=epoch, status="running", attempts_max=attempts_max, loop=loop, entered_version=version
    )
    return fold_entry(state, run)


def fold_loop_done(state: State, event: Event) -> State:
    """A loop is over: its result is in the state, or by reference to the log when it was too large to keep."""
    run = state.runs.get(event.step)
    if (
        run is None
        or run.loop is None
        or run.status != "running"
        or own_meta(event).get("epoch", run.epoch) != run.epoch
    ):
        return state
    return end_loop(state, run, run.loop, event)


def end_loop(state: State, run: StepRun, loop: LoopState, event: Event | None) -> State:
    """A loop is over: its output has every item that ran, or says where the log has them."""
    stats = loop_stats(loop)
    if loop.results is None:
        locator = f"noetl://execution/{state.execution_id}/loop/{loop.loop_id}"
        reference = {"type": "loop", "locator": locator, "store": "eventlog", "bytes": loop.results_bytes}
        response: Any = result_ref(reference, {"stats": stats})
    else:
        response = loop_result([loop.results.get(index) for index in range(loop.next_index)], stats)
    failed = loop.error if loop.is_failing else None
    outcome = "loop.done" if failed is None else "call.error"
    return end_run(state, run, response=response, error=failed, event=event, outcome=outcome)


def finish_rust_loop(state: State, run: StepRun, event: Event | None) -> State:
    """End a loop of the Rust line with its last item."""
    loop = run.loop
    if loop is None or loop.mode != RUST_LOOP or loop.ended < loop.size:
        return state
    return end_loop(state, run, loop, event)


def loop_result(results: list[Any], stats: Mapping[str, int]) -> dict[str, Any]:
    """Return the output of a loop: every item's by index, None for those that never ran, and the counts."""
    return {"results": results, "stats": stats}


def loop_stats(loop: LoopState) -> dict[str, int]:
    """Return the counts of a loop; a cursor loop counts the rows that its slots worked on."""
    if loop.mode != "cursor" or loop.results is None:
        return {"total": loop.ended, "success": loop.success, "failed": loop.failed}
    slots = [value for value in loop.results.values() if isinstance(value, Mapping)]
    processed = sum(integer(slot.get("processed"), 0) for slot in slots)
    failed = sum(integer(slot.get("failed"), 0) for slot in slots)
    return {"total": processed + failed, "success": processed, "failed": failed}
