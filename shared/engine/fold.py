"""`evolve`: one event folded into the state. It needs no playbook: every decision left its facts in the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rpds import HashTrieMap

from shared.engine.changes import (
    EXECUTION_TIMEOUT,
    ROUTING_KEY,
    finish_rust_loop,
    fold_command,
    fold_loop_done,
    fold_loop_started,
    fold_own_end,
    fold_passed,
    fold_record,
    fold_variables,
    integer,
    own_meta,
    settle,
    with_attempt,
)
from shared.engine.copying import replace
from shared.engine.foreign import ALIASES, index_of_command, loop_of_command, loop_of_entry, translated
from shared.engine.jsontext import size_of
from shared.engine.outcome import (
    FAILURES,
    command_of,
    error_text,
    response_of,
    says_error,
    sequence_result,
    sequence_variables,
)
from shared.engine.state import SEQUENCE_SUFFIX, TERMINAL_TYPES, Event, State


class VersionGapError(ValueError):
    """An event is ahead of the state: those in between are missing."""


def evolve(state: State, event: Event) -> State:
    """Return the state after `event`. An event that was folded before changes nothing.

    Raises:
        VersionGapError: `event.version` is beyond `state.version + 1`.
    """
    if event.version <= state.version:
        return state
    if event.version != state.version + 1:
        raise VersionGapError(f"version {event.version} after {state.version}")
    folded = _fold(state, event) if state.status == "RUNNING" else state
    if folded is state:
        return replace(state, version=event.version)
    object.__setattr__(folded, "version", event.version)  # a fresh copy: nobody else has it yet
    return folded


def replay(state: State, events: Iterable[Event]) -> State:
    """Fold events in order."""
    for event in events:
        state = evolve(state, event)
    return state


def _fold(state: State, event: Event) -> State:
    if event.type in ALIASES:
        event = translated(event)
    fold = _FOLDS.get(event.type)
    return state if fold is None else fold(state, event)


def _initialized(state: State, event: Event) -> State:
    result = (event.context or {}).get("result")
    result = result if isinstance(result, Mapping) else {}
    workload = result.get("workload")
    workload = workload if isinstance(workload, Mapping) else {}
    version = result.get("playbook_version")
    sizes = HashTrieMap({f"w:{name}": size_of(value) for name, value in workload.items()})
    return replace(
        state,
        root_event_id=event.event_id,
        workflow_event_id=event.event_id if result.get("is_whole_start") else state.workflow_event_id,
        workload=workload,
        path=event.step or state.path,
        playbook_version=version if isinstance(version, int) else None,
        sizes=sizes,
        data_bytes=sum(sizes.values()),
    )


def _workflow_initialized(state: State, event: Event) -> State:
    return replace(state, workflow_event_id=event.event_id)


def _terminal(state: State, event: Event) -> State:
    told = (event.context or {}).get("error") or event.meta.get("error")
    error = event.error or (told if isinstance(told, str) else None)
    return replace(state, status=TERMINAL_TYPES[event.type], error=error)


def _recorded(state: State, event: Event) -> State:
    return fold_record(state, event.context or {})


def _updated(state: State, event: Event) -> State:
    context = event.context or {}
    return fold_variables(state, context.get("set") or context.get("values") or {})


# --- entering ---------------------------------------------------------------------------------------------------------


def _issued(state: State, event: Event) -> State:
    own = own_meta(event)
    if ROUTING_KEY not in event.meta:
        state, own = _foreign_command(state, event)
    for record in own.get("routed") or ():
        state = fold_record(state, record)
    command_id = event.command_id or command_of(event) or 0
    return fold_command(
        state,
        event.step.removesuffix(SEQUENCE_SUFFIX),
        epoch=integer(own.get("epoch"), 1),
        index=integer(own.get("index"), 0),
        attempt=integer(event.meta.get("attempt"), 1),
        attempts_max=integer(own.get("attempts_max"), 1),
        command_id=command_id,
        version=event.version,
    )


def _foreign_command(state: State, event: Event) -> tuple[State, Mapping[str, Any]]:
    """Enter the step of a command that another program issued: what has ended by then, that program has routed."""
    step = event.step.removesuffix(SEQUENCE_SUFFIX)
    state = replace(state, unrouted=(), waiting={})
    loop = loop_of_command(event)
    run = state.runs.get(step)
    in_loop = run is not None and run.status == "running" and run.loop is not None
    if loop is not None and not (
        in_loop and run is not None and run.loop and run.loop.loop_id == loop["loop_event_id"]
    ):
        state = _foreign_loop(state, event, loop)
        run, in_loop = state.runs[step], True
    before = 0 if run is None else run.epoch
    return state, {"epoch": before if in_loop else before + 1, "index": index_of_command(event) if in_loop else 0}


def _foreign_loop(state: State, event: Event, loop: Mapping[str, Any]) -> State:
    step = event.step.removesuffix(SEQUENCE_SUFFIX)
    before = state.runs.get(step)
    epoch = 1 if before is None else before.epoch + 1
    state = fold_loop_started(state, step, epoch=epoch, attempts_max=1, context=loop, version=event.version)
    return state if loop["size"] else finish_rust_loop(state, state.runs[step], event)


def _foreign_entry(state: State, event: Event) -> State:
    loop = loop_of_entry(event)
    return state if loop is None else _foreign_loop(state, event, loop)


def _passed(state: State, event: Event) -> State:
    epoch = own_meta(event).get("epoch")
    if isinstance(epoch, int):
        return fold_passed(state, event.step, epoch, event)
    run = state.runs.get(event.step)
    if event.type == "step.exit" or (run is not None and run.status == "running"):
        return state  # a worker's, or of no consequence
    return fold_passed(state, event.step, 1 if run is None else run.epoch + 1, event)


def _loop_started(state: State, event: Event) -> State:
    own, context = own_meta(event), event.context or {}
    return fold_loop_started(
        state,
        event.step,
        epoch=integer(own.get("epoch"), 1),
        attempts_max=integer(own.get("attempts_max"), 1),
        context=context,
        version=event.version,
    )


# --- timers -----------------------------------------------------------------------------------------------------------


def _timer_fired(state: State, event: Event) -> State:
    """Mark what the timer is for; one whose step has gone on meanwhile changes nothing."""
    purpose = str(event.meta.get("purpose") or "")
    if purpose == EXECUTION_TIMEOUT:
        return replace(state, timed_out=True)
    kind, *numbers = purpose.split(":")
    run = state.runs.get(event.step)
    if run is None or run.status != "running" or not all(number.isdigit() for number in numbers):
        return state
    if kind == "timeout" and numbers == [str(run.epoch)]:
        return replace(state, runs={**state.runs, run.step: replace(run, timed_out=True)})
    if kind == "retry" and len(numbers) == 3 and int(numbers[0]) == run.epoch:
        attempt = run.attempts.get(int(numbers[1]))
        if attempt is not None and attempt.status == "waiting" and attempt.number == int(numbers[2]):
            return with_attempt(state, run, replace(attempt, status="due"))
    return state


# --- ends -------------------------------------------------------------------------------------------------------------


def _ended(state: State, event: Event) -> State:
    """A command is over, by whichever of its events came first; a later one, or one of an older run, changes nothing.

    An end without a command is our own: an item that could not be started, or a step that took too long.
    """
    command_id = event.command_id or command_of(event)
    place = state.open.get(command_id) if command_id is not None else None
    if place is None or command_id is None:
        return _own_end(state, event)
    step, index = place
    state = replace(state, open=state.open.remove(command_id))
    run = state.runs.get(step)
    attempt = run.attempts.get(index) if run is not None else None
    if run is None or attempt is None or attempt.command_id != command_id or run.status != "running":
        return state
    response = response_of(event)
    failed = event.type in FAILURES or (event.type == "child.terminated" and event.status != "COMPLETED")
    if not failed and "child" not in own_meta(event):  # of a sub-playbook the engine has decided what its end means
        failed = says_error(event, response)
    variables = sequence_variables(response)
    if variables:
        state = fold_variables(state, variables)
    response = sequence_result(response)
    error = error_text(event, response) if failed else None
    if failed and attempt.number < run.attempts_max:
        return with_attempt(state, run, replace(attempt, status="failed", response=response, error=error))
    if attempt.number > 1:
        run = replace(run, attempt=attempt.number)
    return settle(state, run, index, response=response, error=error, event=event)


def _own_end(state: State, event: Event) -> State:
    own = own_meta(event)
    if event.type != "call.error" or "epoch" not in own:
        return state
    return fold_own_end(state, event.step, own, event.error or "failed", event)


_FOLDS: dict[str, Callable[[State, Event], State]] = {
    "call.done": _ended,
    "call.error": _ended,
    "command.completed": _ended,
    "command.failed": _ended,
    "command.cancelled": _ended,
    "child.terminated": _ended,
    "command.issued": _issued,
    "step.routed": _recorded,
    "ctx.updated": _updated,
    "step.skipped": _passed,
    "step.exit": _passed,
    "step.enter": _foreign_entry,
    "loop.started": _loop_started,
    "loop.done": fold_loop_done,
    "timer.fired": _timer_fired,
    "playbook.initialized": _initialized,
    "workflow.initialized": _workflow_initialized,
    **dict.fromkeys(TERMINAL_TYPES, _terminal),
}
