"""The `tool` of a step: one tool, a sequence of tasks, or an action of the workbook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.engine import dockeys
from shared.engine.document import Path, Report, did_you_mean, kind_of
from shared.engine.limits import NAME_CHARS_MAX, TASKS_MAX
from shared.engine.toolkeys import BACKOFFS, COMMON, POLICY_ACTIONS, TOOL_KEYS, TOOL_KINDS

_CODE_KEYS = frozenset({"code", "code_b64", "code_base64", "output", "output_select"})  # with braces of their own


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A checked tool: a kind with its configuration, or tasks."""

    kind: str | None = None
    config: Mapping[str, Any] | None = None
    tasks: tuple[Mapping[str, Any], ...] = ()


class ToolParser:
    """Reads tools; `workbook` has the named actions of the document."""

    def __init__(self, report: Report, workbook: Mapping[str, Mapping[str, Any]]) -> None:
        self._report = report
        self._workbook = workbook

    def parse(self, raw: object, path: Path, *, step: str, output: object) -> Tool:
        """Return the tool of a step; `output` is what stands beside the tool instead of in it."""
        if raw is None:
            return Tool()
        if isinstance(raw, str):
            raw = {"kind": raw}
        if isinstance(raw, list):
            return Tool(kind="task_sequence", tasks=self._tasks(raw, path), config=_with_output({}, output))
        if not isinstance(raw, dict) or not raw:
            self._report.add(path, "tool must be an object with 'kind' or a list of tasks")
            return Tool()
        if "kind" not in raw:
            if all(isinstance(value, dict) and "kind" in value for value in raw.values()):
                items = [{**value, "name": label} for label, value in raw.items()]
                tasks = [self._task(item, (*path, item["name"]), 0) for item in items]
                return Tool(kind="task_sequence", tasks=tuple(task for task in tasks if task is not None))
            self._report.add(path, "tool must be an object with 'kind' or a list of tasks")
            return Tool()
        kind, config = self._one(raw, path)
        if kind is None:
            return Tool()
        config = _with_output(config, output)
        spec = config.get("spec")
        if isinstance(spec, Mapping) and spec.get("policy"):
            task = {"name": raw.get("name") or f"{step}_task", "kind": kind, **config}
            return Tool(kind="task_sequence", tasks=(task,), config=_with_output({}, output))
        return Tool(kind=kind, config={key: value for key, value in config.items() if key != "spec"})

    def _tasks(self, raw: list[Any], path: Path) -> tuple[Mapping[str, Any], ...]:
        if not raw:
            self._report.add(path, "tool pipeline must have at least one task")
        if len(raw) > TASKS_MAX:
            self._report.add(path, f"a sequence has at most {TASKS_MAX} tasks")
            return ()
        tasks: list[Mapping[str, Any]] = []
        seen: set[str] = set()
        for index, item in enumerate(raw):
            task = self._task(item, (*path, index), index)
            if task is None:
                continue
            if task["name"] in seen:
                self._report.add((*path, index, "name"), f"duplicate task name '{task['name']}'")
            seen.add(str(task["name"]))
            tasks.append(task)
        for index, known in enumerate(tasks):
            self._check_jumps(known, seen, (*path, index))
        return tuple(tasks)

    def _task(self, item: object, path: Path, index: int) -> dict[str, Any] | None:
        if not isinstance(item, dict):
            self._report.add(path, f"tool[{index}] must be an object, not {kind_of(item)}")
            return None
        if "kind" not in item and len(item) == 1:
            label, inner = next(iter(item.items()))
            if isinstance(inner, dict):
                item, path = {"name": label, **inner}, (*path, label)
        name = item.get("name") or f"task_{index}"
        if not isinstance(name, str) or len(name) > NAME_CHARS_MAX:
            self._report.add((*path, "name"), f"a task's name is text of 1 to {NAME_CHARS_MAX} characters")
            return None
        if "kind" not in item:
            self._report.add(path, f"tool[{index}] must have 'kind': write {{name: {name}, kind: ...}}")
            return None
        kind, config = self._one(item, path)
        return None if kind is None else {**config, "name": name, "kind": kind}

    def _one(self, raw: Mapping[str, Any], path: Path) -> tuple[str | None, dict[str, Any]]:
        kind = raw["kind"]
        if kind not in TOOL_KINDS:
            expected = ", ".join(f"'{known}'" for known in TOOL_KINDS)
            self._report.add((*path, "kind"), f"unknown tool kind {kind!r}: Input should be {expected}")
            return None, {}
        if kind == "iterator":
            self._report.add((*path, "kind"), "tool kind 'iterator' is not run: give the step a `loop`")
            return None, {}
        if kind == "workbook":
            return self._action(raw, path)
        config = {key: value for key, value in raw.items() if key not in ("kind", "name", "desc", "description")}
        if kind == "nats" and "name" in raw:
            config["name"] = raw["name"]
        spec = config.get("spec")
        if isinstance(spec, dict):  # a dialect that keeps the tool's keys below `spec`
            below = {key: value for key, value in spec.items() if key not in dockeys.TOOL_SPEC}
            config = {
                **below,
                **config,
                "spec": {key: value for key, value in spec.items() if key in dockeys.TOOL_SPEC},
            }
            if spec.get("timeout") is not None:
                config.setdefault("timeout", spec["timeout"])
        elif spec is not None:
            self._report.add((*path, "spec"), f"must be a mapping, not {kind_of(spec)}")
            config.pop("spec")
        for key in ("input", "args"):
            self._report.mapping(config.get(key), (*path, key))
        self._check_keys(str(kind), config, path)
        self._policy(config.get("spec"), (*path, "spec"))
        self._report.templates({key: value for key, value in config.items() if key not in _CODE_KEYS}, path)
        return str(kind), config

    def _check_keys(self, kind: str, config: Mapping[str, Any], path: Path) -> None:
        known = TOOL_KEYS.get(kind)
        for key in config:
            if key in dockeys.TOOL_OBSOLETE and (known is None or key not in known):
                self._report.warn((*path, key), f"'{key}' of a tool is not run: {dockeys.TOOL_OBSOLETE[key]}")
            elif known is not None and key not in known and key not in COMMON:
                more = did_you_mean(key, {**known, **COMMON})
                self._report.warn((*path, key), f"tool kind '{kind}' has no key '{key}'{more}")

    def _action(self, raw: Mapping[str, Any], path: Path) -> tuple[str | None, dict[str, Any]]:
        name = raw.get("task") or raw.get("name")
        if not isinstance(name, str):
            self._report.add(path, "tool.kind=workbook requires a 'name' field: the action to run")
            return None, {}
        action = self._workbook.get(name)
        if action is None:
            known = ", ".join(sorted(self._workbook))
            self._report.add(
                (*path, "name"), f"workbook action '{name}' not found in playbook.workbook[] (available: [{known}])"
            )
            return None, {}
        given = {key: value for key, value in raw.items() if key not in ("kind", "name", "task")}
        for key in ("input", "args"):
            if isinstance(action.get(key), Mapping) or isinstance(given.get(key), Mapping):
                given[key] = {**(action.get(key) or {}), **(given.get(key) or {})}
        return self._one({**action, **given}, path)

    # --- policies --------------------------------------------------------------------------------------------------

    def _policy(self, spec: object, path: Path) -> None:
        policy = spec.get("policy") if isinstance(spec, Mapping) else None
        if policy is None:
            return
        path = (*path, "policy")
        if not isinstance(policy, Mapping) or not isinstance(policy.get("rules"), list):
            self._report.add((*path, "rules"), "Field required: a policy has `rules`, a list of {when, then}")
            return
        for index, rule in enumerate(policy["rules"]):
            self._rule(rule, (*path, "rules", index))

    def _rule(self, rule: object, path: Path) -> None:
        if not isinstance(rule, Mapping):
            self._report.add(path, f"a rule must be a mapping with `when` and `then`, not {kind_of(rule)}")
            return
        if "expr" in rule:
            self._report.add((*path, "expr"), "Policy rule uses 'expr' which is not allowed. Use 'when'.")
        for key in rule:
            if key not in dockeys.RULE and key != "expr":
                self._report.warn((*path, key), f"unknown key '{key}' of a rule is ignored")
        if not isinstance(rule.get("when"), bool):  # the original takes `when: true` here, though not in an arc
            self._report.when(rule.get("when"), (*path, "when"))
        other = rule.get("else")
        if isinstance(other, Mapping):
            self._then(other.get("then", other), (*path, "else"))
        elif "then" in rule:
            self._then(rule["then"], (*path, "then"))
        else:
            self._report.add(path, "Policy rule must have 'then': {do: continue | retry | jump | break | fail}")

    def _then(self, then: object, path: Path) -> None:
        if not isinstance(then, Mapping):
            self._report.add(path, f"must be a mapping with `do`, not {kind_of(then)}")
            return
        if "set_vars" in then:
            self._report.add((*path, "set_vars"), "Policy rule uses 'set_vars' which is not allowed. Use 'set'.")
        for key in then:
            if key not in dockeys.THEN and key != "set_vars":
                more = did_you_mean(key, dockeys.THEN)
                self._report.warn((*path, key), f"unknown key '{key}' of a rule is ignored{more}")
        if then.get("do") not in POLICY_ACTIONS:
            self._report.add((*path, "do"), f"Policy rule 'then' must have 'do': one of {', '.join(POLICY_ACTIONS)}")
        if then.get("do") == "jump" and not isinstance(then.get("to"), str):
            self._report.add((*path, "to"), "Field required: the task to jump to")
        backoff = then.get("backoff")
        if isinstance(backoff, str) and "{" not in backoff and backoff not in BACKOFFS:
            self._report.warn((*path, "backoff"), f"unknown backoff '{backoff}' counts as fixed")
        self._report.templates(self._report.mapping(then.get("set"), (*path, "set")), (*path, "set"))

    def _check_jumps(self, task: Mapping[str, Any], names: set[str], path: Path) -> None:
        spec = task.get("spec")
        policy = spec.get("policy") if isinstance(spec, Mapping) else None
        rules = policy.get("rules") if isinstance(policy, Mapping) else None
        for index, rule in enumerate(rules if isinstance(rules, list) else []):
            if not isinstance(rule, Mapping):
                continue
            other = rule.get("else")
            then = other.get("then", other) if isinstance(other, Mapping) else rule.get("then")
            target = then.get("to") if isinstance(then, Mapping) and then.get("do") == "jump" else None
            if isinstance(target, str) and "{" not in target and target not in names | _PREVIOUS:
                place = (*path, "spec", "policy", "rules", index, "then", "to")
                self._report.add(place, f"no task is named '{target}'")


_PREVIOUS = {"previous", "prev", "_previous", "@previous"}


def _with_output(config: dict[str, Any], output: object) -> dict[str, Any]:
    """Return `config` with the `output` that stood beside the tool."""
    return {**config, "output": output} if isinstance(output, Mapping) and "output" not in config else config
