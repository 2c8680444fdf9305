"""The names that templates see, and the context that travels with a command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from shared.engine.limits import RENDER_CONTEXT_BYTES_MAX
from shared.engine.state import State, StepRun


class StepResult(dict[str, Any]):
    """A step's output as templates see it: `.data` is itself and `.context` a copy, unless the output has such keys."""

    def __missing__(self, key: str) -> Any:
        if key == "data":
            return self
        raise KeyError(key)


def with_alias(result: Any) -> Any:
    """Return a step's output with the original's `context` alias."""
    if not isinstance(result, Mapping):
        return result
    if "context" in result:
        return StepResult(result)
    return StepResult({**result, "context": dict(result)})


def output_of(run: StepRun | None) -> dict[str, Any]:
    """Return the `output` of the finished step: status, data, error, ref."""
    if run is None or run.status == "skipped":
        return {"status": "ok", "data": None, "error": None, "ref": None}
    if run.status == "failed":
        response = run.response
        error = response.get("error") if isinstance(response, Mapping) else None
        return {"status": "error", "data": response, "error": error or run.error, "ref": None}
    data = run.response
    ref = data.get("reference") if isinstance(data, Mapping) else None
    found: dict[str, Any] = {"status": "ok", "data": data, "error": None, "ref": ref}
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
    results = {name: with_alias(result) for name, result in state.results.items()}
    ctx = {**state.workload, **results, **state.variables}
    execution_id, catalog_id = str(state.execution_id), str(state.catalog_id)
    names: dict[str, Any] = {
        **ctx,
        "workload": ctx if not state.workload else {**ctx, **state.workload},
        "ctx": ctx,
        "iter": {},
        "event": {
            "name": event,
            "step": step,
            "payload": {} if run is None else {"response": run.response},
            "timestamp": now,
        },
        "output": output_of(run),
        "steps": results,
        "path": state.path,
        "job": {"id": execution_id, "uuid": execution_id, "execution_id": execution_id},
        "execution_id": execution_id,
        "catalog_id": catalog_id,
    }
    names["outcome"] = names["output"]
    if run is not None and run.status == "failed":
        names["error"] = run.error
    return names


# Names of every command's context; all others are data of the execution and travel only as far as the bound allows.
_ALWAYS = frozenset({"ctx", "workload", "iter", "event", "job", "execution_id", "catalog_id", "path"})
_NOT_SENT = frozenset({"steps", "outcome"})  # the same data under another name


def render_context_of(names: Mapping[str, Any], state: State, source: object) -> dict[str, Any]:
    """Return the names that travel with a command: all, or, when they are large, only those that its source mentions."""
    results = {name: names[name] for name in state.results if name in names}
    shown = {key: value for key, value in names.items() if key not in _NOT_SENT}
    shown["ctx"] = {**results, **state.variables}
    shown["workload"] = {**state.variables, **state.workload}
    if len(_dumps(shown)) <= RENDER_CONTEXT_BYTES_MAX:
        return shown
    text = _dumps(source).decode()
    shown = {key: value for key, value in shown.items() if key in _ALWAYS or key in text}
    for key in ("ctx", "workload"):
        shown[key] = {name: value for name, value in shown[key].items() if name in text}
    if len(_dumps(shown["event"])) > RENDER_CONTEXT_BYTES_MAX:
        shown["event"] = {**shown["event"], "payload": None}
    return shown


def _dumps(value: object) -> bytes:
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)
