"""The names that templates see, and the context that travels with a command."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from shared.engine.jsontext import dumps, size_of
from shared.engine.limits import CONTEXT_NAME_BYTES_MAX, LOOP_CONTEXT_BYTES_MAX, RENDER_CONTEXT_BYTES_MAX
from shared.engine.outcome import error_info
from shared.engine.references import ResultRef, as_result, result_ref
from shared.engine.state import LoopState, State, StepRun


class StepOutput(dict[str, Any]):
    """The `output` of a step; a member that it lacks is looked for in its data, which may have to be loaded."""

    def __missing__(self, key: str) -> Any:
        data = self["data"]
        if isinstance(data, Mapping):
            try:
                return data[key]
            except KeyError:
                pass
        if key == "result":  # the published language's name of `data`
            return data
        raise KeyError(key)


def output_of(run: StepRun | None) -> dict[str, Any]:
    """Return the `output` of the finished step: status, data, error, ref; with the members of its data beside them."""
    if run is None or run.status == "skipped":
        return {"status": "ok", "data": None, "error": None, "ref": None}
    if run.status == "failed":
        return {"status": "error", "data": run.response, "error": error_info(run.response, run.error), "ref": None}
    data = run.response
    ref = data.get("reference") if isinstance(data, ResultRef) else None
    found = StepOutput({"status": "ok", "data": data, "error": None, "ref": ref})
    if isinstance(data, Mapping):
        found.update({key: value for key, value in data.items() if key not in found})
    return found


def names_for(
    state: State, *, step: str, run: StepRun | None = None, event: str = "command_creation", now: str = ""
) -> dict[str, Any]:
    """Return the names of engine_spec.md section 2.5.

    Args:
        state: the folded execution.
        step: the step that the template stands in.
        run: the finished run whose arcs are walked; None at command creation.
        event: name of the event, `command_creation` when a command is built.
        now: ISO 8601 time of the decision.
    """
    ctx = {**state.workload, **state.results, **state.variables}
    execution_id, catalog_id = str(state.execution_id), str(state.catalog_id)
    names: dict[str, Any] = {
        **ctx,
        "workload": ctx if not state.workload else {**ctx, **state.workload},
        "ctx": ctx,
        "iter": {},
        "args": state.variables,
        "steps": state.results,
        "path": state.path,
        "version": state.playbook_version,
        "job": {"id": execution_id, "uuid": execution_id, "execution_id": execution_id},
        "execution_id": execution_id,
        "catalog_id": catalog_id,
        "now": lambda *_: datetime.fromisoformat(now) if now else None,
    }
    return with_run(names, step=step, run=run, event=event, now=now)


def with_run(names: dict[str, Any], *, step: str, run: StepRun | None, event: str, now: str) -> dict[str, Any]:
    """Return `names` with what is special to one step and the run that its templates look at."""
    payload = {} if run is None else {"response": run.response, "error": run.error}
    output = output_of(run)
    found: dict[str, Any] = {
        **names,
        "event": {"name": event, "step": step, "payload": payload, "timestamp": now},
        "output": output,
        "outcome": output,
    }
    if run is not None:
        found.setdefault("result", run.response)
    if run is not None and run.status == "failed":
        found |= {"error": run.error, run.step: as_result(run.response)}
    return found


def with_arguments(names: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `names` with a step's own input among its `args`, beside what the arcs that led to it have set."""
    return {**names, "args": {**names["args"], **given}}


def with_item(names: Mapping[str, Any], loop: LoopState, iterator: str, index: int) -> dict[str, Any]:
    """Return `names` with those of one item of a loop."""
    item = loop.items[index] if loop.mode != "cursor" else None
    first, last = index == 0, index == loop.size - 1
    own = {
        iterator: item,
        "_index": index,
        "_first": first,
        "_last": last,
        "_total": loop.size,
        "loop_event_id": loop.loop_id,
    }
    return {
        **names,
        iterator: item,
        "loop_index": index,
        "_index": index,
        "_total": loop.size,
        "iter": own,
        "loop": {"index": index, "first": first, "last": last, "length": loop.size, "done": False},
    }


# Names of every command's context; all others are data of the execution and travel only as far as the bound allows.
_ALWAYS = frozenset(
    {"ctx", "workload", "iter", "event", "job", "execution_id", "catalog_id", "path", "loop", "loop_index"}
)
_NOT_SENT = frozenset({"steps", "outcome", "now"})  # the same data under another name, or no data


def render_context_of(
    names: Mapping[str, Any], state: State, mentions: frozenset[str], *, is_item: bool = False
) -> dict[str, Any]:
    """Return the names that travel with a command: all, or, when they are large, only those that its source mentions."""
    bytes_max = (
        LOOP_CONTEXT_BYTES_MAX if is_item else RENDER_CONTEXT_BYTES_MAX // 3
    )  # values stand there up to three times
    results = {name: names[name] for name in state.results if name in names}
    shown = {key: value for key, value in names.items() if key not in _NOT_SENT}
    if "args" not in mentions:
        shown.pop("args", None)
    shown["ctx"] = {**results, **state.variables}
    shown["workload"] = {**state.variables, **state.workload}
    if state.data_bytes <= bytes_max:
        return shown
    shown = {key: value for key, value in shown.items() if key in _ALWAYS or key in mentions}
    shown["ctx"] = {name: value for name, value in shown["ctx"].items() if name in mentions}
    shown["workload"] = {name: value for name, value in shown["workload"].items() if name in mentions}
    for name in state.workload:
        if (state.sizes.get(f"w:{name}") or 0) > CONTEXT_NAME_BYTES_MAX:
            reference = workload_ref(state, name)
            for place in (shown, shown["workload"]):
                if name in place and place[name] is state.workload[name]:
                    place[name] = reference
    if size_of(shown["event"]) > RENDER_CONTEXT_BYTES_MAX:
        shown["event"] = {**shown["event"], "payload": {}}
    output = shown.get("output")
    if isinstance(output, Mapping) and size_of(output) > RENDER_CONTEXT_BYTES_MAX:
        shown["output"] = {key: output[key] for key in ("status", "error", "ref")} | {"data": None}
    return shown


def workload_ref(state: State, name: str) -> ResultRef:
    """Return a reference to a large value of the workload; the log has it."""
    locator = f"noetl://execution/{state.execution_id}/workload/{name}"
    return result_ref({"type": "workload", "locator": locator, "store": "eventlog"}, {})


__all__ = [
    "as_result",
    "dumps",
    "names_for",
    "output_of",
    "render_context_of",
    "with_arguments",
    "with_item",
    "with_run",
    "workload_ref",
]
