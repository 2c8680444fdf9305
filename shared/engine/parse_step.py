"""One step: its loop, its arcs, its rules of admission, retry and time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast, get_args

from shared.engine import dockeys
from shared.engine.document import Path, Report, did_you_mean, kind_of
from shared.engine.jsontext import dumps
from shared.engine.limits import (
    ARCS_MAX,
    LOOP_IN_FLIGHT_MAX,
    NAME_CHARS_MAX,
    RETRY_ATTEMPTS_MAX,
    RETRY_DELAY_SECONDS,
    RETRY_DELAY_SECONDS_MAX,
    TIMEOUT_SECONDS_MAX,
)
from shared.engine.parse_tool import ToolParser
from shared.engine.playbook import AdmitRule, Arc, Backoff, Loop, LoopMode, Mode, Retry, Step
from shared.engine.state import SEQUENCE_SUFFIX
from shared.engine.toolkeys import BACKOFFS

_DURATION = re.compile(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*(ms|s|m|h|d)?\s*")
_UNIT_SECONDS = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MODES = cast("tuple[str, ...]", get_args(Mode))


def seconds_of(report: Report, value: object, path: Path, *, limit: float) -> float | None:
    """Return a duration in seconds: a number, or text such as `250ms`, `30s`, `5m`, `2h`, `1d`."""
    if value is None:
        return None
    match = _DURATION.fullmatch(str(value)) if not isinstance(value, bool) else None
    seconds = float(match[1]) * _UNIT_SECONDS[match[2]] if match else -1.0
    if not 0 <= seconds <= limit:
        report.add(path, f'a duration is a number of seconds, or like "30s", "5m", "2h"; at most {limit:g} seconds')
        return None
    return seconds


def words_of(value: object) -> frozenset[str]:
    """Return every word of what an author wrote: the names that its templates may look up are among them."""
    return frozenset(_WORD.findall(dumps(value).decode()))


class StepParser:
    """Reads the steps of one document."""

    def __init__(self, report: Report, tools: ToolParser) -> None:
        self._report = report
        self._tools = tools

    def parse(self, raw: Mapping[str, Any], path: Path) -> Step | None:
        """Return the step, None when it has no name."""
        report = self._report
        name = raw.get("step", raw.get("name"))
        if not isinstance(name, str) or not 1 <= len(name) <= NAME_CHARS_MAX:
            text = f"Field required: the step's name, 1 to {NAME_CHARS_MAX} characters of text"
            report.add((*path, "step"), text)
            return None
        if name.endswith(SEQUENCE_SUFFIX):
            report.add((*path, "step"), f"a step's name does not end in '{SEQUENCE_SUFFIX}'")
            return None
        self._keys(raw, path, name)
        spec = report.mapping(raw.get("spec"), (*path, "spec"))
        report.unknown_keys(spec, dockeys.STEP_SPEC, (*path, "spec"), where=f"Step '{name}'")
        tool = self._tools.parse(raw.get("tool"), (*path, "tool"), step=name, output=raw.get("output"))
        mode, arcs = self._next(raw.get("next"), (*path, "next"), spec.get("next_mode"))
        loop, item_error = self._loop(raw.get("loop"), (*path, "loop"), name, tool.kind)
        given = {
            **report.mapping(raw.get("args"), (*path, "args")),
            **report.mapping(raw.get("input"), (*path, "input")),
        }
        values = report.mapping(raw.get("set"), (*path, "set"))
        report.templates(given, (*path, "input"))
        report.templates(values, (*path, "set"))
        item_error = item_error or spec.get("on_item_error")
        report.choice(item_error, ("fail", "continue"), (*path, "spec", "on_item_error"))
        pool = raw.get("execution_pool") or spec.get("execution_pool") or spec.get("pool")
        if pool is not None and not isinstance(pool, str):
            report.add((*path, "execution_pool"), "must be the name of a pool")
            pool = None
        kind = "cursor_worker" if loop is not None and loop.mode == "cursor" and tool.kind else tool.kind
        return Step(
            name=name,
            tool_kind=kind,
            tool=tool.config or {},
            tasks=_cursor_tasks(name, tool.kind, tool.config, tool.tasks) if kind == "cursor_worker" else tool.tasks,
            input=given,
            when=report.when(raw.get("when"), (*path, "when")),
            admit=self._admit(spec.get("policy"), (*path, "spec", "policy")),
            set=values,
            mode=mode,
            arcs=arcs,
            loop=loop,
            retry=self._retry(spec.get("retry"), (*path, "spec", "retry")),
            timeout_seconds=seconds_of(
                report, spec.get("timeout"), (*path, "spec", "timeout"), limit=TIMEOUT_SECONDS_MAX
            ),
            continue_on_item_error=item_error == "continue",
            pool=pool,
            mentions=words_of([tool.config, list(tool.tasks), given]),
            line=report.line(path),
        )

    def _keys(self, raw: Mapping[str, Any], path: Path, name: str) -> None:
        for key in raw:
            if key in dockeys.STEP_OBSOLETE:
                self._report.warn((*path, key), f"Step '{name}': '{key}' is not run: {dockeys.STEP_OBSOLETE[key]}")
            elif key not in dockeys.STEP:
                more = did_you_mean(key, dockeys.STEP)
                self._report.warn((*path, key), f"Step '{name}': unknown key '{key}' is ignored{more}")

    # --- loops -----------------------------------------------------------------------------------------------------

    def _loop(self, raw: object, path: Path, step: str, kind: str | None) -> tuple[Loop | None, object]:
        if raw is None:
            return None, None
        report = self._report
        if not isinstance(raw, dict):
            report.add(path, f"must be a mapping with `in` and `iterator`, not {kind_of(raw)}")
            return None, None
        for key in raw:
            if key in ("mode", "max_in_flight"):
                report.warn((*path, key), f"Step '{step}': loop.{key} is ignored: put it under loop.spec")
            elif key not in dockeys.LOOP:
                more = did_you_mean(key, dockeys.LOOP)
                report.warn((*path, key), f"Step '{step}': unknown key 'loop.{key}' is ignored{more}")
        spec = report.mapping(raw.get("spec"), (*path, "spec"))
        report.unknown_keys(spec, dockeys.LOOP_SPEC, (*path, "spec"), where=f"Step '{step}'")
        iterator = raw.get("iterator")
        if not isinstance(iterator, str) or not _WORD.fullmatch(iterator):
            report.add((*path, "iterator"), "Field required: the name of the loop variable, like `item`")
            iterator = "item"
        mode = report.choice(spec.get("mode"), get_args(LoopMode), (*path, "spec", "mode")) or "sequential"
        cursor = raw.get("cursor")
        has_collection = "in" in raw or "in_" in raw
        collection = raw.get("in", raw.get("in_"))
        self._check_source(path, has_collection=has_collection, cursor=cursor, mode=mode)
        report.templates(collection, (*path, "in"))
        limit = spec.get("max_in_flight")
        if isinstance(limit, bool) or (isinstance(limit, int) and not 1 <= limit <= LOOP_IN_FLIGHT_MAX):
            report.add((*path, "spec", "max_in_flight"), f"must be a number from 1 to {LOOP_IN_FLIGHT_MAX}")
        elif limit is not None and not isinstance(limit, int | str):
            report.add((*path, "spec", "max_in_flight"), "must be a number or a template")
        report.templates(limit, (*path, "spec", "max_in_flight"))
        if kind is None:
            report.add(path, f"Step '{step}': a loop needs a tool")
        loop = Loop(
            iterator=iterator,
            collection=collection,
            mode=cast("LoopMode", mode),
            max_in_flight=limit,
            cursor=cursor if isinstance(cursor, dict) else None,
            frame=report.mapping(spec.get("frame"), (*path, "spec", "frame")),
        )
        return loop, spec.get("on_item_error")

    def _check_source(self, path: Path, *, has_collection: bool, cursor: object, mode: str) -> None:
        report = self._report
        if not has_collection and cursor is None:
            report.add(path, "loop: one of 'in' (collection) or 'cursor' (pull) is required")
        elif has_collection and cursor is not None:
            report.add(path, "loop: specify either 'in' (collection) or 'cursor' (pull), not both")
        elif cursor is not None and mode != "cursor":
            report.add((*path, "spec", "mode"), f"loop.cursor requires spec.mode='cursor' (got mode='{mode}')")
        elif cursor is None and mode == "cursor":
            report.add(
                (*path, "spec", "mode"),
                "loop.spec.mode='cursor' requires a loop.cursor source (got collection source via loop.in)",
            )
        if cursor is not None:
            if not isinstance(cursor, dict) or not isinstance(cursor.get("claim"), str):
                report.add((*path, "cursor", "claim"), "Field required: the statement that claims rows")
            elif cursor.get("kind", "postgres") != "postgres":
                report.add((*path, "cursor", "kind"), "Input should be 'postgres'")

    # --- arcs ------------------------------------------------------------------------------------------------------

    def _next(self, raw: object, path: Path, step_mode: object) -> tuple[Mode, tuple[Arc, ...]]:
        report = self._report
        mode = self._mode(step_mode, (*path, "mode"))
        if raw is None:
            return mode or "exclusive", ()
        if isinstance(raw, str):
            return mode or "exclusive", (Arc(target=raw),)
        if isinstance(raw, list):
            plain = all(isinstance(item, str) for item in raw)
            return mode or ("inclusive" if plain else "exclusive"), self._arcs(raw, path)
        if not isinstance(raw, dict):
            report.add(path, "next must be a router with 'arcs', a step name or a list")
            return "exclusive", ()
        if "arcs" not in raw:
            text = "must have 'arcs' field" if "spec" in raw else "must use canonical router format with 'arcs'"
            report.add(path, f"next router {text}" if "spec" in raw else f"next {text}")
            return "exclusive", ()
        spec = report.mapping(raw.get("spec"), (*path, "spec"))
        mode = self._mode(spec.get("mode"), (*path, "spec", "mode")) or mode
        report.choice(spec.get("on_no_match"), ("complete", "quiet"), (*path, "spec", "on_no_match"))
        if not isinstance(raw["arcs"], list):
            report.add((*path, "arcs"), "Input should be a valid list")
            return "exclusive", ()
        return mode or "exclusive", self._arcs(raw["arcs"], (*path, "arcs"))

    def _mode(self, value: object, path: Path) -> Mode | None:
        return cast("Mode | None", self._report.choice(value, MODES, path))

    def _arcs(self, raw: list[Any], path: Path) -> tuple[Arc, ...]:
        report = self._report
        if len(raw) > ARCS_MAX:
            report.add(path, f"a step has at most {ARCS_MAX} arcs")
            return ()
        arcs: list[Arc] = []
        for index, item in enumerate(raw):
            place = (*path, index)
            if isinstance(item, str):
                arcs.append(Arc(target=item))
            elif not isinstance(item, dict):
                report.add(place, f"an arc must be a mapping with 'step', not {kind_of(item)}")
            elif not isinstance(item.get("step"), str) or not item["step"]:
                report.add((*place, "step"), "Field required: the name of the next step")
            else:
                values = {
                    **report.mapping(item.get("args"), (*place, "args")),
                    **report.mapping(item.get("set"), (*place, "set")),
                }
                report.templates(values, (*place, "set"))
                report.unknown_keys(item, dockeys.ARC, place, where="an arc")
                arcs.append(Arc(target=item["step"], when=report.when(item.get("when"), (*place, "when")), set=values))
        return tuple(arcs)

    # --- admission and retries -------------------------------------------------------------------------------------

    def _admit(self, policy: object, path: Path) -> tuple[AdmitRule, ...]:
        report = self._report
        admit = report.mapping(report.mapping(policy, path).get("admit"), (*path, "admit"))
        rules = admit.get("rules") or []
        if not isinstance(rules, list):
            report.add((*path, "admit", "rules"), "Input should be a valid list")
            return ()
        found: list[AdmitRule] = []
        for index, rule in enumerate(rules):
            place = (*path, "admit", "rules", index)
            if not isinstance(rule, dict):
                report.add(place, f"a rule must be a mapping with `when` and `then`, not {kind_of(rule)}")
                continue
            other = rule.get("else")
            then = other.get("then", other) if isinstance(other, dict) else rule.get("then", rule)
            allow = then.get("allow") if isinstance(then, dict) else None
            if not isinstance(allow, bool):
                report.add((*place, "then", "allow"), "Field required: true or false")
                continue
            when = None if "else" in rule else report.when(rule.get("when"), (*place, "when"))
            found.append(AdmitRule(when=when, allow=allow))
        return tuple(found)

    def _retry(self, raw: object, path: Path) -> Retry | None:
        if raw is None:
            return None
        report = self._report
        given = {"attempts": raw} if isinstance(raw, int) and not isinstance(raw, bool) else report.mapping(raw, path)
        report.unknown_keys(given, dockeys.RETRY, path, where="spec.retry")
        attempts = given.get("attempts", 3)
        if not isinstance(attempts, int) or isinstance(attempts, bool) or not 1 <= attempts <= RETRY_ATTEMPTS_MAX:
            report.add((*path, "attempts"), f"must be a number from 1 to {RETRY_ATTEMPTS_MAX}: tries in all")
            attempts = 1
        jitter = given.get("jitter", 0)
        jitter = 0.5 if jitter is True else jitter
        if not isinstance(jitter, int | float) or not 0 <= jitter <= 1:
            report.add((*path, "jitter"), "must be a share of the delay from 0 to 1")
            jitter = 0.0
        limit = RETRY_DELAY_SECONDS_MAX
        delay = seconds_of(report, given.get("delay"), (*path, "delay"), limit=limit)
        max_delay = seconds_of(report, given.get("max_delay"), (*path, "max_delay"), limit=limit)
        return Retry(
            attempts=attempts,
            backoff=cast("Backoff", report.choice(given.get("backoff"), BACKOFFS, (*path, "backoff")) or "exponential"),
            delay=RETRY_DELAY_SECONDS if delay is None else delay,
            max_delay=limit if max_delay is None else max_delay,
            jitter=float(jitter),
            on=report.when(given.get("on"), (*path, "on")),
        )


def _cursor_tasks(
    step: str, kind: str | None, config: Mapping[str, Any] | None, tasks: tuple[Mapping[str, Any], ...]
) -> tuple[Mapping[str, Any], ...]:
    """Return what a cursor's slots run for each row: the tasks, or the one tool as a task."""
    return tasks or ({"name": f"{step}_task", "kind": kind, **(config or {})},)
