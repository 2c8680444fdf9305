"""What a task sequence knows: results, variables, and the names that its templates see. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.engine.errors import error_members
from shared.engine.references import ResultRef, StepResult

_FAILED = frozenset({"error", "failed"})


class Output(dict[str, Any]):
    """The `output` of a task for its rules: status, data, error, meta, http | pg | py; members of the data beside them."""

    def __missing__(self, key: str) -> Any:
        data = self["data"]
        if isinstance(data, Mapping) and key in data:
            return data[key]
        if key == "result":
            return data
        raise KeyError(key)


class HttpAnswer(StepResult):
    """An HTTP result in `output.data`: what it lacks is looked for in the body, which authors write directly as well."""

    def __missing__(self, key: str) -> Any:
        body = self.get("body") if "body" in self else self.get("data")
        if isinstance(body, Mapping) and key in body:
            return body[key]
        return super().__missing__(key)


class RawOutput(StepResult):
    """The `output` of a task for its own `set`: the tool's result itself; what it lacks is that of the rules' `output`."""

    def __init__(self, value: Mapping[str, Any], envelope: Output) -> None:
        super().__init__(value)
        self._envelope = envelope

    def __missing__(self, key: str) -> Any:
        if key in ("status", "error", "meta", "http", "pg", "py", "ref"):
            return self._envelope[key]
        return super().__missing__(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """One run of a task: its plain result, or the plain response of its failure."""

    kind: str
    result: Any
    failed: bool
    attempt: int
    duration_ms: int


def says_failed(result: Any) -> bool:
    """Whether a result calls itself an error, which makes it one."""
    return isinstance(result, Mapping) and str(result.get("status", "")).lower() in _FAILED


def envelope(ended: Ended, previous_task: str | None) -> Output:
    """Return the `output` that rules see. `previous_task`: the one to go back to when a reference is gone."""
    error = error_of(ended, previous_task) if ended.failed else None
    data = ended.result
    if ended.failed and isinstance(data, Mapping) and data.get("code") is not None and "data" in data:
        data = data["data"]  # a failed tool's partial output, as http's answer
    output = Output(
        status="error" if ended.failed else "ok",
        data=HttpAnswer(data) if ended.kind == "http" and type(data) is dict else as_names(data),
        error=error,
        ref=data.get("reference") if isinstance(data, ResultRef) else None,
        meta={"attempt": ended.attempt, "duration_ms": ended.duration_ms, "kind": ended.kind},
    )
    if ended.kind == "http":
        answer = data if isinstance(data, Mapping) else {}
        status = (error or {}).get("status_code") or answer.get("status_code")
        output["http"] = {"status": status, "headers": answer.get("headers") or {}}
    elif ended.kind == "postgres":
        output["pg"] = {key: (error or {}).get(key) for key in ("code", "sqlstate")}
    elif ended.kind == "python":
        output["py"] = {key: (error or {}).get(key) for key in ("exception", "traceback")}
    return output


def error_of(ended: Ended, previous_task: str | None = None) -> dict[str, Any]:
    """Return the error of a failed run; one whose stored data is gone says where to go back to."""
    error = error_members(ended.result, ended.kind)
    if error["kind"] == "missing_reference":
        error |= {"retryable": True, "recovery": {"do": "jump", "to": previous_task}}
    return error


def as_names(value: Any) -> Any:
    """Return a result as templates see it: `.data` of an object without such a key is the object."""
    return StepResult(value) if isinstance(value, dict) and not isinstance(value, ResultRef | StepResult) else value


def split_key(key: str) -> tuple[str, list[str]]:
    """Return the place that a `set` key names, `ctx` or `iter`, and its path: `iter.a.b` is ("iter", ["a", "b"])."""
    head, *rest = key.split(".")
    if rest and head in ("ctx", "iter", "step", "workload"):
        return ("iter" if head == "iter" else "ctx"), rest
    return "ctx", [head, *rest]


def with_value(values: Mapping[str, Any], path: list[str], value: Any, *, base: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with `value` at `path`; objects on the way are copied from `base` when `values` lacks them."""
    head, *rest = path
    if not rest:
        return {**values, head: value}
    inner = values[head] if head in values else base.get(head)
    inner = inner if isinstance(inner, Mapping) else {}
    return {**values, head: with_value(inner, rest, value, base=inner)}


@dataclass(slots=True, kw_only=True)
class Knowledge:
    """What has happened in one sequence so far. `ctx` and `iter` have only what the sequence itself has set."""

    base: Mapping[str, Any]
    results: dict[str, Any] = field(default_factory=dict)
    ctx: dict[str, Any] = field(default_factory=dict)
    iter: dict[str, Any] = field(default_factory=dict)
    previous: Any = None

    def assign(self, key: str, value: Any) -> None:
        """Set the variable of a `set` key."""
        place, path = split_key(key)
        if place == "iter":
            self.iter = with_value(self.iter, path, value, base=_mapping(self.base.get("iter")))
        else:
            self.ctx = with_value(self.ctx, path, value, base=_mapping(self.base.get("ctx")))

    def names(self, task: str, attempt: int, output: Any = None, envelope: Output | None = None) -> dict[str, Any]:
        """Return the names for a template of `task`: before its run, or after it with its `output` and `envelope`."""
        results = {name: as_names(value) for name, value in self.results.items()}
        names = {
            **self.base,
            **self.ctx,
            **results,
            "workload": {**self.ctx, **_mapping(self.base.get("workload"))},
            "ctx": {**_mapping(self.base.get("ctx")), **self.ctx},
            "iter": {**_mapping(self.base.get("iter")), **self.iter},
            "results": results,
            "_prev": as_names(self.previous),
            "_task": task,
            "_attempt": attempt,
        }
        if envelope is not None:
            names |= {"output": output, "outcome": envelope, "error": envelope["error"]}
        return names


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
