"""`task_sequence`: tasks one after the other in one command, with the policy of each deciding what comes next."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from services.worker.limits import TASKS_MAX
from services.worker.metrics import TASKS
from services.worker.plain import to_plain
from services.worker.policy import (
    Action,
    End,
    Move,
    Place,
    PolicyError,
    Rule,
    action_of,
    choose,
    move,
    rules_of,
)
from services.worker.select import selecting, with_selected
from services.worker.sequence_state import Ended, Knowledge, Output, RawOutput, envelope, error_of, says_failed
from services.worker.tools import TOOLS, ToolError

log = logging.getLogger(__name__)

KIND = "task_sequence"
_OWN_KEYS = frozenset({"kind", "name", "spec", "set", "output", "output_select", "desc", "description"})


class Scope(Protocol):
    """What a sequence needs of its command, as `services.worker.scope.CommandScope`."""

    @property
    def log_fields(self) -> dict[str, Any]:
        """Return what every log line about the command carries."""

    async def rendered(self, value: Any, names: Mapping[str, Any]) -> Any:
        """Evaluate the templates of an author."""

    async def holds(self, condition: Any, names: Mapping[str, Any]) -> bool:
        """Evaluate a condition of an author."""

    async def call(
        self, kind: str, config: Mapping[str, Any], given: Mapping[str, Any], names: Mapping[str, Any]
    ) -> Any:
        """Run a tool."""

    def without_secrets(self, error: ToolError) -> ToolError:
        """Return an error that can be shown."""

    async def sleep(self, seconds: float) -> None:
        """Wait between two attempts."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task as written: its tool, the tool's own keys, and what governs it."""

    name: str
    kind: str
    config: Mapping[str, Any]
    rules: tuple[Rule, ...]
    set: Mapping[str, Any]
    output: Any


@dataclass(slots=True)
class _Meter:
    """Runs, and milliseconds in tools and in templates."""

    runs: int = 0
    tool_ms: float = 0.0
    render_ms: float = 0.0


def parse_tasks(raw: Any) -> tuple[Task, ...]:
    """Read tasks in every form that is sent: `{name, kind, ...}`, `{label: {kind, ...}}`, or one mapping of labels.

    Raises:
        ToolError: a task is malformed.
    """
    items = list(raw) if isinstance(raw, list) else [{label: task} for label, task in _mapping(raw).items()]
    if not items:
        raise ToolError(KIND, "BAD_CONFIG", "a task sequence needs `tasks`, a list of {name, kind, ...}")
    if len(items) > TASKS_MAX:
        raise ToolError(KIND, "BAD_CONFIG", f"{len(items)} tasks; at most {TASKS_MAX} are allowed")
    tasks = tuple(_task(item, index) for index, item in enumerate(items))
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise ToolError(KIND, "BAD_CONFIG", f"two tasks are named '{name}'")
    return tasks


def _task(item: Any, index: int) -> Task:
    if isinstance(item, Mapping) and "kind" not in item and len(item) == 1:
        label, inner = next(iter(item.items()))
        item = {"name": label, **inner} if isinstance(inner, Mapping) else item
    if not isinstance(item, Mapping) or not isinstance(item.get("kind"), str):
        raise ToolError(KIND, "BAD_CONFIG", f"task {index} of the sequence needs `kind`")
    name = str(item.get("name") or f"task_{index}")
    try:
        rules = rules_of(item)
    except PolicyError as error:
        raise ToolError(KIND, "POLICY", f"task '{name}': {error}") from error
    spec = _mapping(item.get("spec"))
    config = {key: value for key, value in item.items() if key not in _OWN_KEYS}
    if item["kind"] == "nats" and "name" in item:
        config["name"] = item["name"]  # of an object in a bucket
    if spec.get("timeout") is not None:
        config.setdefault("timeout", spec["timeout"])
    return Task(name, item["kind"].lower(), config, rules, _mapping(item.get("set")), selecting(item))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


class Sequence:
    """One run of a sequence. `given` is the step's input, which every task's tool gets beside its own."""

    def __init__(
        self, scope: Scope, tasks: tuple[Task, ...], names: Mapping[str, Any], given: Mapping[str, Any]
    ) -> None:
        self._scope = scope
        self._tasks = tasks
        self._names = [task.name for task in tasks]
        self._given = given
        self._known = Knowledge(base=names)
        self._meter = _Meter()

    async def run(self) -> dict[str, Any]:
        """Run it to its end and return the original's result; a failure is a result with status `failed`."""
        began = time.monotonic()
        then: Move | End = Move(Place())
        while isinstance(then, Move):
            if then.delay > 0:
                await self._scope.sleep(then.delay)
            place, task = then.place, self._tasks[then.place.index]
            ended = await self._one(task, place)
            then = await self._next(task, place, ended)
        return self._result(then, task, ended, began)

    async def _one(self, task: Task, place: Place) -> Ended:
        """Run a task once; whatever it raises becomes a failed end."""
        self._meter.runs += 1
        names = self._known.names(task.name, place.attempt)
        began = time.monotonic()
        try:
            config = await self._scope.rendered(task.config, names)
            ready = time.monotonic()
            self._meter.render_ms += (ready - began) * 1000
            try:
                result = await self._scope.call(task.kind, config, self._given, names)
            finally:
                self._meter.tool_ms += (time.monotonic() - ready) * 1000
        except ToolError as error:
            result, failed = to_plain(self._scope.without_secrets(error).to_response()), True
        else:
            failed = says_failed(result) and task.kind != "agent"
            if not failed:
                result = with_selected(result, task.output)
        duration_ms = round((time.monotonic() - began) * 1000)
        TASKS.labels(tool=task.kind if task.kind in TOOLS else "other", outcome="error" if failed else "ok").inc()
        return Ended(kind=task.kind, result=result, failed=failed, attempt=place.attempt, duration_ms=duration_ms)

    async def _next(self, task: Task, place: Place, ended: Ended) -> Move | End:
        """Keep the result, set variables, and follow the task's policy."""
        output = envelope(ended, self._names[max(place.index - 1, 0)])
        if not ended.failed:
            self._known.previous = self._known.results[task.name] = ended.result
        try:
            if not ended.failed and task.set:
                raw = RawOutput(ended.result, output) if isinstance(ended.result, dict) else ended.result
                await self._assign(task.set, self._known.names(task.name, place.attempt, raw, output))
            action = await self._action(task, place, ended, output)
            if action.set:
                await self._assign(action.set, self._known.names(task.name, place.attempt, output, output))
        except (ToolError, PolicyError) as error:
            code = error.code if isinstance(error, ToolError) else "POLICY"
            return End("failed", f"task '{task.name}': {error}", code)
        return move(place, action, self._names, failed=ended.failed)

    async def _action(self, task: Task, place: Place, ended: Ended, output: Output) -> Action:
        names = self._known.names(task.name, place.attempt, output, output)

        async def holds(condition: Any) -> bool:
            try:
                return await self._scope.holds(condition, names)
            except ToolError as error:  # a condition that cannot be told does not hold, as in the original
                shown = {**self._scope.log_fields, "task": task.name, "error": str(error)}
                log.info("condition of a policy failed", extra=shown)
                return False

        then = await choose(task.rules, holds, failed=ended.failed)
        own = {key: value for key, value in then.items() if key != "set"}
        return action_of({**await self._scope.rendered(own, names), "set": then.get("set")})

    async def _assign(self, values: Mapping[str, Any], names: Mapping[str, Any]) -> None:
        rendered = await self._scope.rendered(dict(values), names)
        for key, value in rendered.items():
            self._known.assign(str(key), value)

    def _result(self, end: End, task: Task, ended: Ended, began: float) -> dict[str, Any]:
        result: dict[str, Any] = {
            "status": end.status,
            "_prev": self._known.previous,
            "results": self._known.results,
            "ctx": self._known.ctx,
            "metrics": {
                "task_count": self._meter.runs,
                "duration_ms": round((time.monotonic() - began) * 1000),
                "tool_ms": round(self._meter.tool_ms),
                "render_ms": round(self._meter.render_ms),
            },
        }
        if end.status == "failed":
            error = error_of(ended) if ended.failed else {"kind": "policy", "retryable": False, "code": "POLICY"}
            if end.reason:
                error |= {"message": end.reason, "code": end.code or error["code"]}
            result |= {"error": error, "failed_task": task.name}
        return result


async def run_sequence(
    scope: Scope, config: Mapping[str, Any], names: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Run the tasks of a command's configuration and return the sequence's result.

    Raises:
        ToolError: the configuration is malformed.
    """
    raw = config.get("tasks")
    return await Sequence(scope, parse_tasks(raw if raw is not None else config.get("tool_config")), names, given).run()
