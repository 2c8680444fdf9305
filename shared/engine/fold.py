"""`evolve`: one event folded into the state. It needs no playbook: every decision left its facts in the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from shared.engine.state import TERMINAL_TYPES, Event, State, StepRun

ROUTING_KEY = "playhead"  # key in `meta` of command.issued: {"epoch": n, "routed": [routing record ..]}


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
    if not state.is_terminal:
        state = _fold(state, event)
    return replace(state, version=event.version)


def replay(state: State, events: Iterable[Event]) -> State:
    """Fold events in order."""
    for event in events:
        state = evolve(state, event)
    return state


def _fold(state: State, event: Event) -> State:
    match event.type:
        case "playbook.initialized":
            return replace(
                state, root_event_id=event.event_id, workload=_workload(event), path=event.step or state.path
            )
        case "workflow.initialized":
            return replace(state, workflow_event_id=event.event_id)
        case "command.issued":
            return _issued(state, event)
        case "call.done" | "call.error" | "command.completed" | "command.failed" | "command.cancelled":
            return _ended(state, event)
        case "step.routed":
            return fold_routing(state, event.context or {})
        case "step.skipped" | "step.exit":
            epoch = _own_meta(event).get("epoch")
            return state if epoch is None else fold_passed(state, event.step, int(epoch), event)
        case _ if event.type in TERMINAL_TYPES:
            return replace(state, status=TERMINAL_TYPES[event.type], error=event.error)
        case _:
            return state


def _workload(event: Event) -> Mapping[str, Any]:
    result = (event.context or {}).get("result")
    workload = result.get("workload") if isinstance(result, Mapping) else None
    return workload if isinstance(workload, Mapping) else {}


def _own_meta(event: Event) -> Mapping[str, Any]:
    found = event.meta.get(ROUTING_KEY)
    return found if isinstance(found, Mapping) else {}


def _issued(state: State, event: Event) -> State:
    own = _own_meta(event)
    for record in own.get("routed") or ():
        state = fold_routing(state, record)
    command_id = event.command_id or int(event.meta.get("command_id") or 0)
    if command_id in state.commands:
        return state
    run = StepRun(
        step=event.step,
        epoch=int(own.get("epoch") or 1),
        status="running",
        command_id=command_id,
        entered_version=event.version,
    )
    return fold_entry(state, run)


def fold_entry(state: State, run: StepRun) -> State:
    """Enter a step: it no longer waits and its newest run is `run`."""
    waiting = {name: sources for name, sources in state.waiting.items() if name != run.step}
    commands = state.commands if run.command_id is None else {**state.commands, run.command_id: run.step}
    return replace(state, runs={**state.runs, run.step: run}, waiting=waiting, commands=commands, current_step=run.step)


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
    return state if skipped else replace(state, completed_steps=_with(state.completed_steps, step))


def fold_routing(state: State, record: Mapping[str, Any]) -> State:
    """Apply a routing record `{step, epoch, targets, set, handled}`: the arcs of a run have been walked."""
    step = str(record.get("step", ""))
    run = state.runs.get(step)
    if run is None or run.epoch != record.get("epoch") or run.routed:
        return state
    handled = bool(record.get("handled"))
    waiting = dict(state.waiting)
    for target in record.get("targets") or ():
        waiting[target] = _with(waiting.get(target, ()), step)
    failures = state.failures
    if run.status == "failed" and not handled:
        failures = (*failures, (step, run.error or "failed"))
    return replace(
        state,
        runs={**state.runs, step: replace(run, routed=True, handled=handled)},
        waiting=waiting,
        variables={**state.variables, **(record.get("set") or {})},
        failures=failures,
    )


def _with(items: tuple[str, ...], item: str) -> tuple[str, ...]:
    return items if item in items else (*items, item)


def _ended(state: State, event: Event) -> State:
    """A command is over, by whichever of its events came first; a later one, or one of an older run, changes nothing."""
    command_id = event.command_id or _command_of(event)
    step = state.commands.get(command_id) if command_id is not None else None
    run = state.runs.get(step) if step is not None else None
    if step is None or run is None or run.command_id != command_id or run.status != "running":
        return state
    response = _response(event)
    failed = event.type in ("call.error", "command.failed", "command.cancelled") or _says_error(response)
    ended = replace(
        run,
        status="failed" if failed else "completed",
        ended_version=event.version,
        ended_event_id=event.event_id,
        outcome_type="call.error" if failed else "call.done",
        response=response,
        error=_error_text(event, response) if failed else None,
    )
    return replace(
        state,
        runs={**state.runs, step: ended},
        results=state.results if failed else {**state.results, step: response},
        completed_steps=_with(state.completed_steps, step),
        current_step=step,
    )


def _says_error(response: Any) -> bool:
    """Whether a tool's output calls itself an error, whatever the event is called."""
    status = response.get("status") if isinstance(response, Mapping) else None
    return isinstance(status, str) and status.lower() in ("error", "failed")


def _command_of(event: Event) -> int | None:
    value = event.meta.get("command_id")
    text = str(value) if value is not None else ""
    return int(text) if text.isascii() and text.isdigit() else None


def _response(event: Event) -> Any:
    """Return the tool's output: `context.response`, else what a worker of the Rust line put into `result`."""
    if event.context is not None and "response" in event.context:
        return event.context["response"]
    result = event.result or {}
    context = result.get("context")
    if not isinstance(context, Mapping):
        return {"reference": result["reference"]} if "reference" in result else None
    inner = context.get("result")
    if isinstance(inner, Mapping) and isinstance(inner.get("context"), Mapping) and "data" in inner["context"]:
        return inner["context"]["data"]
    if "data" in context:
        return context["data"]
    return {key: value for key, value in context.items() if key not in ("command_id", "worker_id")}


def _error_text(event: Event, response: Any) -> str:
    if event.error:
        return event.error
    if isinstance(response, Mapping):
        error = response.get("error")
        if isinstance(error, Mapping):
            return str(error.get("message") or error)
        if error:
            return str(error)
    return "the command was cancelled" if event.type == "command.cancelled" else "the command failed"
