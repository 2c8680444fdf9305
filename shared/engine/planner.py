"""One decision in the making: walks arcs, enters steps, keeps loops moving, repeats what may be repeated."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from shared.engine.budget import is_half_spent
from shared.engine.changes import (
    ROUTING_KEY,
    fold_command,
    fold_loop_done,
    fold_loop_started,
    fold_own_end,
    fold_passed,
    fold_record,
    fold_variables,
    loop_stats,
    retry_purpose,
    timeout_purpose,
)
from shared.engine.context import names_for, with_item, with_run
from shared.engine.copying import replace
from shared.engine.effects import (
    AppendEvent,
    CancelCommand,
    Effect,
    IssueCommand,
    SetTimer,
    command_id_for,
    timer_id_for,
)
from shared.engine.issuing import CommandBuilder, loop_items, loop_limit
from shared.engine.limits import (
    DECISION_BYTES_MAX,
    DECISION_COMMANDS_MAX,
    DIAGNOSTIC_CHARS_MAX,
    EPOCHS_MAX,
)
from shared.engine.outcome import bare_key
from shared.engine.playbook import Arc, Playbook, Step
from shared.engine.state import Attempt, Event, LoopState, State, StepRun
from shared.engine.templates import (
    TemplateError,
    UnusableError,
    missed_since,
    missed_so_far,
    render_condition,
    render_value,
)


def _undefined(mark: int) -> dict[str, Any]:
    """Return what tells the names that templates looked up in vain since `mark`; nothing when there are none."""
    names = missed_since(mark)
    return {"undefined": names} if names else {}


class Planner:
    """Plans on `state`, a scratch copy; `effects` has what is to be committed, in order."""

    def __init__(self, state: State, playbook: Playbook, now: datetime, *, loop_in_flight: int) -> None:
        self.state = state
        self.effects: list[Effect] = []
        self._playbook = playbook
        self._moment = now
        self._now = now.isoformat()
        self._loop_in_flight = loop_in_flight
        self._records: list[dict[str, Any]] = []  # records that no effect carries yet
        self._builder = CommandBuilder(playbook)
        self._names: tuple[State, dict[str, Any]] | None = None  # names without a run, as long as the data is the same
        self._commands = 0
        self._bytes = 0

    def advance(self) -> bool:
        """Make one transition: walk the arcs of a run, or enter a step. Return whether there was one."""
        if self.state.unrouted:
            self._route(self.state.runs[self.state.unrouted[0]])
            return True
        for target, sources in self.state.waiting.items():
            if self._may_enter(target):
                self.enter(target, sources)
                return True
        return False

    def attend(self) -> None:
        """See to every step that runs: time, failed attempts, items of loops."""
        for run in list(self.state.runs.values()):
            if run.status == "running":
                self._attend(run)

    # --- names -----------------------------------------------------------------------------------------------------

    def _base(self) -> dict[str, Any]:
        state = self.state
        if self._names is not None:
            known = self._names[0]
            if known.variables is state.variables and known.results is state.results:
                return self._names[1]
        names = names_for(state, step="", now=self._now)
        self._names = (state, names)
        return names

    def _names_after(self, run: StepRun, event: str | None = None) -> dict[str, Any]:
        return with_run(self._base(), step=run.step, run=run, event=event or run.outcome_type, now=self._now)

    # --- routing ---------------------------------------------------------------------------------------------------

    def _route(self, run: StepRun) -> None:
        """Apply the step's `set`, walk its arcs, note what was chosen."""
        step = self._playbook.steps.get(run.step)
        record: dict[str, Any] = {"step": run.step, "epoch": run.epoch, "targets": [], "handled": False}
        mark = missed_so_far()
        if step is not None and run.status != "skipped":
            try:
                if run.status == "completed":
                    self._set(step.set, run)
                for arc in self._chosen(step, run, record):
                    self._set(arc.set, run)
                    if arc.target is not None:
                        record["targets"].append(arc.target)
            except TemplateError as error:
                record |= {"targets": [], "handled": False, "error": f"step '{run.step}', after its end: {error}"}
        record |= _undefined(mark)
        self.state = fold_record(self.state, record)
        self._records.append(record)

    def _set(self, given: Mapping[str, Any], run: StepRun) -> None:
        if not given:
            return
        names = self._names_after(run)
        values = {bare_key(str(key)): render_value(value, names) for key, value in given.items()}
        self.effects.append(
            AppendEvent(
                event_type="ctx.updated",
                node_name=run.step,
                node_type="step",
                status="COMPLETED",
                context={"set": values},
            )
        )
        self.state = fold_variables(self.state, values)

    def _chosen(self, step: Step, run: StepRun, record: dict[str, Any]) -> list[Arc]:
        """Return the arcs to follow: the first that holds, or all that hold in inclusive mode.

        After an error only an arc whose condition looks at it is taken, and handles it; others only with `on_error: continue`.
        """
        chosen: list[Arc] = []
        if not step.arcs:
            return chosen
        names = self._names_after(run)
        failed = run.status == "failed"
        for arc in step.arcs:
            if failed and not arc.sees_errors and self._playbook.on_error != "continue":
                continue
            if not self._holds(arc.when, names, record, place=f"arc to '{arc.target or 'end'}'"):
                continue
            record["handled"] = record["handled"] or (failed and arc.sees_errors)
            chosen.append(arc)
            if step.mode == "exclusive":
                break
        return chosen

    @staticmethod
    def _holds(when: str | None, names: Mapping[str, Any], record: dict[str, Any], *, place: str) -> bool:
        """Whether a condition holds; one that cannot be evaluated does not, and leaves a diagnostic in `record`.

        Raises:
            TemplateError: what it looks at is lost, or, when strict, undefined.
        """
        if when is None:
            return True
        try:
            return render_condition(when, names)
        except UnusableError as error:
            raise TemplateError(f"{place}: {error}") from error
        except TemplateError as error:
            record.setdefault("diagnostics", []).append(f"{place}: {error}"[:DIAGNOSTIC_CHARS_MAX])
            return False

    # --- entering --------------------------------------------------------------------------------------------------

    def _may_enter(self, target: str) -> bool:
        """Whether no step that still runs or waits may lead to `target` another time (the join)."""
        run = self.state.runs.get(target)
        if run is not None and run.status == "running":
            return False
        if self._playbook.upstream_counts.get(target, 0) < 2:
            return True
        may_reach = self._playbook.may_reach
        if any(other.status == "running" and may_reach(other.step, target) for other in self.state.runs.values()):
            return False
        return not any(name != target and may_reach(name, target) for name in self.state.waiting)

    def enter(self, name: str, sources: tuple[str, ...] | None) -> None:
        """Enter a step: skip it, pass through it, start its loop or issue its command."""
        step = self._playbook.steps[name]
        before = self.state.runs.get(name)
        epoch = 1 if before is None else before.epoch + 1
        source = self.state.runs.get(sources[-1]) if sources else None
        event = source.outcome_type if source is not None else "command_creation"
        names = with_run(self._base(), step=name, run=source, event=event, now=self._now)
        try:
            if epoch > EPOCHS_MAX:
                raise TemplateError(f"step '{name}' was entered {EPOCHS_MAX} times: its cycle does not end")
            own: dict[str, Any] = {"epoch": epoch}
            if not self._is_admitted(step, names, own):
                self._pass(name, own, "step.skipped", "SKIPPED")
            elif step.tool_kind is None:
                self._pass(name, own, "step.exit", "COMPLETED")
            elif step.loop is not None:
                self._start_loop(step, epoch, names)
            else:
                self._issue(step, epoch, names, source)
        except TemplateError as error:
            self._fail(name, {"epoch": epoch}, str(error))
        run = self.state.runs[name]
        if step.timeout_seconds is not None and run.status == "running":
            self._timer(name, timeout_purpose(epoch), step.timeout_seconds)

    def _is_admitted(self, step: Step, names: Mapping[str, Any], own: dict[str, Any]) -> bool:
        if not self._holds(step.when, names, own, place=f"step '{step.name}', when"):
            return False
        for rule in step.admit:
            if self._holds(rule.when, names, own, place=f"step '{step.name}', admit"):
                return rule.allow
        return True

    def _pass(self, name: str, own: Mapping[str, Any], event_type: str, status: str) -> None:
        """Leave a step without a command: it is skipped, or has no tool."""
        self.flush()
        meta = {ROUTING_KEY: own}
        effect = AppendEvent(event_type=event_type, node_name=name, node_type="step", status=status, meta=meta)
        self.effects.append(effect)
        self.state = fold_passed(self.state, name, own["epoch"], self._folded(effect))

    def _fail(self, name: str, own: Mapping[str, Any], error: str) -> None:
        """End an item or a whole step as failed without a command having said so."""
        self.flush()
        effect = AppendEvent(
            event_type="call.error",
            node_name=name,
            node_type="step",
            status="FAILED",
            context={"response": {"status": "error", "error": error}},
            meta={ROUTING_KEY: dict(own)},
            error=error,
        )
        self.effects.append(effect)
        self.state = fold_own_end(self.state, name, own, error, self._folded(effect))

    def _folded(self, effect: AppendEvent) -> Event:
        return effect.as_event(self.state.version, 0, self._moment)

    def _issue(
        self,
        step: Step,
        epoch: int,
        names: dict[str, Any],
        source: StepRun | None,
        *,
        index: int = 0,
        attempt: int = 1,
        loop: LoopState | None = None,
    ) -> None:
        command_id = command_id_for(self.state.execution_id, step.name, epoch, index, attempt)
        own: dict[str, Any] = {"epoch": epoch}
        attempts_max = step.retry.attempts if step.retry is not None else 1
        if loop is not None:
            own["index"] = index
        if attempts_max > 1:
            own["attempts_max"] = attempts_max
        mark = missed_so_far()
        effect: IssueCommand = self._builder.build(
            self.state, step, names, command_id=command_id, index=index, attempt=attempt, loop=loop, source=source
        )
        own |= _undefined(mark)
        if self._records:
            own["routed"], self._records = self._records, []
        effect = replace(effect, meta={**effect.meta, ROUTING_KEY: own})
        self.effects.append(effect)
        self._commands += 1
        self._bytes += self._builder.last_bytes
        self.state = fold_command(
            self.state,
            step.name,
            epoch=epoch,
            index=index,
            attempt=attempt,
            attempts_max=attempts_max,
            command_id=command_id,
            version=self.state.version,
        )

    def _timer(self, step: str, purpose: str, seconds: float) -> None:
        self.effects.append(
            SetTimer(
                timer_id=timer_id_for(self.state.execution_id, step, purpose),
                due_at=(self._moment + timedelta(seconds=seconds)).isoformat(),
                purpose=purpose,
                step_name=step or None,
            )
        )

    # --- steps that run --------------------------------------------------------------------------------------------

    def _attend(self, run: StepRun) -> None:
        step = self._playbook.steps.get(run.step)
        if step is None:
            return
        if run.timed_out:
            self._cancel_open(run, "timeout")
            text = f"step '{run.step}' took longer than {step.timeout_seconds or 0:g} s"
            self._fail(run.step, {"epoch": run.epoch}, text)
            return
        for attempt in list(run.attempts.values()) if run.attempts_max > 1 else ():
            if attempt.status == "failed":
                self._repeat(step, run, attempt)
            elif attempt.status == "due":
                self._again(step, run, attempt)
        current = self.state.runs[run.step]
        if current.loop is not None and current.status == "running":
            self._drive(step, current)

    def _cancel_open(self, run: StepRun, reason: str) -> None:
        for attempt in run.attempts.values():
            if attempt.status == "running" and attempt.command_id is not None:
                self.effects.append(CancelCommand(command_id=attempt.command_id, reason=reason))

    def _repeat(self, step: Step, run: StepRun, attempt: Attempt) -> None:
        """Decide about a failed attempt: now again, later again, or never."""
        key = {"step": run.step, "epoch": run.epoch, "index": attempt.index, "attempt": attempt.number}
        retry = step.retry
        failing = run.loop is not None and run.loop.is_failing
        if retry is None or failing or not self._is_retried(step, run, attempt):
            record = {"kind": "gave_up", **key}
        else:
            purpose = retry_purpose(run.epoch, attempt.index, attempt.number)
            spread = timer_id_for(self.state.execution_id, run.step, purpose) % 2001 / 1000 - 1
            delay = retry.delay_after(attempt.number, spread)
            if delay <= 0:
                self._again(step, run, attempt)
                return
            self._timer(run.step, purpose, delay)
            record = {"kind": "retry", **key, "delay_seconds": round(delay, 3)}
        self.state = fold_record(self.state, record)
        self._records.append(record)

    def _is_retried(self, step: Step, run: StepRun, attempt: Attempt) -> bool:
        if step.retry is None or step.retry.on is None:
            return True
        failed = replace(run, status="failed", response=attempt.response, error=attempt.error)
        names = {**self._names_after(failed, "call.error"), "attempt": attempt.number}
        try:
            return render_condition(step.retry.on, names)
        except TemplateError:
            return False

    def _again(self, step: Step, run: StepRun, attempt: Attempt) -> None:
        number = attempt.number + 1
        names = with_run(self._base(), step=step.name, run=None, event="retry", now=self._now)
        self._start_item(step, run, names, attempt.index, attempt=number)

    # --- loops -----------------------------------------------------------------------------------------------------

    def _start_loop(self, step: Step, epoch: int, names: dict[str, Any]) -> None:
        assert step.loop is not None
        limit = loop_limit(step, names, default=self._loop_in_flight)
        items = loop_items(step, names, limit)
        self.flush()
        attempts_max = step.retry.attempts if step.retry is not None else 1
        context: dict[str, Any] = {
            "loop_event_id": f"loop_{self.state.execution_id}_{step.name}_{epoch}",
            "mode": step.loop.mode,
            "iterator": step.loop.iterator,
            "size": len(items),
            "max_in_flight": limit,
            "on_item_error": "continue" if step.continue_on_item_error else "fail",
        }
        if not isinstance(items, range):
            context["collection"] = items
        meta = {ROUTING_KEY: {"epoch": epoch, "attempts_max": attempts_max}}
        self.effects.append(
            AppendEvent(
                event_type="loop.started",
                node_name=step.name,
                node_type="loop",
                status="RUNNING",
                context=context,
                meta=meta,
                parent_event_id=self.state.workflow_event_id,
            )
        )
        self.state = fold_loop_started(
            self.state, step.name, epoch=epoch, attempts_max=attempts_max, context=context, version=self.state.version
        )
        self._drive(step, self.state.runs[step.name])

    def _drive(self, step: Step, run: StepRun) -> None:
        """Start items as far as the loop allows; end it when none is left."""
        loop = run.loop
        assert loop is not None
        names = None
        while (
            not loop.is_failing
            and loop.next_index < loop.size
            and len(run.attempts) < loop.limit
            and (not run.attempts or self._has_room())
        ):
            if names is None:
                names = with_run(self._base(), step=step.name, run=None, event="loop_init", now=self._now)
            self._start_item(step, run, names, loop.next_index)
            run = self.state.runs[step.name]
            assert run.loop is not None
            loop = run.loop
        busy = bool(run.attempts)
        if loop.is_failing and busy:
            busy = any(attempt.status == "running" for attempt in run.attempts.values())
        if not busy and (loop.is_failing or loop.next_index >= loop.size):
            self._finish_loop(run, loop)

    def _has_room(self) -> bool:
        """Whether this decision may start more items, or should leave them to the next one."""
        return self._commands < DECISION_COMMANDS_MAX and self._bytes < DECISION_BYTES_MAX and not is_half_spent()

    def _start_item(self, step: Step, run: StepRun, names: dict[str, Any], index: int, *, attempt: int = 1) -> None:
        """Issue the command of an item; one that cannot be rendered has failed."""
        loop = run.loop
        source = replace(run, outcome_type="call.done", ended_event_id=None) if loop is not None else None
        try:
            if loop is not None and step.loop is not None:
                names = with_item(names, loop, step.loop.iterator, index)
            self._issue(step, run.epoch, names, source, index=index, attempt=attempt, loop=loop)
        except TemplateError as error:
            own = {"epoch": run.epoch, "index": index} if loop is not None else {"epoch": run.epoch}
            self._fail(step.name, own, str(error))

    def _finish_loop(self, run: StepRun, loop: LoopState) -> None:
        self.flush()
        status = "failed" if loop.is_failing else "completed"
        effect = AppendEvent(
            event_type="loop.done",
            node_name=run.step,
            node_type="loop",
            status=status,
            context={
                "status": status,
                "iterations": loop.ended,
                "result": {"stats": loop_stats(loop)},
                "loop_event_id": loop.loop_id,
            },
            meta={ROUTING_KEY: {"epoch": run.epoch}},
            error=loop.error if loop.is_failing else None,
            parent_event_id=self.state.workflow_event_id,
        )
        self.effects.append(effect)
        self.state = fold_loop_done(self.state, self._folded(effect))

    # --- records ---------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write the records that no command carries as events of their own."""
        for record in self._records:
            self.effects.append(
                AppendEvent(
                    event_type="step.routed",
                    node_name=record["step"],
                    node_type="step",
                    status="COMPLETED",
                    context=record,
                )
            )
        self._records = []

    def drop_plain_records(self) -> None:
        """Forget records that nobody will need, because the execution ends with this decision."""
        self._records = [record for record in self._records if record.get("diagnostics") or record.get("error")]
