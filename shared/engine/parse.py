"""Playbook text to `Playbook`, or problems that name the line, the key and the fix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import yaml

from shared.engine.limits import (
    ARCS_MAX,
    NAME_CHARS_MAX,
    PLAYBOOK_BYTES_MAX,
    PLAYBOOK_NODES_MAX,
    PROBLEMS_MAX,
    STEPS_MAX,
)
from shared.engine.playbook import Arc, Mode, OnError, Playbook, Step, reachability
from shared.engine.templates import check_template, names_in

API_VERSION = "noetl.io/v2"
END = "end"  # an arc to an `end` that is no step finishes its branch
# fmt: off
TOOL_KINDS = (  # engine_spec.md section 1.5
    "http", "postgres", "duckdb", "ducklake", "python", "workbook", "playbook", "playbooks", "secrets", "iterator",
    "container", "script", "snowflake", "transfer", "snowflake_transfer", "gcs", "gateway", "nats", "shell",
    "artifact", "noop", "task_sequence", "rhai", "result_fetch", "agent", "mcp", "subscription", "wasm",
)
# fmt: on
_NOT_YET = ("workbook", "playbook", "playbooks", "iterator", "task_sequence")  # run by the engine: the next issue
_REFUSED_STEP_KEYS = ("set_ctx", "set_iter", "result", "outcome")
# fmt: off
_STEP_KEYS = frozenset((
    "step", "desc", "description", "tool", "loop", "next", "set", "input", "args", "when", "spec", "vars", "type",
    "output", "retry", "sink", "save", "command", "name", "case",
))
# fmt: on
_ON_ERROR: tuple[OnError, ...] = ("stop", "continue", "fail_fast")
_OUTCOME_NAMES = (
    "event",
    "output",
    "outcome",
    "error",
    "result",
    "response",
)  # names through which a condition sees an error
_MODES: tuple[Mode, ...] = ("exclusive", "inclusive")

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One finding; `line` and `column` count from 1, 0 when there is no place."""

    line: int
    column: int
    key: str
    message: str
    severity: Severity = "error"

    def __str__(self) -> str:
        place = f"line {self.line}" if self.line else "document"
        return f"{place}, {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class PlaybookError(ValueError):
    """The document is no playbook the engine can run; `problems` says where and why."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


@dataclass(slots=True)
class _Document:
    """Plain data, and where each key of it stands: `places[("workflow", 0, "tool")]` = (line, column)."""

    data: Any
    places: dict[tuple[str | int, ...], tuple[int, int]]


class _Reader:
    """Builds plain data from composed YAML, counting nodes with aliases expanded."""

    def __init__(self) -> None:
        self.places: dict[tuple[str | int, ...], tuple[int, int]] = {}
        self.problems: list[Problem] = []
        self._count = 0
        self._loader = yaml.SafeLoader("")

    def read(self, node: yaml.Node, path: tuple[str | int, ...]) -> Any:
        self._count += 1
        if self._count > PLAYBOOK_NODES_MAX:
            raise PlaybookError([Problem(line=0, column=0, key="", message=f"more than {PLAYBOOK_NODES_MAX} values")])
        self.places.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(child, (*path, index)) for index, child in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: tuple[str | int, ...]) -> dict[str, Any]:
        self._loader.flatten_mapping(node)
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            if not _is_text(key):
                self._problem(
                    key_node, path, "", "the key has a NUL or a lone surrogate, which cannot be stored", "error"
                )
                continue
            if key in found and key_node.start_mark.line > node.start_mark.line:
                self._problem(key_node, path, key, "the key stands twice; the last one counts", "warning")
            found[key] = self.read(value_node, (*path, key))
            self.places[(*path, key)] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
        return found

    def _scalar(self, node: yaml.Node, path: tuple[str | int, ...]) -> Any:
        try:
            value = self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            self._problem(node, path, "", f"not a plain value: {error}", "error")
            return None
        if isinstance(value, str) and not _is_text(value):
            self._problem(node, path, "", "the text has a NUL or a lone surrogate, which cannot be stored", "error")
            return None
        if value is None or isinstance(value, str | bool | int | float):
            return value
        return str(node.value)  # dates and the like stay the text they were

    def _problem(self, node: yaml.Node, path: tuple[str | int, ...], key: str, text: str, severity: Severity) -> None:
        mark = node.start_mark
        name = _dotted((*path, key) if key else path)
        self.problems.append(
            Problem(line=mark.line + 1, column=mark.column + 1, key=name, message=text[:300], severity=severity)
        )


def _is_text(value: str) -> bool:
    """Whether `value` can be stored: YAML escapes can make characters that UTF-8 or Postgres do not have."""
    return ("\x00" not in value and value.isascii()) or not any(
        char == "\x00" or "\ud800" <= char <= "\udfff" for char in value
    )


def _dotted(path: tuple[str | int, ...]) -> str:
    return ".".join(str(part) for part in path)


def _read(content: str) -> tuple[_Document, list[Problem]]:
    if len(content.encode()) > PLAYBOOK_BYTES_MAX:
        raise PlaybookError(
            [Problem(line=0, column=0, key="", message=f"a document has at most {PLAYBOOK_BYTES_MAX} bytes")]
        )
    reader = _Reader()
    try:
        node = yaml.compose(content, Loader=yaml.SafeLoader)
        data = None if node is None else reader.read(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise PlaybookError(
            [Problem(line=line, column=column, key="", message=f"not YAML: {error.problem or error.context}")]
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        text = "nested too deeply" if isinstance(error, RecursionError) else f"not YAML: {str(error)[:200]}"
        raise PlaybookError([Problem(line=0, column=0, key="", message=text)]) from error
    if not isinstance(data, dict):
        raise PlaybookError([Problem(line=1, column=1, key="", message="the document must be a mapping")])
    return _Document(data=data, places=reader.places), reader.problems


def read_document(content: str) -> dict[str, Any]:
    """Return a YAML document as plain data: what JSON can hold, dates as the text they were.

    Raises:
        PlaybookError: the text is no YAML mapping, is over a bound, or has values that are not plain.
    """
    document, problems = _read(content)
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        raise PlaybookError(errors)
    data: dict[str, Any] = document.data
    return data


def parse_playbook(content: str) -> Playbook:
    """Return the playbook.

    Raises:
        PlaybookError: with every problem found, `PROBLEMS_MAX` at most.
    """
    playbook, problems = check_playbook(content)
    if playbook is None:
        raise PlaybookError([problem for problem in problems if problem.severity == "error"])
    return playbook


def check_playbook(content: str) -> tuple[Playbook | None, list[Problem]]:
    """Return the playbook, None when it has errors, and every problem found, warnings too."""
    try:
        document, problems = _read(content)
    except PlaybookError as error:
        return None, error.problems
    checker = _Checker(document, problems)
    playbook = checker.playbook()
    found = checker.problems[:PROBLEMS_MAX]
    return (None if any(problem.severity == "error" for problem in checker.problems) else playbook), found


class _Checker:
    """Walks one document and collects problems; what is wrong is left out of the result."""

    def __init__(self, document: _Document, problems: list[Problem]) -> None:
        self._document = document
        self._indexes: dict[str, int] = {}  # step name: its place in the workflow
        self.problems = problems

    def _problem(self, path: tuple[str | int, ...], message: str, severity: Severity = "error") -> None:
        place = path
        while place and place not in self._document.places:
            place = place[:-1]
        line, column = self._document.places.get(place, (1, 1))
        self.problems.append(Problem(line=line, column=column, key=_dotted(path), message=message, severity=severity))

    def _map(self, value: object, path: tuple[str | int, ...]) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._problem(path, f"must be a mapping, not {_kind(value)}")
            return {}
        return value

    def playbook(self) -> Playbook | None:
        data = self._document.data
        if data.get("apiVersion") != API_VERSION:
            self._problem(("apiVersion",), f"Unsupported API version: {data.get('apiVersion')}. Expected {API_VERSION}")
        if str(data.get("kind")) not in ("Playbook", "Agent"):
            self._problem(("kind",), f"Invalid kind: {data.get('kind')}. Expected Playbook")
        metadata = self._map(data.get("metadata"), ("metadata",))
        name = metadata.get("name")
        if not isinstance(name, str) or not name:
            self._problem(("metadata", "name"), "Field required: the playbook's name")
        if data.get("keychain") is not None and not isinstance(data["keychain"], list):
            self._problem(("keychain",), "Input should be a valid list")
        workload = self._map(data.get("workload"), ("workload",))
        steps = self._steps(data.get("workflow"))
        if not steps:
            return None
        entry, on_error = self._entry(data, steps), self._on_error(data)
        self._check_targets(steps)
        if any(problem.severity == "error" for problem in self.problems):
            return None
        self._warn_unreachable(steps, entry)
        reach, upstream = reachability(steps, entry)
        return Playbook(
            name=str(name),
            path=str(metadata.get("path") or name),
            kind=str(data.get("kind")),
            workload=workload,
            steps=steps,
            entry=entry,
            reach=reach,
            upstream_counts=upstream,
            on_error=on_error,
        )

    def _executor(self, data: Mapping[str, Any], key: str) -> tuple[Any, tuple[str, ...]]:
        """Return a setting of the executor and where it stands: below `spec` or beside it."""
        executor = self._map(data.get("executor"), ("executor",))
        spec = self._map(executor.get("spec"), ("executor", "spec"))
        return (spec[key], ("executor", "spec", key)) if key in spec else (executor.get(key), ("executor", key))

    def _entry(self, data: Mapping[str, Any], steps: Mapping[str, Step]) -> str:
        first = "start" if "start" in steps else next(iter(steps))
        entry, place = self._executor(data, "entry_step")
        if entry is None:
            return first
        if not isinstance(entry, str) or entry not in steps:
            self._problem(place, f"Entry step '{entry}' not found.")
            return first
        return entry

    def _on_error(self, data: Mapping[str, Any]) -> OnError:
        value, place = self._executor(data, "on_error")
        for known in _ON_ERROR:
            if value == known:
                return known
        if value is not None:
            self._problem(place, f"Input should be one of {', '.join(_ON_ERROR)}")
        return "stop"

    def _steps(self, workflow: object) -> dict[str, Step]:
        if not isinstance(workflow, list) or not workflow:
            self._problem(("workflow",), "Workflow must have at least one step")
            return {}
        if len(workflow) > STEPS_MAX:
            self._problem(("workflow",), f"a playbook has at most {STEPS_MAX} steps")
            return {}
        steps: dict[str, Step] = {}
        for index, raw in enumerate(workflow):
            path = ("workflow", index)
            if not isinstance(raw, dict):
                self._problem(path, f"a step must be a mapping, not {_kind(raw)}")
                continue
            step = self._step(raw, path)
            if step is None:
                continue
            self._indexes.setdefault(step.name, index)
            if step.name in steps:
                self._problem((*path, "step"), f"Duplicate step name: {step.name}")
            steps.setdefault(step.name, step)
        return steps

    def _step(self, raw: Mapping[str, Any], path: tuple[str | int, ...]) -> Step | None:
        name = raw.get("step")
        if not isinstance(name, str) or not 1 <= len(name) <= NAME_CHARS_MAX:
            self._problem((*path, "step"), f"Field required: the step's name, 1 to {NAME_CHARS_MAX} characters of text")
            return None
        for key in _REFUSED_STEP_KEYS:
            if key in raw:
                self._problem(
                    (*path, key),
                    "step must use canonical fields only (legacy args/set_ctx/set_iter/result/outcome are not allowed; "
                    "use input/set and tool.output)",
                )
        if "case" in raw:
            self._problem(
                (*path, "case"),
                f"Step '{name}': 'case' blocks are not allowed in canonical format. Use 'step.when' and next.arcs[].when",
            )
        if raw.get("loop") is not None:
            self._problem((*path, "loop"), f"Step '{name}': loops are not supported yet")
        for key in raw:
            if key not in _STEP_KEYS:
                self._problem((*path, key), f"Step '{name}': unknown key '{key}' is ignored", "warning")
        kind, tool = self._tool(raw.get("tool"), (*path, "tool"))
        spec = self._map(raw.get("spec"), (*path, "spec"))
        mode, arcs = self._next(raw.get("next"), (*path, "next"), spec.get("next_mode"))
        given = {
            **self._map(raw.get("args"), (*path, "args")),
            **self._map(raw.get("input"), (*path, "input")),
        }
        values = self._map(raw.get("set"), (*path, "set"))
        self._templates(given, (*path, "input"))
        self._templates(values, (*path, "set"))
        return Step(
            name=name,
            tool_kind=kind,
            tool=tool,
            input=given,
            when=self._when(raw.get("when"), (*path, "when")),
            set=values,
            mode=mode,
            arcs=arcs,
            line=self._document.places.get(path, (0, 0))[0],
        )

    def _tool(self, raw: object, path: tuple[str | int, ...]) -> tuple[str | None, dict[str, Any]]:
        if raw is None:
            return None, {}
        if isinstance(raw, list):
            self._problem(path, "a list of tasks (pipeline) is not supported yet; use one tool per step")
            return None, {}
        if not isinstance(raw, dict) or "kind" not in raw:
            self._problem(path, "tool must be an object with 'kind' or a list of tasks")
            return None, {}
        kind = raw["kind"]
        if kind not in TOOL_KINDS:
            expected = ", ".join(f"'{known}'" for known in TOOL_KINDS)
            self._problem((*path, "kind"), f"unknown tool kind {kind!r}: Input should be {expected}")
            return None, {}
        if kind in _NOT_YET:
            self._problem((*path, "kind"), f"tool kind '{kind}' is not supported yet")
        for key in ("input", "args"):
            self._map(raw.get(key), (*path, key))
        policy = raw.get("spec", {}).get("policy") if isinstance(raw.get("spec"), dict) else None
        if policy:
            self._problem((*path, "spec", "policy"), "tool policies are not supported yet")
        config = {key: value for key, value in raw.items() if key not in ("kind", "name")}
        self._templates({key: value for key, value in config.items() if key not in ("code", "output")}, path)
        return kind, config

    def _next(self, raw: object, path: tuple[str | int, ...], step_mode: object) -> tuple[Mode, tuple[Arc, ...]]:
        mode = self._mode(step_mode, (*path, "mode")) if step_mode is not None else None
        if raw is None:
            return mode or "exclusive", ()
        if isinstance(raw, str):
            return mode or "exclusive", (Arc(target=raw),)
        if isinstance(raw, list):
            arcs = self._arcs(raw, path, legacy=True)
            plain = all(isinstance(item, str) for item in raw)
            return mode or ("inclusive" if plain else "exclusive"), arcs
        if not isinstance(raw, dict):
            self._problem(path, "next must be a router with 'arcs', a step name or a list")
            return "exclusive", ()
        if "arcs" not in raw:
            text = (
                "next router must have 'arcs' field"
                if "spec" in raw
                else ("next must use canonical router format with 'arcs'")
            )
            self._problem(path, text)
            return "exclusive", ()
        spec = self._map(raw.get("spec"), (*path, "spec"))
        if spec.get("mode") is not None:
            mode = self._mode(spec["mode"], (*path, "spec", "mode"))
        if not isinstance(raw["arcs"], list):
            self._problem((*path, "arcs"), "Input should be a valid list")
            return "exclusive", ()
        return mode or "exclusive", self._arcs(raw["arcs"], (*path, "arcs"), legacy=False)

    def _mode(self, value: object, path: tuple[str | int, ...]) -> Mode:
        for mode in _MODES:
            if value == mode:
                return mode
        self._problem(path, "Input should be 'exclusive' or 'inclusive'")
        return "exclusive"

    def _arcs(self, raw: list[Any], path: tuple[str | int, ...], *, legacy: bool) -> tuple[Arc, ...]:
        if len(raw) > ARCS_MAX:
            self._problem(path, f"a step has at most {ARCS_MAX} arcs")
            return ()
        arcs: list[Arc] = []
        for index, item in enumerate(raw):
            place = (*path, index)
            if legacy and isinstance(item, str):
                arcs.append(Arc(target=item))
            elif not isinstance(item, dict):
                self._problem(place, f"an arc must be a mapping with 'step', not {_kind(item)}")
            elif not isinstance(item.get("step"), str) or not item["step"]:
                self._problem((*place, "step"), "Field required: the name of the next step")
            elif "args" in item and not legacy:
                self._problem((*place, "args"), "next.arcs[] must use 'set' (legacy 'args' is not allowed)")
            else:
                values = {
                    **self._map(item.get("args"), (*place, "args")),
                    **self._map(item.get("set"), (*place, "set")),
                }
                self._templates(values, (*place, "set"))
                when = self._when(item.get("when"), (*place, "when"))
                arcs.append(Arc(target=item["step"], when=when, set=values))
        return tuple(arcs)

    def _when(self, value: object, path: tuple[str | int, ...]) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str):
            self._problem(path, 'Input should be a valid string: write the condition as text, as in "{{ ctx.ready }}"')
            return None
        wrong = check_template(value, condition=True)
        if wrong is not None:
            self._problem(path, f"not a valid condition: {wrong}")
        return value

    def _templates(self, value: object, path: tuple[str | int, ...]) -> None:
        if isinstance(value, str):
            wrong = check_template(value)
            if wrong is not None:
                self._problem(path, f"not a valid template: {wrong}")
        elif isinstance(value, dict):
            for key, item in value.items():
                self._templates(item, (*path, key))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self._templates(item, (*path, index))

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
                    self._problem(place, f"Step '{name}': next step '{arc.target}' does not exist")
            steps[name] = replace(step, arcs=tuple(arcs))

    def _warn_unreachable(self, steps: Mapping[str, Step], entry: str) -> None:
        found = {entry}
        left = [entry]
        while left:
            targets = {arc.target for arc in steps[left.pop()].arcs if arc.target is not None}
            left += targets - found
            found |= targets
        for name in steps:
            if name not in found:
                self._problem(
                    ("workflow", self._indexes[name]), f"Step '{name}': no arc leads here from '{entry}'", "warning"
                )


def _kind(value: object) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "nothing")
