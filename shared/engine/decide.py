"""`decide`: what must happen next, from the folded state and the playbook. Pure and deterministic.

It plans on a scratch copy of the state, folding each of its own facts with the functions that `evolve` uses, so that what was
decided and what a replay of the log gives cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.engine.changes import EXECUTION_TIMEOUT
from shared.engine.copying import replace
from shared.engine.effects import AppendEvent, Decision, Effect, SetTimer, timer_id_for
from shared.engine.jsontext import size_of
from shared.engine.limits import LOOP_IN_FLIGHT_DEFAULT, RESULT_BYTES_MAX, TEMPLATE_MISSES_MAX, TRANSITIONS_MAX
from shared.engine.planner import Planner
from shared.engine.playbook import Playbook
from shared.engine.references import ResultRef
from shared.engine.state import Event, State, StepRun
from shared.engine.templates import watching


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of the engine.

    Args (fields):
        loop_in_flight: items at once of a parallel loop that does not say.
        strict: what is undefined in a template fails its step; so it does with `executor.spec.strict`.
    """

    loop_in_flight: int = LOOP_IN_FLIGHT_DEFAULT
    strict: bool = False


DEFAULTS = Options()


def initial_events(
    playbook: Playbook, *, payload: Mapping[str, Any], path: str, version: int | None = None
) -> tuple[AppendEvent, AppendEvent]:
    """Return the first two events of an execution: `payload` over the playbook's workload, top-level keys replaced.

    A mapping `ctx` in the payload is merged as well: its keys are variables, and all names are one flat map.
    """
    workload = merged(playbook.workload, payload)
    if isinstance(payload.get("ctx"), Mapping):
        workload = merged(workload, payload["ctx"])

    def context(result: dict[str, Any]) -> dict[str, Any]:
        return {"status": "initialized", "error": None, "final_step": None, "result": result}

    first = {"workload": workload, "playbook_path": path, "playbook_version": version}
    return (
        AppendEvent(
            event_type="playbook.initialized",
            node_name=path,
            node_type="playbook",
            status="initialized",
            context=context(first),
        ),
        AppendEvent(
            event_type="workflow.initialized",
            node_name="workflow",
            node_type="workflow",
            status="initialized",
            context=context({**first, "first_step": playbook.entry}),
        ),
    )


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the keys of `over` in place of its own, as the original does: a mapping is replaced, not filled in."""
    return {**base, **over}


def decide(state: State, playbook: Playbook, *, now: datetime, options: Options = DEFAULTS) -> Decision:
    """Return the effects that `state` calls for; none when nothing is to be done.

    Raises:
        NeedsDataError: a template reaches into a result by reference: load it and decide within `loaded`.
    """
    if state.is_terminal or state.workflow_event_id is None:
        return Decision()
    seed = f"{state.execution_id}:{state.version}"
    with watching(strict=options.strict or playbook.strict, seed=seed) as watch:
        decision = _decide(state, playbook, now, options)
    return replace(decision, missed=tuple(dict.fromkeys(watch.missed))[:TEMPLATE_MISSES_MAX], misses=len(watch.missed))


def _decide(state: State, playbook: Playbook, now: datetime, options: Options) -> Decision:
    if state.timed_out:
        text = f"the execution took longer than {playbook.timeout_seconds or 0:g} s"
        return failure(state, error=text)
    planner = Planner(state, playbook, now, loop_in_flight=options.loop_in_flight)
    if not state.runs and not state.waiting:
        if playbook.timeout_seconds is not None:
            planner.effects.append(execution_timer(state, playbook.timeout_seconds, now))
        planner.enter(playbook.entry, None)
    planner.attend()
    for _ in range(TRANSITIONS_MAX):
        if not planner.advance():
            break
    else:
        text = f"more than {TRANSITIONS_MAX} steps in a row without a tool: is there a cycle of them?"
        return failure(state, error=text)
    state = planner.state
    if not _is_active(state) or (state.failures and playbook.on_error == "fail_fast"):
        planner.drop_plain_records()
        planner.flush()
        return Decision(effects=(*planner.effects, *_end(planner.state)), state=planner.state)
    planner.flush()
    return Decision(effects=tuple(planner.effects), state=planner.state)


def execution_timer(state: State, seconds: float, now: datetime) -> SetTimer:
    """Return the timer that ends an execution."""
    return SetTimer(
        timer_id=timer_id_for(state.execution_id, "", EXECUTION_TIMEOUT),
        due_at=datetime.fromtimestamp(now.timestamp() + seconds, now.tzinfo).isoformat(),
        purpose=EXECUTION_TIMEOUT,
    )


def failure(state: State, *, error: str) -> Decision:
    """Return the decision that ends the execution as failed because it cannot go on."""
    name = state.current_step
    return Decision(effects=_terminal_pair(state, final_step=name, run=None, error=error, failed=True))


def _is_active(state: State) -> bool:
    newest = state.runs.get(state.current_step or "")
    if state.waiting or (newest is not None and newest.status == "running"):
        return True
    return any(run.status == "running" for run in state.runs.values())


def _end(state: State) -> tuple[Effect, ...]:
    failures = state.failures
    wanted = "failed" if failures else "completed"
    runs = [run for run in state.runs.values() if run.status == wanted and not run.handled]
    last = max(runs, key=lambda run: (run.ended_version, run.epoch), default=None)
    return _terminal_pair(
        state,
        final_step=last.step if last is not None else (failures[-1][0] if failures else None),
        run=last,
        error=failures[-1][1] if failures else None,
        failed=bool(failures),
    )


def _terminal_pair(
    state: State, *, final_step: str | None, run: StepRun | None, error: str | None, failed: bool
) -> tuple[AppendEvent, AppendEvent]:
    status = "failed" if failed else "completed"
    output = bounded_result(run.response if run is not None else None)
    if failed:
        attempt = run.attempt if run is not None else 1
        output = {"error": error, **output, "step": final_step, "attempt": attempt}
    result = {"status": "FAILED" if failed else "COMPLETED", "context": output}
    context = {"status": status, "final_step": final_step, "result": result, "error": error}

    def event(kind: str, node: str, parent: int | None) -> AppendEvent:
        return AppendEvent(
            event_type=f"{kind}.{status}",
            node_name=node,
            node_type=kind,
            status=status,
            context=context,
            result=result,
            error=error,
            parent_event_id=parent,
        )

    return event("workflow", "workflow", state.workflow_event_id), event("playbook", state.path, state.root_event_id)


def bounded_result(response: Any) -> dict[str, Any]:
    """Return a step's output as the `context` of a result envelope, `RESULT_BYTES_MAX` at most."""
    if response is None:
        return {}
    context = dict(response) if isinstance(response, Mapping) else {"data": response}
    if context.get("context") == {key: value for key, value in context.items() if key != "context"}:
        context.pop("context")  # the alias that templates have
    size = size_of(context)
    if size <= RESULT_BYTES_MAX:
        return context
    kept = {key: context[key] for key in ("stats", "reference", "_ref") if key in context}
    return {
        "truncated": True,
        "size_bytes": size,
        **(kept if isinstance(response, ResultRef) or "stats" in kept else {}),
    }


def effects_as_events(state: State, decision: Decision, *, first_event_id: int, now: datetime) -> list[Event]:
    """Return a decision's events as the store will append them after `state.version`; for tests and simulations."""
    events: list[Event] = []
    for effect in decision.effects:
        event = effect.as_event(state.version + len(events) + 1, first_event_id + len(events), now)
        if event is not None:
            events.append(event)
    return events


__all__ = ["DEFAULTS", "Options", "decide", "effects_as_events", "failure", "initial_events", "merged"]
