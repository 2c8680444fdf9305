"""The form of a workload: kinds, order, hints behind keys, bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.ui_schema import DEPTH_MAX, FIELDS_MAX, form_fields, input_schema

DOCUMENT = """
kind: Playbook
metadata: {name: x}
workload:
  zeta: Hello # ui:description=Greeting text
  env: dev # ui:enum=[dev, 'prod'] # ui:description=Where
  key: ''   # ui:secret
  db: pg_local # ui:credential=pg_*
  n: 5
  share: 0.5
  on: true
  nothing: null
  items: [1, 2]
  opts: # ui:description=Options
    secret: a # ui:secret
    deeper: {b: 1}
  plain: 1 # just a remark
workflow: []
other:
  zeta: 1 # ui:secret
"""


def by_name(content: str) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in form_fields(content)}


def test_fields_come_in_the_order_of_the_document_with_the_kind_of_their_default() -> None:
    kinds = [(item["name"], item["kind"]) for item in form_fields(DOCUMENT)]
    assert kinds == [
        ("zeta", "string"), ("env", "enum"), ("key", "string"), ("db", "string"), ("n", "integer"),
        ("share", "number"), ("on", "boolean"), ("nothing", "null"), ("items", "array"), ("opts", "object"),
        ("plain", "integer"),
    ]  # fmt: skip


def test_hints_count_on_their_line_and_level_only() -> None:
    fields = by_name(DOCUMENT)
    assert (fields["zeta"]["description"], fields["zeta"]["secret"]) == ("Greeting text", False)
    assert (fields["env"]["options"], fields["env"]["description"]) == (["dev", "prod"], "Where")
    assert fields["key"]["secret"] is True
    assert fields["db"]["credential_glob"] == "pg_*"
    assert fields["plain"]["description"] is None
    children = {item["name"]: item for item in fields["opts"]["children"]}
    assert children["secret"]["secret"] is False
    assert [item["name"] for item in children["deeper"]["children"]] == ["b"]


@pytest.mark.parametrize("content", ["", "a: [", "workload: 5", "kind: x", "- 1"])
def test_what_has_no_workload_has_no_fields(content: str) -> None:
    assert form_fields(content) == []


def test_a_form_is_bounded() -> None:
    wide = "workload:\n" + "".join(f"  k{index}: 1\n" for index in range(FIELDS_MAX + 10))
    assert len(form_fields(wide)) == FIELDS_MAX
    deep = "workload: " + "{a: " * (DEPTH_MAX + 5) + "1" + "}" * (DEPTH_MAX + 5)
    levels, fields = 0, form_fields(deep)
    while fields:
        levels, fields = levels + 1, fields[0]["children"]
    assert levels == DEPTH_MAX + 1


def test_a_json_schema_has_the_same_fields() -> None:
    schema = input_schema(DOCUMENT)
    assert schema["additionalProperties"] is True
    assert schema["properties"]["env"] == {
        "type": "string", "description": "Where", "enum": ["dev", "prod"], "default": "dev",
    }  # fmt: skip
    assert schema["properties"]["nothing"] == {"type": "null"}


@given(st.text(max_size=300))
def test_no_text_breaks_it(text: str) -> None:
    form_fields(text)
    form_fields("workload:\n  a: 1 # ui:" + text)
