"""Registration says everything at once: errors with a 422, warnings beside the answer and in the entry."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from shared.engine.schema import schema_text
from tests.support.api import RunningApi, running_api

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: x, path: tests/x}\n"
BAD = HEAD + (
    "workflow:\n- step: start\n  tool: {kind: pyton}\n  next: {arcs: [{step: nowhere}]}\n- step: start\n  retrys: 1\n"
)
WARNS = HEAD + "workflow:\n- step: start\n  tool: {kind: noop}\n  case: []\n- step: lonely é\n  tool: {kind: noop}\n"


async def post(api: RunningApi, content: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    async with api.session.post(api.url + "/api/catalog/register", json={"content": content}) as response:
        return response.status, dict(response.headers), await response.json()


@pytest.mark.parametrize("encode", [str, lambda text: base64.b64encode(text.encode()).decode()], ids=["text", "base64"])
async def test_a_refusal_has_every_problem_with_its_place(api: RunningApi, encode: Any) -> None:
    status, _, answer = await post(api, encode(BAD))
    assert status == 422
    assert answer["detail"].startswith(
        "register_resource: 'tests/x' is not a valid playbook: line 6, workflow.0.tool.kind: unknown tool kind 'pyton'"
    )
    assert [(item["line"], item["column"], item["key"], item["severity"]) for item in answer["problems"]] == [
        (6, 10, "workflow.0.tool.kind", "error"),
        (7, 18, "workflow.0.next.arcs.0.step", "error"),
        (8, 3, "workflow.1.step", "error"),
        (9, 3, "workflow.1.retrys", "warning"),
    ]
    assert all(item["message"] for item in answer["problems"])
    assert (await api.request("POST", "/api/catalog/list", {}))[1] == {"entries": []}


async def test_many_errors_are_counted_in_the_text_and_listed_beside_it(api: RunningApi) -> None:
    steps = "".join(f"- {{step: s{index}, tool: {{kind: pyton}}}}\n" for index in range(12))
    _, _, answer = await post(api, HEAD + "workflow:\n" + steps)
    assert answer["detail"].endswith(" … (+7 more)")
    assert len(answer["problems"]) == 12


async def test_warnings_come_with_the_answer_and_stay_in_the_entry(api: RunningApi) -> None:
    status, headers, answer = await post(api, WARNS)
    assert status == 200
    assert headers["X-Playhead-Warnings-Count"] == "2"
    assert headers["X-Playhead-Warnings"].startswith("line 7, workflow.0.case: Step 'start': 'case' is not run: use")
    assert "lonely ?" in headers["X-Playhead-Warnings"]
    assert len(answer["warnings"]) == 2
    _, entry = await api.request("POST", "/api/catalog/resource", {"path": "tests/x"})
    assert [(item["line"], item["column"], item["key"]) for item in entry["meta"]["warnings"]] == [
        (7, 3, "workflow.0.case"),
        (8, 3, "workflow.1"),
    ]


async def test_the_header_of_warnings_is_bounded(api: RunningApi) -> None:
    steps = "".join(f"- {{step: s{index}, tool: {{kind: noop}}, case: []}}\n" for index in range(45))
    status, headers, answer = await post(api, HEAD + "workflow:\n" + steps)
    assert (status, headers["X-Playhead-Warnings-Count"]) == (200, str(len(answer["warnings"])))
    assert len(headers["X-Playhead-Warnings"]) < 2100
    assert headers["X-Playhead-Warnings"].endswith(" ...")


async def test_a_document_without_warnings_is_answered_as_by_the_original(api: RunningApi) -> None:
    status, headers, answer = await post(api, HEAD + "workflow:\n- step: start\n  tool: {kind: noop}\n")
    assert status == 200
    assert set(answer) == {"status", "message", "path", "version", "catalog_id", "kind"}
    assert not [name for name in headers if name.startswith("X-Playhead-Warnings")]
    _, entry = await api.request("POST", "/api/catalog/resource", {"path": "tests/x"})
    assert "warnings" not in entry["meta"]


async def test_a_strict_document_is_refused_for_its_warnings(api: RunningApi) -> None:
    status, _, answer = await post(api, WARNS.replace("workflow:", "executor: {spec: {strict: true}}\nworkflow:"))
    assert status == 422
    assert {item["severity"] for item in answer["problems"]} == {"error"}


async def test_a_strict_api_refuses_warnings(database_dsn: str) -> None:
    async with running_api(database_dsn, noetl_registration_strict=True) as api:
        assert (await post(api, WARNS))[0] == 422
        assert (await post(api, HEAD + "workflow:\n- step: start\n  tool: {kind: noop}\n"))[0] == 200


async def test_a_large_document_is_checked_too(api: RunningApi) -> None:
    filler = "".join(f"  k{index}: {'x' * 40}\n" for index in range(2000))
    status, _, answer = await post(api, BAD.replace("workflow:", f"workload:\n{filler}workflow:"))
    assert status == 422
    assert answer["problems"][0]["line"] == 2007


async def test_a_batch_has_the_problems_of_each(api: RunningApi) -> None:
    _, answer = await api.request("POST", "/api/catalog/register/batch", {"items": [{"content": BAD}]})
    assert answer["results"][0]["status"] == "failed"
    assert len(answer["results"][0]["problems"]) == 4


async def test_the_schema_of_the_language_is_served(api: RunningApi) -> None:
    status, schema = await api.request("GET", "/schema/playbook.json")
    assert (status, schema) == (200, json.loads(schema_text()))
