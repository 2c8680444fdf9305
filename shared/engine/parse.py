"""Playbook text to `Playbook`, or problems that name the line, the key and the fix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast, get_args

from shared.engine import dockeys
from shared.engine.document import (
    Document,
    PlaybookError,
    Problem,
    Report,
    Severity,
    did_you_mean,
    kind_of,
    read_document,
)
from shared.engine.limits import PROBLEMS_MAX, STEPS_MAX, TIMEOUT_SECONDS_MAX
from shared.engine.parse_step import StepParser, seconds_of, words_of
from shared.engine.parse_tool import ToolParser
from shared.engine.playbook import Arc, OnError, Playbook, Step, bits_of, reachability, trapped
from shared.engine.templates import names_in
from shared.engine.undefined import check_names

API_VERSIONS = ("noetl.io/v1", "noetl.io/v2", "noetl.io/v10")
END = "end"  # an arc to an `end` that is no step finishes its branch
_OUTCOME_NAMES = frozenset(("event", "output", "outcome", "error", "result", "response"))  # by which one sees an error


def parse_playbook(content: str) -> Playbook:
    """Return the playbook of a document that runs: it has been checked, so warnings are not looked for, strict or not.

    Raises:
        PlaybookError: with every error found, `PROBLEMS_MAX` at most.
    """
    checker = _Checker(read_document(content))
    playbook = checker.playbook(warnings=False)
    errors = [problem for problem in checker.report.problems if problem.severity == "error"]
    if playbook is None or errors:
        raise PlaybookError(_bounded(errors))
    return playbook


def check_playbook(content: str | Document, *, strict: bool = False) -> tuple[Playbook | None, list[Problem]]:
    """Return the playbook, None when it has errors, and every problem found, warnings too.

    Args:
        content: text, or a document that has been read.
        strict: warnings are errors; so they are with `executor.spec.strict`.
    """
    if isinstance(content, str):
        try:
            content = read_document(content)
        except PlaybookError as error:
            return None, error.problems
    checker = _Checker(content)
    playbook = checker.playbook()
    problems = sorted(checker.report.problems, key=lambda problem: (problem.line, problem.column))
    if strict or checker.strict:
        problems = [replace(problem, severity="error") for problem in problems]
    if any(problem.severity == "error" for problem in problems):
        playbook = None
    return playbook, _bounded(problems)


def _bounded(problems: list[Problem]) -> list[Problem]:
    """Return `PROBLEMS_MAX` problems at most; errors are kept before warnings, and what is left out is counted."""
    if len(problems) <= PROBLEMS_MAX:
        return problems
    errors = [problem for problem in problems if problem.severity == "error"]
    others = [problem for problem in problems if problem.severity != "error"]
    kept = sorted([*errors, *others][: PROBLEMS_MAX - 1], key=lambda problem: (problem.line, problem.column))
    severity: Severity = "error" if len(errors) >= PROBLEMS_MAX else "warning"
    text = f"{len(problems) - len(kept)} more problems are not shown"
    return [*kept, Problem(line=0, column=0, key="", message=text, severity=severity)]


class _Checker:
    """Walks one document and collects problems; what is wrong is left out of the result."""

    def __init__(self, document: Document) -> None:
        self._data = document.data
        self._indexes: dict[str, int] = {}  # step name: its place in the workflow
        self.report = Report(document)
        self.strict = False

    def playbook(self, *, warnings: bool = True) -> Playbook | None:
        data, report = self._data, self.report
        if data.get("apiVersion") not in API_VERSIONS:
            expected = ", ".join(API_VERSIONS)
            report.add(
                ("apiVersion",), f"Unsupported API version: {data.get('apiVersion')}. Expected one of {expected}"
            )
        if str(data.get("kind")) not in ("Playbook", "Agent"):
            report.add(("kind",), f"Invalid kind: {data.get('kind')}. Expected Playbook")
        metadata = report.mapping(data.get("metadata"), ("metadata",))
        name = metadata.get("name")
        if not isinstance(name, str) or not name:
            report.add(("metadata", "name"), "Field required: the playbook's name")
        for key in data:
            if key == "vars":
                report.warn(
                    (key,), "root 'vars' is not run: put defaults into `workload`, set values with `set: {ctx.x: ..}`"
                )
            elif key not in dockeys.ROOT:
                report.warn((key,), f"unknown key '{key}' is ignored{did_you_mean(key, dockeys.ROOT)}")
        if data.get("keychain") is not None and not isinstance(data["keychain"], list):
            report.add(("keychain",), "Input should be a valid list")
        workload = report.mapping(data.get("workload"), ("workload",))
        steps = self._steps(data.get("workflow"))
        executor = self._executor()
        if not steps:
            return None
        entry = self._entry(executor, steps)
        self._check_targets(steps)
        if report.has_errors:
            return None
        if warnings:
            self._check_flow(steps, entry)
            check_names(report, self._data, steps)
        reach, upstream = reachability(steps, entry)
        return Playbook(
            name=str(name),
            path=str(metadata.get("path") or name),
            kind=str(data.get("kind")),
            workload=workload,
            steps=steps,
            entry=entry,
            reach=reach,
            bits=bits_of(steps),
            upstream_counts=upstream,
            on_error=cast("OnError", executor.get("on_error") or "stop"),
            timeout_seconds=executor.get("timeout"),
            strict=self.strict,
            pool=executor.get("execution_pool"),
        )

    # --- executor --------------------------------------------------------------------------------------------------

    def _executor(self) -> dict[str, Any]:
        """Return the settings of the executor that are run: from its `spec`, else from beside it."""
        report = self.report
        raw = report.mapping(self._data.get("executor"), ("executor",))
        spec = report.mapping(raw.get("spec"), ("executor", "spec"))
        report.unknown_keys(raw, dockeys.EXECUTOR, ("executor",), where="executor")
        report.unknown_keys(spec, dockeys.EXECUTOR, ("executor", "spec"), where="executor.spec")
        found: dict[str, Any] = {}
        for key in ("entry_step", "on_error", "timeout", "strict", "execution_pool"):
            place = ("executor", "spec", key) if key in spec else ("executor", key)
            value = spec.get(key, raw.get(key))
            if key == "on_error":
                value = report.choice(value, get_args(OnError), place)
            elif key == "timeout":
                value = seconds_of(report, value, place, limit=TIMEOUT_SECONDS_MAX)
            elif key == "strict" and value is not None and not isinstance(value, bool):
                report.add(place, "Input should be true or false")
            elif key in ("entry_step", "execution_pool") and value is not None and not isinstance(value, str):
                report.add(place, "Input should be text")
                value = None
            found[key] = value
        self.strict = found["strict"] is True
        return found

    def _entry(self, executor: Mapping[str, Any], steps: Mapping[str, Step]) -> str:
        first = "start" if "start" in steps else next(iter(steps))
        entry = executor["entry_step"]
        if entry is None:
            return first
        if entry not in steps:
            self.report.add(("executor", "spec", "entry_step"), f"Entry step '{entry}' not found.")
            return first
        return str(entry)

    # --- steps -----------------------------------------------------------------------------------------------------

    def _workbook(self) -> dict[str, dict[str, Any]]:
        raw = self._data.get("workbook")
        if raw is None:
            return {}
        if not isinstance(raw, list):
            self.report.add(("workbook",), "Input should be a valid list")
            return {}
        actions: dict[str, dict[str, Any]] = {}
        for index, item in enumerate(raw):
            path = ("workbook", index)
            tool = item.get("tool", item) if isinstance(item, dict) else None
            name = item.get("name") if isinstance(item, dict) else None
            if not isinstance(name, str) or not isinstance(tool, dict) or "kind" not in tool:
                self.report.add(path, "a workbook action is {name, tool: {kind, ...}}")
            elif tool["kind"] == "workbook":
                self.report.add(path, "a workbook action cannot be another workbook action")
            else:
                actions[name] = {key: value for key, value in tool.items() if key not in ("name", "assert")}
        return actions

    def _steps(self, workflow: object) -> dict[str, Step]:
        report = self.report
        if not isinstance(workflow, list) or not workflow:
            report.add(("workflow",), "Workflow must have at least one step")
            return {}
        if len(workflow) > STEPS_MAX:
            report.add(("workflow",), f"a playbook has at most {STEPS_MAX} steps")
            return {}
        parser = StepParser(report, ToolParser(report, self._workbook()))
        steps: dict[str, Step] = {}
        for index, raw in enumerate(workflow):
            path = ("workflow", index)
            if not isinstance(raw, dict):
                report.add(path, f"a step must be a mapping, not {kind_of(raw)}")
                continue
            step = parser.parse(raw, path)
            if step is None:
                continue
            self._indexes.setdefault(step.name, index)
            if step.name in steps:
                report.add((*path, "step"), f"Duplicate step name: {step.name}")
            steps.setdefault(step.name, self._with_keychain(step))
        return steps

    def _with_keychain(self, step: Step) -> Step:
        """Return a step that names the keychain with the words of its definitions: the worker renders them for the step."""
        if "keychain" not in step.mentions or not isinstance(self._data.get("keychain"), list):
            return step
        return replace(step, mentions=step.mentions | words_of(self._data["keychain"]))

    def _check_targets(self, steps: dict[str, Step]) -> None:
        """Refuse arcs to steps that do not exist; an `end` that is no step ends the branch."""
        for name, step in list(steps.items()):
            arcs: list[Arc] = []
            for number, arc in enumerate(step.arcs):
                sees = arc.when is not None and bool(names_in(arc.when) & {*_OUTCOME_NAMES, name})
                if arc.target in steps or arc.target == END:
                    target = arc.target if arc.target in steps else None
                    arcs.append(replace(arc, target=target, sees_errors=sees))
                else:
                    place = ("workflow", self._indexes[name], "next", "arcs", number, "step")
                    self.report.add(place, f"Step '{name}': next step '{arc.target}' does not exist")
            steps[name] = replace(step, arcs=tuple(arcs))

    def _check_flow(self, steps: Mapping[str, Step], entry: str) -> None:
        """Find steps that are never reached, and cycles that nothing can leave."""
        found, left = {entry}, [entry]
        while left:
            targets = {arc.target for arc in steps[left.pop()].arcs if arc.target is not None}
            left += targets - found
            found |= targets
        for name in steps:
            if name not in found:
                self.report.warn(("workflow", self._indexes[name]), f"Step '{name}': no arc leads here from '{entry}'")
        for cycle in trapped(steps):
            place = ("workflow", self._indexes[cycle[0]])
            self.report.warn(
                place, f"the cycle {' -> '.join((*cycle, cycle[0]))} has no way out: it ends only with an error"
            )
