"""A folded state as JSON and back, exactly: so that loading an execution need not fold its whole log.

The caller keeps a snapshot with the version that it is of, and folds the events after it. Nothing in it is more than the log
says: one that cannot be read is thrown away and the log is folded from its first event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from rpds import HashTrieMap

from shared.engine.jsontext import size_of
from shared.engine.limits import SNAPSHOT_BYTES_MAX
from shared.engine.references import ResultRef, StepResult, as_result
from shared.engine.state import Attempt, LoopState, State, StepRun

SNAPSHOT_FORMAT = 1  # count up whenever `State`, or what its fields mean, changes
_PLAIN_STATE = (
    "execution_id",
    "catalog_id",
    "path",
    "playbook_version",
    "version",
    "status",
    "root_event_id",
    "workflow_event_id",
    "data_bytes",
    "current_step",
    "error",
    "timed_out",
)
_PLAIN_RUN = tuple(field.name for field in fields(StepRun) if field.name not in ("attempts", "loop", "response"))
_PLAIN_LOOP = tuple(field.name for field in fields(LoopState) if field.name not in ("items", "results"))
_PLAIN_ATTEMPT = tuple(field.name for field in fields(Attempt) if field.name != "response")


class SnapshotFormatError(ValueError):
    """The snapshot is of another format than this program's, or is damaged: fold the whole log instead."""


class SnapshotSizeError(ValueError):
    """The state is too large for a snapshot: keep the older one and fold the events since."""


def snapshot_to_json(state: State) -> dict[str, Any]:
    """Return `state` as plain data that JSON can hold.

    Raises:
        SnapshotSizeError: it would have more than about `SNAPSHOT_BYTES_MAX` bytes.
    """
    size = state.data_bytes + sum(_loop_bytes(run.loop) for run in state.runs.values() if run.loop is not None)
    if size > SNAPSHOT_BYTES_MAX:
        raise SnapshotSizeError(f"a snapshot has at most {SNAPSHOT_BYTES_MAX} bytes; this state has about {size}")
    return {
        "format": SNAPSHOT_FORMAT,
        **{name: getattr(state, name) for name in _PLAIN_STATE},
        "workload": dict(state.workload),
        "variables": dict(state.variables),
        "results": {name: _packed(value) for name, value in state.results.items()},
        "runs": [_run_to_json(run, state.results.get(name)) for name, run in state.runs.items()],
        "unrouted": list(state.unrouted),
        "waiting": [[name, list(sources)] for name, sources in state.waiting.items()],
        "open": [[command_id, step, index] for command_id, (step, index) in state.open.items()],
        "sizes": dict(state.sizes.items()),
        "completed_steps": list(state.completed_steps),
        "failures": [list(failure) for failure in state.failures],
    }


def snapshot_from_json(data: Mapping[str, Any]) -> State:
    """Return the state that `snapshot_to_json` was given.

    Raises:
        SnapshotFormatError: it has another format, or is damaged.
    """
    if not isinstance(data, Mapping) or data.get("format") != SNAPSHOT_FORMAT:
        found = data.get("format") if isinstance(data, Mapping) else type(data).__name__
        raise SnapshotFormatError(f"a snapshot of format {found!r}; this program reads format {SNAPSHOT_FORMAT}")
    try:
        results = {str(name): _unpacked(value) for name, value in data["results"].items()}
        return State(
            **{name: data[name] for name in _PLAIN_STATE},
            workload=dict(data["workload"]),
            variables=dict(data["variables"]),
            results=results,
            runs={item["step"]: _run_from_json(item, results) for item in data["runs"]},
            unrouted=tuple(data["unrouted"]),
            waiting={name: tuple(sources) for name, sources in data["waiting"]},
            open=HashTrieMap({command_id: (step, index) for command_id, step, index in data["open"]}),
            sizes=HashTrieMap(data["sizes"]),
            completed_steps=tuple(data["completed_steps"]),
            failures=tuple((step, text) for step, text in data["failures"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SnapshotFormatError(f"the snapshot is damaged: {type(error).__name__}: {error}") from error


def _loop_bytes(loop: LoopState) -> int:
    return loop.results_bytes + (0 if isinstance(loop.items, range) else size_of(loop.items))


# --- values -----------------------------------------------------------------------------------------------------------
# A step's output is more than plain data in three places only: itself, and the items of a loop's results.


def _packed(value: Any) -> list[Any]:
    """Return `value` with its kind: `ref`erence, `step` output (without the alias that `as_result` makes) or `plain`."""
    if isinstance(value, ResultRef):
        return ["ref", dict(value)]
    if isinstance(value, StepResult):
        inner = {key: item for key, item in value.items() if key != "context"}
        if value.get("context") != inner:
            inner = dict(value)
        items = inner.get("results")
        refs = [index for index, item in enumerate(items) if isinstance(item, ResultRef)] if type(items) is list else []
        return ["step", inner, refs]
    return ["plain", value]


def _unpacked(packed: list[Any]) -> Any:
    kind, value, *rest = packed
    if kind == "ref":
        return ResultRef(value)
    if kind == "step":
        for index in rest[0]:
            value["results"][index] = ResultRef(value["results"][index])
        return as_result(value)
    return value


# --- runs -------------------------------------------------------------------------------------------------------------


def _run_to_json(run: StepRun, result: Any) -> dict[str, Any]:
    """Return a run; its output is left out when it is the step's newest result, which stands there already."""
    found = {name: getattr(run, name) for name in _PLAIN_RUN}
    if run.response is not None and run.response is result:
        found["is_result"] = True
    elif run.response is not None:
        found["response"] = _packed(run.response)
    if run.attempts:
        found["attempts"] = [
            {**{name: getattr(attempt, name) for name in _PLAIN_ATTEMPT}, "response": _packed(attempt.response)}
            for attempt in run.attempts.values()
        ]
    if run.loop is not None:
        found["loop"] = _loop_to_json(run.loop)
    return found


def _run_from_json(data: Mapping[str, Any], results: Mapping[str, Any]) -> StepRun:
    response = results[data["step"]] if data.get("is_result") else None
    if "response" in data:
        response = _unpacked(data["response"])
    attempts = {
        item["index"]: Attempt(**{name: item[name] for name in _PLAIN_ATTEMPT}, response=_unpacked(item["response"]))
        for item in data.get("attempts", ())
    }
    return StepRun(
        **{name: data[name] for name in _PLAIN_RUN},
        response=response,
        attempts=HashTrieMap(attempts),
        loop=_loop_from_json(data["loop"]) if "loop" in data else None,
    )


def _loop_to_json(loop: LoopState) -> dict[str, Any]:
    found = {name: getattr(loop, name) for name in _PLAIN_LOOP}
    if not isinstance(loop.items, range):
        found["items"] = list(loop.items)
    if loop.results is not None:
        found["results"] = [[index, _packed(value)] for index, value in loop.results.items()]
    return found


def _loop_from_json(data: Mapping[str, Any]) -> LoopState:
    results = None
    if "results" in data:
        results = HashTrieMap({cast("int", index): _unpacked(value) for index, value in data["results"]})
    return LoopState(
        **{name: data[name] for name in _PLAIN_LOOP},
        items=data["items"] if "items" in data else range(data["size"]),
        results=results,
    )


__all__ = [
    "SNAPSHOT_FORMAT",
    "SnapshotFormatError",
    "SnapshotSizeError",
    "snapshot_from_json",
    "snapshot_to_json",
]
