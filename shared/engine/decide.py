"""`decide`: what must happen next, from the folded state and the playbook. Pure and deterministic.

It plans on a scratch copy of the state, folding each of its own facts with the functions that `evolve` uses, so that what was
decided and what a replay of the log gives cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson

from shared.engine.context import names_for, render_context_of
from shared.engine.effects import AppendEvent, Decision, Effect, IssueCommand, command_id_for
from shared.engine.fold import ROUTING_KEY, fold_entry, fold_passed, fold_routing
from shared.engine.limits import DIAGNOSTIC_CHARS_MAX, EPOCHS_MAX, MAX_ATTEMPTS, RESULT_BYTES_MAX, TRANSITIONS_MAX
from shared.engine.playbook import Arc, Playbook, Step
from shared.engine.state import Event, State, StepRun
from shared.engine.templates import TemplateError, deferred_paths, render_condition, render_value

_PREFIXES = ("ctx.", "iter.", "step.", "workload.")


def initial_events(playbook: Playbook, *, payload: Mapping[str, Any], path: str) -> tuple[AppendEvent, AppendEvent]:
    """Return the first two events of an execution: `payload` merged over the playbook's workload, key by key."""
    workload = merged(playbook.workload, payload)

    def context(result: dict[str, Any]) -> dict[str, Any]:
        return {"status": "initialized", "error": None, "final_step": None, "result": result}

    first = {"workload": workload, "playbook_path": path}
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
    """Return `base` with `over` on top, mappings merged at every depth (bounded by what the documents can nest)."""
    found = dict(base)
    for key, value in over.items():
        there = found.get(key)
        found[key] = merged(there, value) if isinstance(there, Mapping) and isinstance(value, Mapping) else value
    return found


def decide(state: State, playbook: Playbook, *, now: datetime) -> Decision:
    """Return the effects that `state` calls for; none when nothing is to be done.

    Raises:
        TemplateError: a value that the next step needs cannot be rendered. It will not get better: commit `failure`.
    """
    if state.is_terminal or state.workflow_event_id is None:
        return Decision()
    return _Planner(state, playbook, now).plan()


def failure(state: State, *, error: str) -> Decision:
    """Return the decision that ends the execution as failed because it cannot be decided."""
    name = state.current_step
    return Decision(effects=_terminal_pair(state, final_step=name, run=None, error=error, failed=True))


def _terminal_pair(
    state: State, *, final_step: str | None, run: StepRun | None, error: str | None, failed: bool
) -> tuple[AppendEvent, AppendEvent]:
    status = "failed" if failed else "completed"
    output = bounded_result(run.response if run is not None else None)
    result = {
        "status": "FAILED" if failed else "COMPLETED",
        "context": {"step": final_step, "error": error, **output} if failed else output,
    }
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
    size = len(orjson.dumps(context, default=str, option=orjson.OPT_NON_STR_KEYS))
    return context if size <= RESULT_BYTES_MAX else {"truncated": True, "size_bytes": size}


class _Planner:
    """One decision in the making."""

    def __init__(self, state: State, playbook: Playbook, now: datetime) -> None:
        self._state = state
        self._playbook = playbook
        self._now = now.isoformat()
        self._effects: list[Effect] = []
        self._records: list[dict[str, Any]] = []  # routing records that no effect carries yet

    def plan(self) -> Decision:
        if not self._state.runs and not self._state.waiting:
            self._enter(self._playbook.entry, None)
        for _ in range(TRANSITIONS_MAX):
            if not self._advance():
                break
        else:
            return failure(
                self._state,
                error=f"more than {TRANSITIONS_MAX} steps in a row without a tool: is there a cycle of them?",
            )
        if not self._is_active() or (self._state.failures and self._playbook.on_error == "fail_fast"):
            self._finish()
        self._flush()
        return Decision(effects=tuple(self._effects), state=self._state)

    def _advance(self) -> bool:
        unrouted = [run for run in self._state.runs.values() if run.status != "running" and not run.routed]
        if unrouted:
            self._route(min(unrouted, key=lambda run: run.ended_version))
            return True
        for target, sources in self._state.waiting.items():
            if self._may_enter(target):
                self._enter(target, sources)
                return True
        return False

    def _is_active(self) -> bool:
        return bool(self._state.waiting) or any(run.status == "running" for run in self._state.runs.values())

    # --- routing ---------------------------------------------------------------------------------------------------

    def _route(self, run: StepRun) -> None:
        """Apply the step's `set`, walk its arcs, note what was chosen."""
        step = self._playbook.steps.get(run.step)
        record: dict[str, Any] = {"step": run.step, "epoch": run.epoch, "targets": [], "set": {}, "handled": False}
        if step is not None:
            if run.status == "completed":
                record["set"].update(self._values(step.set, run))
            for arc in self._chosen(step, run, record):
                record["set"].update(self._values(arc.set, run, record["set"]))
                if arc.target is not None:
                    record["targets"].append(arc.target)
        self._state = fold_routing(self._state, record)
        self._records.append(record)

    def _names(self, run: StepRun, over: Mapping[str, Any] | None = None) -> dict[str, Any]:
        state = self._state
        if over:
            state = replace(state, variables={**state.variables, **over})
        return names_for(state, step=run.step, run=run, event=run.outcome_type, now=self._now)

    def _values(self, given: Mapping[str, Any], run: StepRun, over: Mapping[str, Any] | None = None) -> dict[str, Any]:
        if not given:
            return {}
        names = self._names(run, over)
        return {_bare(key): render_value(value, names) for key, value in given.items()}

    def _chosen(self, step: Step, run: StepRun, record: dict[str, Any]) -> list[Arc]:
        """Return the arcs to follow: the first that holds, or all that hold in inclusive mode.

        After an error only an arc whose condition looks at it is taken, and handles it; others only with `on_error: continue`.
        """
        chosen: list[Arc] = []
        if run.status == "skipped" or not step.arcs:
            return chosen
        names = self._names(run, record["set"])
        failed = run.status == "failed"
        for arc in step.arcs:
            if failed and not arc.sees_errors and self._playbook.on_error != "continue":
                continue
            if not self._holds(arc, names, record):
                continue
            record["handled"] = record["handled"] or (failed and arc.sees_errors)
            chosen.append(arc)
            if step.mode == "exclusive":
                break
        return chosen

    def _holds(self, arc: Arc, names: Mapping[str, Any], record: dict[str, Any]) -> bool:
        """Whether a condition holds; one that cannot be evaluated does not, and leaves a diagnostic."""
        if arc.when is None:
            return True
        try:
            return render_condition(arc.when, names)
        except TemplateError as error:
            record.setdefault("diagnostics", []).append(
                f"arc to '{arc.target or 'end'}': {error}"[:DIAGNOSTIC_CHARS_MAX]
            )
            return False

    # --- entering --------------------------------------------------------------------------------------------------

    def _may_enter(self, target: str) -> bool:
        """Whether no step that still runs or waits may lead to `target` another time (the join)."""
        run = self._state.runs.get(target)
        if run is not None and run.status == "running":
            return False
        if self._playbook.upstream_counts.get(target, 0) < 2:
            return True
        live = [other.step for other in self._state.runs.values() if other.status == "running"]
        live += [name for name in self._state.waiting if name != target]
        return not any(self._playbook.may_reach(name, target) for name in live)

    def _enter(self, name: str, sources: tuple[str, ...] | None) -> None:
        step = self._playbook.steps[name]
        before = self._state.runs.get(name)
        epoch = 1 if before is None else before.epoch + 1
        if epoch > EPOCHS_MAX:
            raise TemplateError(f"step '{name}' was entered {EPOCHS_MAX} times: its cycle does not end")
        source = self._state.runs.get(sources[-1]) if sources else None
        names = names_for(self._state, step=name, now=self._now)
        names["output"] = names_for(self._state, step=name, run=source)["output"] if source else names["output"]
        if step.when is not None and not render_condition(step.when, names):
            self._pass(name, epoch, "step.skipped", "SKIPPED")
        elif step.tool_kind is None:
            self._pass(name, epoch, "step.exit", "COMPLETED")
        else:
            self._issue(step, epoch, names, source)

    def _pass(self, name: str, epoch: int, event_type: str, status: str) -> None:
        """Leave a step without a command: it is skipped, or has no tool."""
        self._flush()
        meta = {ROUTING_KEY: {"epoch": epoch}}
        self._effects.append(
            AppendEvent(event_type=event_type, node_name=name, node_type="step", status=status, meta=meta)
        )
        event = Event(version=self._state.version, event_id=0, type=event_type, step=name, meta=meta)
        self._state = fold_passed(self._state, name, epoch, event)

    def _issue(self, step: Step, epoch: int, names: dict[str, Any], source: StepRun | None) -> None:
        command_id = command_id_for(self._state.execution_id, step.name, epoch, 0, 1)
        kind = step.tool_kind or "noop"
        meta: dict[str, Any] = {
            "step": step.name,
            "attempt": 1,
            "max_attempts": MAX_ATTEMPTS,
            "tool_kind": kind,
            "actionable": True,
            "catalog_id": str(self._state.catalog_id),
            "execution_id": str(self._state.execution_id),
            "command_id": command_id,
        }
        if source is not None:
            meta["triggered_by"] = source.outcome_type
        own: dict[str, Any] = {"epoch": epoch}
        if self._records:
            own["routed"], self._records = self._records, []
        meta[ROUTING_KEY] = own
        self._effects.append(
            IssueCommand(
                command_id=command_id,
                step_name=step.name,
                tool_kind=kind,
                context=self._command_context(step, names),
                meta=meta,
                parent_event_id=source.ended_event_id if source is not None else self._state.workflow_event_id,
            )
        )
        run = StepRun(step=step.name, epoch=epoch, status="running", command_id=command_id)
        self._state = fold_entry(self._state, run)

    def _command_context(self, step: Step, names: dict[str, Any]) -> dict[str, Any]:
        config: dict[str, Any] = {"spec": None, "output": None}
        for key, value in step.tool.items():
            try:
                config[key] = render_value(value, names)
            except TemplateError as error:
                if key == "code":  # braces in code need not be ours
                    config[key] = value
                else:
                    raise TemplateError(f"step '{step.name}', tool.{key}: {error}") from error
        try:
            given = render_value(dict(step.input), names)
        except TemplateError as error:
            raise TemplateError(f"step '{step.name}', input: {error}") from error
        source = {"tool_config": step.tool, "input": step.input}
        return {
            "tool_config": config,
            "input": given,
            "deferred": [list(path) for path in deferred_paths(source)],
            "render_context": render_context_of(names, self._state, [config, given]),
            "spec": {"next_mode": step.mode},
        }

    # --- the end ---------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        failures = self._state.failures
        wanted = ("failed",) if failures else ("completed",)
        runs = [run for run in self._state.runs.values() if run.status in wanted and not run.handled]
        last = max(runs, key=lambda run: (run.ended_version, run.epoch), default=None)
        error = failures[-1][1] if failures else None
        self._records = [record for record in self._records if record["set"] or record.get("diagnostics")]
        self._flush()
        self._effects.extend(
            _terminal_pair(
                self._state,
                final_step=last.step if last is not None else (failures[-1][0] if failures else None),
                run=last,
                error=error,
                failed=bool(failures),
            )
        )

    def _flush(self) -> None:
        """Write the routing records that no command carries as events of their own."""
        for record in self._records:
            self._effects.append(
                AppendEvent(
                    event_type="step.routed",
                    node_name=record["step"],
                    node_type="step",
                    status="COMPLETED",
                    context=record,
                )
            )
        self._records = []


def _bare(key: str) -> str:
    """Return a `set` key without its prefix: all land in one flat map, as in the original."""
    for prefix in _PREFIXES:
        if key.startswith(prefix) and len(key) > len(prefix):
            return key[len(prefix) :]
    return key


def effects_as_events(state: State, decision: Decision, *, first_event_id: int, now: datetime) -> list[Event]:
    """Return a decision's events as the store will append them after `state.version`; for tests and simulations."""
    events: list[Event] = []
    for effect in decision.effects:
        version = state.version + len(events) + 1
        event_id = first_event_id + len(events)
        if isinstance(effect, AppendEvent):
            events.append(
                Event(
                    version=version,
                    event_id=event_id,
                    type=effect.event_type,
                    step=effect.node_name,
                    status=effect.status,
                    context=effect.context,
                    result=effect.result,
                    meta=effect.meta or {},
                    error=effect.error,
                    command_id=effect.command_id,
                    occurred_at=now,
                )
            )
        elif isinstance(effect, IssueCommand):
            events.append(
                Event(
                    version=version,
                    event_id=event_id,
                    type="command.issued",
                    step=effect.step_name,
                    status="PENDING",
                    meta=effect.meta,
                    command_id=effect.command_id,
                    occurred_at=now,
                )
            )
    return events


__all__ = ["decide", "effects_as_events", "failure", "initial_events", "merged"]
