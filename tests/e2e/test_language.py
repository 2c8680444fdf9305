"""Loops, sub-playbooks, retries and timeouts through every service."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

from tests.support.stack import Stack

CHILD = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: child, path: language/child}
workload: {n: 1, fail: false}
workflow:
  - step: start
    tool:
      kind: python
      input: {n: "{{ workload.n }}", fail: "{{ workload.fail }}"}
      code: |
        if fail:
            raise ValueError("child fails")
        result = {"square": n * n}
"""


def playbook(name: str, *steps: str, executor: str = "") -> str:
    head = f"apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{name: {name}, path: language/{name}}}\n{executor}"
    return head + "workflow:\n" + "".join(f"  - {step}\n" for step in steps)


async def run(stack: Stack, text: str, payload: dict[str, object] | None = None) -> dict[str, Any]:
    execution_id = await stack.execute(await stack.register(text), payload)
    return await stack.until_ended(execution_id)


async def result(stack: Stack, status: dict[str, Any]) -> Any:
    _, detail = await stack.request("GET", f"/api/executions/{status['execution_id']}")
    return detail["result"]["context"]


async def issued(stack: Stack, status: dict[str, Any]) -> Counter[str]:
    events = await stack.events(str(status["execution_id"]))
    return Counter(event["node_name"] for event in events if event["event_type"] == "command.issued")


async def test_a_parallel_loop_runs_each_item_once_and_keeps_their_order(stack: Stack) -> None:
    text = playbook(
        "parallel",
        "{step: start, loop: {in: '{{ range(25) | list }}', iterator: n, spec: {mode: parallel, max_in_flight: 7}}, "
        "tool: {kind: python, input: {n: '{{ iter.n }}'}, code: 'result = {\"v\": n * 2}'}, next: {arcs: [{step: sum}]}}",
        "{step: sum, tool: {kind: python, input: {rows: '{{ start.results }}', stats: '{{ start.stats }}'}, "
        'code: \'result = {"vs": [r["v"] for r in rows], "stats": stats}\'}}',
    )
    status = await run(stack, text)
    assert status["status"] == "COMPLETED", status["error"]
    found = await result(stack, status)
    assert found["vs"] == [2 * n for n in range(25)]
    assert found["stats"] == {"total": 25, "success": 25, "failed": 0}
    assert await issued(stack, status) == Counter({"start": 25, "sum": 1})


async def test_a_sub_playbook_gives_its_result_and_holds_no_worker(stack: Stack) -> None:
    await stack.register(CHILD)
    text = playbook(
        "parents",
        "{step: start, loop: {in: [3, 4], iterator: n, spec: {mode: parallel}}, tool: {kind: playbook, path: language/child, "
        "return_step: start, input: {n: '{{ iter.n }}'}}, next: {arcs: [{step: end}]}}",
        "{step: end, tool: {kind: python, input: {c: '{{ start.results }}'}, "
        'code: \'result = {"squares": [x["square"] for x in c], "status": [x["status"] for x in c]}\'}}',
    )
    status = await run(stack, text)
    assert status["status"] == "COMPLETED", status["error"]
    assert await result(stack, status) == {"squares": [9, 16], "status": ["COMPLETED", "COMPLETED"]}


async def test_a_failed_sub_playbook_fails_its_step_unless_ignored(stack: Stack) -> None:
    await stack.register(CHILD)
    step = "{step: start, tool: {kind: playbook, path: language/child, wait: true, ignore_failure: %s, input: {fail: true}}}"
    failed = await run(stack, playbook("strictly", step % "false"))
    assert failed["status"] == "FAILED"
    assert "child fails" in failed["error"]
    ignored = await run(stack, playbook("leniently", step % "true"))
    assert ignored["status"] == "COMPLETED"


async def test_a_playbook_that_calls_itself_ends_with_a_clear_error(stack: Stack) -> None:
    text = playbook("myself", "{step: start, tool: {kind: playbook, path: language/myself, wait: true}}")
    status = await run(stack, text)
    assert status["status"] == "FAILED"
    assert "does one call itself" in status["error"]


async def test_a_missing_sub_playbook_fails_the_step(stack: Stack) -> None:
    status = await run(stack, playbook("nowhere", "{step: start, tool: {kind: playbook, path: no/such, wait: true}}"))
    assert status["status"] == "FAILED"
    assert "no/such" in status["error"]


async def test_a_step_is_tried_again_by_a_durable_timer(stack: Stack) -> None:
    text = playbook(
        "again",
        "{step: start, spec: {retry: {attempts: 3, backoff: fixed, delay: 0.05}}, "
        "tool: {kind: python, code: 'raise ValueError(\"no\")'}}",
    )
    status = await run(stack, text)
    assert status["status"] == "FAILED"
    assert await issued(stack, status) == Counter({"start": 3})


async def test_a_step_that_takes_too_long_is_ended(stack: Stack) -> None:
    text = playbook(
        "slow",
        "{step: start, spec: {timeout: 0.2}, tool: {kind: shell, cmd: sleep 30}, "
        "next: {arcs: [{step: rescue, when: \"{{ output.status == 'error' }}\"}]}}",
        "{step: rescue, tool: {kind: noop}}",
    )
    status = await run(stack, text)
    assert status["status"] == "COMPLETED", status
    assert status["completed_steps"] == ["start", "rescue"]


async def test_an_execution_that_takes_too_long_is_ended_with_its_sub_playbooks(stack: Stack) -> None:
    await stack.register(playbook("sleeper", "{step: start, tool: {kind: shell, cmd: sleep 30}}"))
    text = playbook(
        "impatient",
        "{step: start, tool: {kind: playbook, path: language/sleeper, wait: true}}",
        executor="executor: {spec: {timeout: 0.3}}\n",
    )
    status = await run(stack, text)
    assert status["status"] == "FAILED"
    assert "longer than" in status["error"]
    events = await stack.events(str(status["execution_id"]))
    assert [event["event_type"] for event in events].count("playbook.failed") == 1
    _, listed = await stack.request("GET", "/api/executions")
    child = next(item for item in listed if item["parent_execution_id"] == status["execution_id"])
    ended = await stack.until_ended(child["execution_id"])
    assert ended["status"] == "CANCELLED"


async def test_a_large_loop_result_is_kept_by_reference_and_can_be_reached(stack: Stack) -> None:
    text = playbook(
        "large",
        "{step: start, loop: {in: 40, iterator: n, spec: {mode: parallel, max_in_flight: 10}}, "
        'tool: {kind: python, input: {n: \'{{ iter.n }}\'}, code: \'result = {"n": n, "text": "x" * 150000}\'}, '
        "next: {arcs: [{step: end}]}}",
        "{step: end, tool: {kind: python, input: {last: '{{ start.results[39].n }}', count: '{{ start.results | length }}'}, "
        'code: \'result = {"last": last, "count": count}\'}}',
    )
    status = await run(stack, text)
    assert status["status"] == "COMPLETED", status["error"]
    assert await result(stack, status) == {"last": 39, "count": 40}


async def test_the_tool_of_a_step_that_took_too_long_is_stopped(stack: Stack, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    text = playbook(
        "stopped",
        f"{{step: start, spec: {{timeout: 0.2}}, tool: {{kind: shell, cmd: 'echo $$ > {tmp_path}/pid; exec sleep 60'}}, "
        "next: {arcs: [{step: rescue, when: \"{{ output.status == 'error' }}\"}]}}",
        "{step: rescue, tool: {kind: noop}}",
    )
    status = await run(stack, text)
    assert status["status"] == "COMPLETED", status
    pid = int((tmp_path / "pid").read_text())
    async with asyncio.timeout(30):
        while Path(f"/proc/{pid}").exists():  # noqa: ASYNC110 - another process's end
            await asyncio.sleep(0.05)
