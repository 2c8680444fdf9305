"""The JSON Schema says the same as the parser: it is made from the same tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from shared.engine import check_playbook, dockeys, read_document
from shared.engine.schema import playbook_schema
from shared.engine.toolkeys import TOOL_KEYS
from tests.support.fixtures import PLAYBOOKS, name_of

VALIDATOR = Draft202012Validator(playbook_schema())
OLDER = Draft7Validator(playbook_schema())

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: x}\n"


def step(text: str) -> str:
    """Return a playbook with one step, given as the inside of a flow mapping."""
    return HEAD + "workflow:\n- {" + text + "}\n"


def errors(text: str) -> list[str]:
    data = read_document(text).data
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(data)]


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(playbook_schema())


@pytest.mark.parametrize("file", PLAYBOOKS, ids=name_of)
def test_what_the_parser_accepts_the_schema_accepts(file: Path) -> None:
    text = file.read_text()
    playbook, problems = check_playbook(text)
    assert playbook is not None, [str(problem) for problem in problems]
    assert errors(text) == []
    assert OLDER.is_valid(read_document(text).data)


MISTAKES = {
    "no workflow": HEAD,
    "empty workflow": HEAD + "workflow: []\n",
    "a version of another language": "apiVersion: v1\nkind: Playbook\nmetadata: {name: x}\nworkflow: [{step: a}]\n",
    "no name": "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {}\nworkflow: [{step: a}]\n",
    "workload is a list": HEAD + "workload: [1]\nworkflow: [{step: a}]\n",
    "keychain is a mapping": HEAD + "keychain: {a: 1}\nworkflow: [{step: a}]\n",
    "a step without a name": step("tool: {kind: noop}"),
    "a key of a step that does not exist": step("step: a, tols: {kind: noop}"),
    "an unknown kind": step("step: a, tool: {kind: pyton}"),
    "an unknown kind as text": step("step: a, tool: pyton"),
    "an unknown key of a tool": step("step: a, tool: {kind: http, url: 'http://h', metod: GET}"),
    "a tool without kind": step("step: a, tool: {code: 'result = 1'}"),
    "no tasks": step("step: a, tool: []"),
    "a task without kind": step("step: a, tool: [{name: x, code: y}]"),
    "a loop without iterator": step("step: a, tool: noop, loop: {in: [1]}"),
    "a loop without a source": step("step: a, tool: noop, loop: {iterator: x}"),
    "an unknown mode of a loop": step("step: a, tool: noop, loop: {in: [1], iterator: x, spec: {mode: fast}}"),
    "max_in_flight 0": step("step: a, tool: noop, loop: {in: [1], iterator: x, spec: {max_in_flight: 0}}"),
    "an arc without step": step("step: a, next: {arcs: [{when: '{{ x }}'}]}"),
    "an arc whose when is no text": step("step: a, next: {arcs: [{step: end, when: true}]}"),
    "an unknown key of an arc": step("step: a, next: {arcs: [{step: end, cond: '{{ x }}'}]}"),
    "next without arcs": step("step: a, next: {step: end}"),
    "an unknown mode of next": step("step: a, next: {spec: {mode: any}, arcs: [{step: end}]}"),
    "rules without then": step("step: a, tool: {kind: noop, spec: {policy: {rules: [{when: '{{ x }}'}]}}}"),
    "a policy without rules": step("step: a, tool: {kind: noop, spec: {policy: {do: retry}}}"),
    "an unknown action": step("step: a, tool: {kind: noop, spec: {policy: {rules: [{then: {do: again}}]}}}"),
    "a jump to nowhere": step("step: a, tool: {kind: noop, spec: {policy: {rules: [{then: {do: jump}}]}}}"),
    "retry without a number": step("step: a, tool: noop, spec: {retry: {attempts: many}}"),
    "an unknown on_error": HEAD + "executor: {spec: {on_error: ignore}}\nworkflow: [{step: a}]\n",
}


@pytest.mark.parametrize("text", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_found_by_schema_and_parser(text: str) -> None:
    _, problems = check_playbook(text)
    assert problems
    assert errors(text)
    assert not OLDER.is_valid(read_document(text).data), "most editors know draft 7 only"


def test_every_key_has_its_description() -> None:
    schema = playbook_schema()
    definitions = schema["$defs"]
    for table, properties in (
        (dockeys.ROOT, schema["properties"]),
        (dockeys.STEP, definitions["step"]["properties"]),
        (dockeys.LOOP, definitions["loop"]["properties"]),
        (dockeys.ARC, definitions["arc"]["then"]["properties"]),
        (dockeys.EXECUTOR, definitions["executor"]["properties"]),
        (dockeys.RULE, definitions["rule"]["properties"]),
        (dockeys.THEN, definitions["then"]["properties"]),
        *((keys, definitions[f"tool_{kind}"]["properties"]) for kind, keys in TOOL_KEYS.items()),
    ):
        assert table
        assert {key: properties[key].get("description") for key in table} == dict(table)
