"""The command of a step: what a worker gets to know, and what a loop goes over."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

from shared.engine.context import render_context_of, with_arguments
from shared.engine.effects import IssueCommand
from shared.engine.jsontext import size_of
from shared.engine.limits import LOOP_IN_FLIGHT_MAX, LOOP_ITEMS_MAX, MAX_ATTEMPTS
from shared.engine.playbook import Playbook, Step
from shared.engine.state import SEQUENCE_SUFFIX, LoopState, State, StepRun
from shared.engine.templates import TemplateError, deferred_paths, render_text, render_value

_FRAME_DEFAULTS = {
    "max_rows": 1,
    "max_seconds": 30.0,
    "max_bytes": 64 << 20,
    "lease_seconds": 120.0,
    "heartbeat_seconds": 30.0,
    "row_concurrency": 1,
    "process": "row",
    "verify_ipc": False,
    "retry_mode": "whole_frame",
    "max_attempts": 3,
}  # engine_spec.md section 1.7

_PATH_POOLS = {"system/": "system", "subscription/": "subscription"}
_KIND_POOLS = {"task_sequence": "python", "cursor_worker": "python", "agent": "python"}


def pool_for(*, tool_kind: str, path: str, given: str | None) -> str | None:
    """Return the pool of a command, None for the shared one.

    Without a pool of its own a command goes where the original's publisher sends it: by the playbook's path, then to the Python
    workers when only they can run it, because both lines of workers write task sequences differently (clients.md section 2.5).
    """
    if given:
        return given
    by_path = next((pool for prefix, pool in _PATH_POOLS.items() if path.startswith(prefix)), None)
    return by_path or _KIND_POOLS.get(tool_kind)


class CommandBuilder:
    """Builds commands of one decision."""

    def __init__(self, playbook: Playbook) -> None:
        self._playbook = playbook
        self.last_bytes = 0  # of the newest command's tool configuration and input

    def build(
        self,
        state: State,
        step: Step,
        names: dict[str, Any],
        *,
        command_id: int,
        index: int,
        attempt: int,
        loop: LoopState | None,
        source: StepRun | None,
    ) -> IssueCommand:
        """Return the command.

        Raises:
            TemplateError: a value cannot be rendered; the text names the step and the key.
        """
        kind = step.tool_kind or "noop"
        sequence = kind in ("task_sequence", "cursor_worker")
        node = step.name + SEQUENCE_SUFFIX if sequence else step.name
        meta: dict[str, Any] = {
            "step": node,
            "attempt": attempt,
            "max_attempts": MAX_ATTEMPTS,
            "tool_kind": kind,
            "actionable": True,
            "catalog_id": str(state.catalog_id),
            "execution_id": str(state.execution_id),
            "command_id": command_id,
        }
        if sequence:
            meta |= {"parent_step": step.name, "task_sequence": True}
        if loop is not None:
            meta |= {
                "loop_step": step.name,
                "loop_event_id": loop.loop_id,
                "__loop_epoch_id": loop.loop_id,
                "loop_iteration_index": index,
            }
            if index == 0:
                meta["loop_total"] = loop.size
        if source is not None and loop is None:
            meta["triggered_by"] = source.outcome_type
        context = self._context(state, step, names, loop, index)
        parent = source.ended_event_id if source is not None else None
        return IssueCommand(
            command_id=command_id,
            step_name=node,
            tool_kind=kind,
            context=context,
            meta=meta,
            attempt=attempt,
            parent_event_id=parent or state.workflow_event_id,
            loop_event_id=loop.loop_id if loop is not None else None,
            iter_index=index if loop is not None else None,
            pool=pool_for(tool_kind=kind, path=self._playbook.path, given=step.pool or self._playbook.pool),
            child=_child(step, context) if step.is_child else None,
        )

    def _context(
        self, state: State, step: Step, names: dict[str, Any], loop: LoopState | None, index: int
    ) -> dict[str, Any]:
        try:
            given = render_value(dict(step.input), names)
        except TemplateError as error:
            raise TemplateError(f"step '{step.name}', input: {error}") from error
        names = with_arguments(names, given)
        if step.tool_kind == "cursor_worker":
            config: dict[str, Any] = _cursor(step, names, loop, index)
        elif step.tool_kind == "task_sequence":
            config = {**step.tool, "tasks": list(step.tasks)}
        else:
            config = {"spec": None, "output": None, **_rendered_tool(step, names)}
            config = config if step.is_child else _with_args(config, given)
        deferred = [list(path) for path in _deferred(step)]
        self.last_bytes = size_of([config, given])
        return {
            "tool_config": config,
            "input": given,
            **({"args": given} if given and not step.tasks else {}),  # where the Rust line looks for them
            "deferred": deferred,
            "render_context": render_context_of(names, state, step.mentions, is_item=loop is not None),
            "spec": {"next_mode": step.mode},
        }


@lru_cache(maxsize=4096)  # steps of all playbooks in use
def _deferred(step: Step) -> tuple[tuple[str | int, ...], ...]:
    """Return the places of a command whose author named the keychain."""
    tool: Mapping[str, Any] = {} if step.tasks else _with_args(step.tool, step.input)  # tasks: all by the worker
    if step.loop is not None and step.loop.cursor:
        tool = {"cursor": step.loop.cursor}
    return tuple(deferred_paths({"tool_config": tool, "input": step.input}))


def _with_args(tool: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool whose values stand in `args` alone when they come from several places: the step's wins, then `input`.

    The Rust line reads `args` of the context only when the tool has none, and refuses a tool that has `args` and `input`.
    """
    own = [tool[key] for key in ("args", "input") if isinstance(tool.get(key), Mapping)]
    if not own or (len(own) == 1 and not given):
        return dict(tool)
    merged = {key: value for part in (*own, given) for key, value in part.items()}
    return {**{key: value for key, value in tool.items() if key != "input"}, "args": merged}


def _rendered_tool(step: Step, names: Mapping[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for key, value in step.tool.items():
        try:
            config[key] = render_value(value, names)
        except TemplateError as error:
            if key != "code":  # braces in code need not be ours
                raise TemplateError(f"step '{step.name}', tool.{key}: {error}") from error
            config[key] = value
    return config


def _cursor(step: Step, names: Mapping[str, Any], loop: LoopState | None, index: int) -> dict[str, Any]:
    assert step.loop is not None
    assert loop is not None
    frame = _frame(step, names)
    cursor = dict(step.loop.cursor or {})
    try:
        cursor = render_value(cursor, {**names, "__frame_max_rows": frame["max_rows"]})
    except TemplateError as error:
        raise TemplateError(f"step '{step.name}', loop.cursor: {error}") from error
    return {
        "tasks": list(step.tasks),
        "cursor": {"kind": "postgres", "options": None, **cursor},
        "iterator": step.loop.iterator,
        "frame_policy": frame,
        "worker_count": loop.size,
        "loop_event_id": loop.loop_id,
        "worker_slot_id": f"{loop.loop_id}:slot-{index}",
        "worker_slot_index": index,
    }


def _frame(step: Step, names: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the rows of a cursor are taken, templates rendered, numbers as numbers."""
    assert step.loop is not None
    try:
        given = render_value(dict(step.loop.frame), names)
    except TemplateError as error:
        raise TemplateError(f"step '{step.name}', loop.spec.frame: {error}") from error
    frame = {**_FRAME_DEFAULTS, **given}
    for key, default in _FRAME_DEFAULTS.items():
        if isinstance(default, int | float) and not isinstance(default, bool):
            frame[key] = _frame_number(step, key, frame[key], type(default))
    return frame


def _frame_number(step: Step, key: str, value: object, kind: type[int | float]) -> int | float:
    try:
        number = kind(float(str(value)))
    except (ValueError, OverflowError):
        number = kind(0)
    if isinstance(value, bool) or number <= 0:
        text = f"must be a positive number, not {str(value)[:100]!r}"
        raise TemplateError(f"step '{step.name}', loop.spec.frame.{key}: {text}")
    return number


def _child(step: Step, context: Mapping[str, Any]) -> dict[str, Any]:
    """Return which playbook to run, with what, and whether to wait for its end."""
    config = context["tool_config"]
    path, catalog_id = config.get("path"), config.get("catalog_id")
    if not (isinstance(path, str) and path) and not catalog_id:
        raise TemplateError(f"step '{step.name}': a playbook tool needs `path` or `catalog_id`")
    payload: dict[str, Any] = {}
    for given in (config.get("args"), config.get("payload"), config.get("input"), context["input"]):
        if isinstance(given, Mapping):
            payload.update(given)
    wait = config.get("wait")
    waits = bool(config.get("return_step")) if wait is None else _is_true(wait)
    return {
        "path": path,
        "catalog_id": catalog_id,
        "version": config.get("version"),
        "payload": payload,
        "wait": waits,
        "ignore_failure": _is_true(config.get("ignore_failure")),
    }


def _is_true(value: object) -> bool:
    return value is True or str(value).lower() in ("true", "1", "yes")


# --- loops ------------------------------------------------------------------------------------------------------------


def loop_limit(step: Step, names: Mapping[str, Any], *, default: int) -> int:
    """Return how many items of a loop may be in flight.

    Raises:
        TemplateError: `max_in_flight` is no positive number.
    """
    assert step.loop is not None
    if step.loop.mode == "sequential":
        return 1
    given = step.loop.max_in_flight
    if given is None:
        return default if step.loop.mode == "parallel" else 1
    value = render_value(given, names)
    text = str(value).strip()
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if number < 1:
        raise TemplateError(
            f"step '{step.name}', loop.spec.max_in_flight: must be a positive integer, not {text[:100]!r}"
        )
    return min(number, LOOP_IN_FLIGHT_MAX)


def loop_items(step: Step, names: Mapping[str, Any], limit: int) -> Sequence[Any]:
    """Return what a loop goes over: a list as it is, JSON text parsed, an object as {key, value}, a number n as 0..n-1.

    Raises:
        TemplateError: it is none of these, or has more than `LOOP_ITEMS_MAX` items.
    """
    assert step.loop is not None
    if step.loop.mode == "cursor":
        return range(limit)
    where = f"step '{step.name}', loop.in"
    try:
        raw = step.loop.collection
        value = render_text(raw, names) if isinstance(raw, str) else render_value(raw, names)
    except TemplateError as error:
        raise TemplateError(f"{where}: {error}") from error
    if isinstance(value, str):
        value = _parsed(value, where)
    if isinstance(value, Mapping):
        value = [{"key": key, "value": item} for key, item in value.items()]
    elif value is None:
        value = []
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        value = range(min(value, sys.maxsize))
    if not isinstance(value, list | range):
        kind = "a negative number" if isinstance(value, int) and not isinstance(value, bool) else type(value).__name__
        raise TemplateError(f"{where}: must be a list, an object, a number or JSON text of one, not {kind}")
    if len(value) > LOOP_ITEMS_MAX:
        raise TemplateError(f"{where}: a loop has at most {LOOP_ITEMS_MAX} items, not {len(value)}")
    return value


def _parsed(text: str, where: str) -> Any:
    if not text.strip():
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise TemplateError(f"{where}: must be a list; the text {text[:100]!r} is no JSON") from None
