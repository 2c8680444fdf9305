"""AI routes with playbooks that stand in for a model: they answer from what the server gave them."""

from __future__ import annotations

from typing import Any

from tests.e2e import playbooks
from tests.support.stack import Stack

HEAD = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {{name: {name}, path: {path}}}
workflow:
  - step: start
    tool:
      kind: python
      input: {{given: "{{{{ workload }}}}"}}
      code: |
"""
ANALYSER = (
    HEAD.format(name="analyser", path="ops/execution_ai_analyze")
    + """
        report = {"executive_summary": given["target_playbook_path"] + " " + given["target_playbook_status"],
                  "primary_bottlenecks": [row["event_type"] for row in given["event_rows"]],
                  "proposed_patch_diff": "a patch"}
        result = {"ai_report": report, "api_token": "abcdefghijklmnop"}
"""
)
EXPLAINER = (
    HEAD.format(name="explainer", path="tests/explainer")
    + """
        result = {"ai_report": {"executive_summary": given["target_playbook_content"], "model": given["model"]}}
"""
)
GENERATOR = (
    HEAD.format(name="generator", path="ops/playbook_ai_generate")
    + """
        result = {"draft": {"yaml": "kind: Playbook # " + given["prompt"]}}
"""
)
SILENT = (
    HEAD.format(name="silent", path="tests/silent")
    + """
        result = {"nothing": True}
"""
)


async def test_an_analyser_reports_on_an_execution(stack: Stack) -> None:
    await stack.register(ANALYSER)
    execution_id = await stack.execute(await stack.register(playbooks.FAILING))
    await stack.until_ended(execution_id)
    body = {"approved": True, "include_patch_diff": False}
    status, answer = await stack.request("POST", f"/api/executions/{execution_id}/analyze/ai", body)
    assert status == 200, answer
    assert answer["ai_execution_status"] == "COMPLETED"
    assert answer["ai_report"]["executive_summary"] == "e2e/failing failed"
    assert "playbook.failed" in answer["ai_report"]["primary_bottlenecks"]
    assert answer["ai_report"]["proposed_patch_diff"] == ""
    assert answer["ai_report"]["test_commands"] == ["pytest -q"]
    assert (answer["approved"], answer["auto_fix_mode"], answer["approval_required"]) == (True, "report", True)
    assert answer["bundle"]["execution_id"] == execution_id
    assert answer["ai_raw_output"]["api_token"] == "[REDACTED]"
    assert answer["ai_raw_output"]["terminal_event"]["event_type"] == "playbook.completed"
    _, shown = await stack.request("GET", f"/api/executions/{answer['ai_execution_id']}/status")
    assert shown["status"] == "COMPLETED"


async def test_a_playbook_is_called_as_a_tool(stack: Stack) -> None:
    await stack.register(playbooks.LINEAR)
    await stack.register(playbooks.FAILING)

    async def call(path: str, name: str) -> dict[str, Any]:
        params = {"name": name, "arguments": {"name": "Grace"}}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        status, answer = await stack.request("POST", f"/api/mcp/playbook/{path}/jsonrpc", body)
        assert status == 200
        return dict(answer["result"])

    result = await call("e2e/linear", "linear")
    assert (result["isError"], result["content"][0]["type"]) == (False, "text")
    assert "HELLO, GRACE!" in result["content"][0]["text"]
    assert result["_meta"]["noetl_path"] == "e2e/linear"
    failed = await call("e2e/failing", "failing")
    assert failed["isError"] is True
    assert "boom" in failed["content"][0]["text"]


async def test_an_explainer_sees_the_playbook(stack: Stack) -> None:
    await stack.register(EXPLAINER)
    await stack.register(playbooks.LINEAR)
    body = {"path": "e2e/linear", "explanation_playbook_path": "tests/explainer", "model": "m"}
    status, answer = await stack.request("POST", "/api/catalog/playbooks/explain/ai", body)
    assert status == 200, answer
    assert answer["target_path"] == "e2e/linear"
    assert answer["ai_report"] == {"executive_summary": playbooks.LINEAR, "model": "m"}


async def test_a_generator_answers_a_playbook_or_says_that_there_is_none(stack: Stack) -> None:
    await stack.register(GENERATOR)
    status, answer = await stack.request("POST", "/api/catalog/playbooks/generate/ai", {"prompt": "two steps"})
    assert status == 200, answer
    assert answer["generated_playbook"] == "kind: Playbook # two steps"
    await stack.register(SILENT)
    body = {"prompt": "x", "generator_playbook_path": "tests/silent"}
    status, answer = await stack.request("POST", "/api/catalog/playbooks/generate/ai", body)
    assert status == 502
    assert "no generated playbook text was returned. AI execution status: COMPLETED" in answer["detail"]
