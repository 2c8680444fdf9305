"""The JSON Schema (2020-12) of the language, for editors: made from the tables that the parser reads.

It accepts what the parser accepts without a warning, and what the parser knows to be obsolete (marked `deprecated`). A value
that may be a template is text as well. Only keywords that draft 7 has, too, are used below `$defs`: editors differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

from shared.engine import dockeys
from shared.engine.limits import ARCS_MAX, NAME_CHARS_MAX, RETRY_ATTEMPTS_MAX, STEPS_MAX, TASKS_MAX
from shared.engine.parse import API_VERSIONS
from shared.engine.playbook import LoopMode, Mode, OnError
from shared.engine.toolkeys import BACKOFFS, COMMON, POLICY_ACTIONS, TOOL_KEYS, TOOL_KINDS

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_MAPPING: Schema = {"type": ["object", "null"]}
_TEMPLATE_OR_NUMBER: Schema = {"type": ["integer", "string"]}
_DURATION: Schema = {"type": ["number", "string", "null"]}
_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": NAME_CHARS_MAX}
_ANY_KEY = frozenset({"workbook", "task_sequence"})  # kinds that take the keys of other tools


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _keys(table: Mapping[str, str], types: Mapping[str, Schema] | None = None) -> Schema:
    """Return `properties` of a table of keys; a key without a type takes anything."""
    return {key: {**(types or {}).get(key, {}), "description": meaning} for key, meaning in table.items()}


def _closed(table: Mapping[str, str], types: Mapping[str, Schema] | None = None, **more: Any) -> Schema:
    """Return the schema of a mapping that has the keys of `table` and no others."""
    return {"type": "object", "properties": _keys(table, types), "additionalProperties": False, **more}


def _obsolete(table: Mapping[str, str]) -> Schema:
    return {key: {"deprecated": True, "description": f"not run: {advice}"} for key, advice in table.items()}


def _enum(values: tuple[str, ...]) -> Schema:
    return {"enum": list(values)}


def _nullable(schema: Schema) -> Schema:
    return {"if": {"type": "null"}, "else": schema}


def _rule(*, then: str, when: Schema) -> Schema:
    return {
        "type": "object",
        "properties": _keys(dockeys.RULE, {"when": when, "then": _ref(then), "else": _else(then)}),
        "additionalProperties": False,
        "anyOf": [{"required": ["then"]}, {"required": ["else"]}],
    }


def _else(then: str) -> Schema:
    """Return the schema of `else`: {then: {do}}, {do}, or nothing beside a `then`."""
    return {
        "type": ["object", "null"],
        "if": {"anyOf": [{"type": "null"}, {"required": ["then"]}]},
        "then": {"properties": {"then": _ref(then)}},
        "else": _ref(then),
    }


def _policy() -> Schema:
    then = _closed(
        dockeys.THEN,
        {
            "do": _enum(POLICY_ACTIONS),
            "to": _TEXT,
            "set": _MAPPING,
            "attempts": _TEMPLATE_OR_NUMBER,
            "backoff": {"type": "string", "examples": list(BACKOFFS)},
            "delay": _DURATION,
            "max_delay": _DURATION,
        },
        required=["do"],
    )
    then["if"] = {"properties": {"do": {"const": "jump"}}, "required": ["do"]}
    then["then"] = {"required": ["to"]}
    rule = _rule(then="then", when={"type": ["string", "boolean"]})
    return {
        "then": then,
        "rule": rule,
        "policy": {
            "type": "object",
            "properties": {"rules": {"type": "array", "items": _ref("rule"), "description": "the first that holds"}},
            "required": ["rules"],
        },
    }


def _tools() -> Schema:
    """Return the definitions of a tool, of its keys per kind, and of a list of tasks."""
    types: dict[str, Schema] = {
        "kind": _enum(TOOL_KINDS),
        "name": _NAME,
        "input": _MAPPING,
        "args": _MAPPING,
        "set": _MAPPING,
        "spec": _ref("tool_spec"),
        "output": _ref("output"),
    }
    made: Schema = {
        "tool_spec": {
            "type": ["object", "null"],
            "properties": _keys(dockeys.TOOL_SPEC, {"policy": _nullable(_ref("policy")), "timeout": _DURATION}),
        },
        "output": {"type": ["object", "null"], "properties": _keys(dockeys.OUTPUT)},
    }
    common = _keys(COMMON, types)
    made["common"] = {"properties": common}
    choices: list[Schema] = []
    for kind, keys in TOOL_KEYS.items():
        own = {key: _ref(f"common/properties/{key}") for key in common if key not in keys}
        below = _obsolete({key: advice for key, advice in dockeys.TOOL_OBSOLETE.items() if key not in keys})
        made[f"tool_{kind}"] = {"properties": {**own, **_keys(keys), **below}}
        if kind not in _ANY_KEY:
            made[f"tool_{kind}"]["additionalProperties"] = False
        condition = {"properties": {"kind": {"const": kind}}, "required": ["kind"]}
        choices.append({"if": condition, "then": _ref(f"tool_{kind}")})
    made["tool"] = {"type": "object", "required": ["kind"], "allOf": [_ref("common"), *choices]}
    label = {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": _ref("tool")}
    made["task"] = {"type": "object", "if": {"required": ["kind"]}, "then": _ref("tool"), "else": label}
    made["tool_or_tasks"] = {
        "type": ["object", "array", "string", "null"],
        "allOf": [
            {"if": {"type": "string"}, "then": _enum(TOOL_KINDS)},
            {"if": {"type": "array"}, "then": {"items": _ref("task"), "minItems": 1, "maxItems": TASKS_MAX}},
            {
                "if": {"type": "object", "required": ["kind"]},
                "then": _ref("tool"),
                "else": {"minProperties": 1, "additionalProperties": _ref("tool")},
            },
        ],
    }
    return made


def _loop() -> Schema:
    in_flight = {"anyOf": [{"type": "integer", "minimum": 1}, _TEXT]}
    spec = _closed(
        dockeys.LOOP_SPEC,
        {
            "mode": _enum(get_args(LoopMode)),
            "max_in_flight": in_flight,
            "on_item_error": _enum(("fail", "continue")),
            "frame": _MAPPING,
        },
    )
    cursor = {
        "type": "object",
        "properties": _keys(dockeys.CURSOR, {"kind": {"const": "postgres"}, "claim": _TEXT}),
        "required": ["claim"],
    }
    types: dict[str, Schema] = {"iterator": _NAME, "spec": _nullable(spec), "cursor": cursor}
    sources = [{"required": ["in"]}, {"required": ["in_"]}, {"required": ["cursor"]}]
    return _closed(dockeys.LOOP, types, required=["iterator"], oneOf=sources)


def _next() -> Schema:
    spec = _closed(dockeys.ROUTER_SPEC, {"mode": _enum(get_args(Mode)), "on_no_match": _enum(("complete", "quiet"))})
    arcs = {"type": "array", "items": _ref("arc"), "maxItems": ARCS_MAX}
    router = {
        "type": "object",
        "properties": _keys(dockeys.ROUTER, {"spec": _nullable(spec), "arcs": arcs}),
        "required": ["arcs"],
    }
    return {
        "type": ["object", "array", "string", "null"],
        "allOf": [{"if": {"type": "array"}, "then": arcs}, {"if": {"type": "object"}, "then": router}],
    }


def _arc() -> Schema:
    types: dict[str, Schema] = {"step": _NAME, "when": {"type": ["string", "null"]}, "set": _MAPPING, "args": _MAPPING}
    mapping = _closed(dockeys.ARC, types, required=["step"])
    return {"type": ["object", "string"], "if": {"type": "object"}, "then": mapping}


def _step() -> Schema:
    retry = _closed(
        dockeys.RETRY,
        {
            "attempts": {"type": "integer", "minimum": 1, "maximum": RETRY_ATTEMPTS_MAX},
            "backoff": _enum(BACKOFFS),
            "delay": _DURATION,
            "max_delay": _DURATION,
            "jitter": {"type": ["number", "boolean"], "minimum": 0, "maximum": 1},
            "on": _TEXT,
        },
    )
    allow = {"type": "object", "properties": {"allow": _FLAG}, "required": ["allow"]}
    admit_rule = {
        "type": "object",
        "properties": _keys(dockeys.RULE, {"when": _TEXT, "then": allow, "else": {"type": "object"}}),
    }
    admit = {"type": ["object", "null"], "properties": {"rules": {"type": "array", "items": admit_rule}}}
    spec = _closed(
        dockeys.STEP_SPEC,
        {
            "retry": {"anyOf": [retry, {"type": "integer", "minimum": 1, "maximum": RETRY_ATTEMPTS_MAX}]},
            "timeout": _DURATION,
            "on_item_error": _enum(("fail", "continue")),
            "next_mode": _enum(get_args(Mode)),
            "policy": {"type": ["object", "null"], "properties": {"admit": admit}},
        },
    )
    types: dict[str, Schema] = {
        "step": _NAME,
        "name": _NAME,
        "when": {"type": ["string", "null"]},
        "tool": _ref("tool_or_tasks"),
        "loop": _nullable(_ref("loop")),
        "input": _MAPPING,
        "args": _MAPPING,
        "set": _MAPPING,
        "next": _ref("next"),
        "spec": _nullable(spec),
        "output": _ref("output"),
        "execution_pool": _TEXT,
    }
    return {
        "type": "object",
        "properties": {**_keys(dockeys.STEP, types), **_obsolete(dockeys.STEP_OBSOLETE)},
        "additionalProperties": False,
        "anyOf": [{"required": ["step"]}, {"required": ["name"]}],
    }


def _executor() -> Schema:
    types: dict[str, Schema] = {
        "entry_step": _NAME,
        "on_error": _enum(get_args(OnError)),
        "timeout": _DURATION,
        "strict": _FLAG,
        "execution_pool": _TEXT,
    }
    inner = _closed(dockeys.EXECUTOR, types)
    return _closed(dockeys.EXECUTOR, {**types, "spec": _nullable(inner)})


def playbook_schema() -> Schema:
    """Return the schema of a playbook document."""
    action = {
        "type": "object",
        "properties": _keys(dockeys.WORKBOOK, {"name": _NAME, "tool": _ref("tool")}),
        "required": ["name"],
        "anyOf": [{"required": ["tool"]}, {"required": ["kind"]}],
    }
    metadata = {"type": "object", "properties": _keys(dockeys.METADATA, {"name": _NAME}), "required": ["name"]}
    types: dict[str, Schema] = {
        "apiVersion": _enum(API_VERSIONS),
        "kind": _enum(("Playbook", "Agent")),
        "metadata": metadata,
        "executor": _nullable(_ref("executor")),
        "workload": _MAPPING,
        "keychain": {"type": ["array", "null"]},
        "workbook": {"type": ["array", "null"], "items": action},
        "workflow": {"type": "array", "items": _ref("step"), "minItems": 1, "maxItems": STEPS_MAX},
    }
    obsolete = _obsolete({"vars": "put defaults into `workload`, set values with `set: {ctx.x: ...}`"})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Playbook",
        "description": "A playbook of Playhead. Made by `playhead schema`; docs/playbooks.md explains the language.",
        "type": "object",
        "properties": {**_keys(dockeys.ROOT, types), **obsolete},
        "additionalProperties": False,
        "required": ["apiVersion", "kind", "metadata", "workflow"],
        "$defs": {
            "step": _step(),
            "loop": _loop(),
            "next": _next(),
            "arc": _arc(),
            "executor": _executor(),
            **_policy(),
            **_tools(),
        },
    }


def schema_text() -> str:
    """Return the schema as the text of a JSON file."""
    return json.dumps(playbook_schema(), indent=1, ensure_ascii=False) + "\n"
