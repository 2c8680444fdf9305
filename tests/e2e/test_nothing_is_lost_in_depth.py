"""The same promise for what lives long: loops, sub-playbooks that are waited for, retries by timer."""

from __future__ import annotations

import asyncio
from functools import partial

import asyncpg
import pytest

from tests.e2e.test_nothing_is_lost import VICTIMS, kill, own_stack, wipe_nats
from tests.support.stack import Stack

__all__ = ["own_stack"]

EXECUTIONS = 12
ITEMS = 4
CHILD = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: child, path: deep/child}
workload: {n: 0}
workflow:
  - step: start
    tool: {kind: python, input: {n: "{{ workload.n }}"}, code: "result = {'square': n * n}"}
    next: {arcs: [{step: end}]}
  - step: end
    tool: {kind: python, input: {square: "{{ start.square }}"}, code: "result = {'square': square}"}
"""
PARENT = f"""
apiVersion: noetl.io/v2
kind: Playbook
metadata: {{name: parent, path: deep/parent}}
workflow:
  - step: start
    tool: {{kind: noop}}
    next: {{spec: {{mode: inclusive}}, arcs: [{{step: children}}, {{step: rows}}, {{step: flaky}}]}}
  - step: children
    loop: {{in: {ITEMS}, iterator: n, spec: {{mode: parallel, max_in_flight: 2}}}}
    tool: {{kind: playbook, path: deep/child, wait: true, input: {{n: "{{{{ iter.n }}}}"}}}}
    next: {{arcs: [{{step: join}}]}}
  - step: rows
    loop: {{in: {ITEMS}, iterator: n, spec: {{mode: sequential}}}}
    tool: {{kind: shell, cmd: "sleep 0.05; echo {{{{ iter.n }}}}"}}
    next: {{arcs: [{{step: join}}]}}
  - step: flaky
    spec: {{retry: {{attempts: 3, backoff: fixed, delay: 0.2}}}}
    tool: {{kind: python, code: "raise ValueError('always')"}}
    next: {{arcs: [{{step: join, when: "{{{{ output.status == 'error' }}}}"}}]}}
  - step: join
    tool:
      kind: python
      input: {{children: "{{{{ children.results }}}}", rows: "{{{{ rows.results }}}}"}}
      code: "result = {{'squares': [c['square'] for c in children], 'rows': [int(r['stdout']) for r in rows]}}"
"""
ISSUED = ["children"] * ITEMS + ["flaky"] * 3 + ["join"] + ["rows"] * ITEMS + ["start"]


async def check(stack: Stack) -> None:
    """Every parent completed with the right result, every command once, each item's child once and complete."""
    connection = await asyncpg.connect(stack.ready["postgres_dsn"])
    try:
        await stack.until_rows("SELECT 1 FROM noetl.execution WHERE status <> 'COMPLETED'", count=0)
        parents = await connection.fetch("SELECT execution_id FROM noetl.execution WHERE parent_execution_id IS NULL")
        logs = await connection.fetch(
            "SELECT execution_id, array_agg(stream_version ORDER BY stream_version) AS versions, "
            "array_agg(node_name ORDER BY node_name) FILTER (WHERE event_type = 'command.issued') AS issued, "
            "count(*) FILTER (WHERE event_type = 'playbook.completed') AS ends, "
            "count(*) FILTER (WHERE event_type = 'call.error') AS errors FROM noetl.event GROUP BY execution_id"
        )
        children = await connection.fetch(
            "SELECT parent_execution_id, count(*) AS number, count(DISTINCT parent_command_id) AS commands "
            "FROM noetl.execution WHERE parent_execution_id IS NOT NULL GROUP BY 1"
        )
        results = await connection.fetch("SELECT result FROM noetl.event WHERE event_type = 'playbook.completed' "
                                         "AND node_name = 'deep/parent'")  # fmt: skip
    finally:
        await connection.close()
    known = {row["execution_id"] for row in parents}
    assert len(known) >= EXECUTIONS
    for log in logs:
        assert log["versions"] == list(range(1, len(log["versions"]) + 1)), log
        assert log["ends"] == 1, log
        is_parent = log["execution_id"] in known
        assert log["issued"] == (ISSUED if is_parent else ["end", "start"]), log
        assert log["errors"] == (3 if is_parent else 0), log
    assert {row["parent_execution_id"]: (row["number"], row["commands"]) for row in children} == dict.fromkeys(
        known, (ITEMS, ITEMS)
    )
    numbers = list(range(ITEMS))
    for row in results:
        assert f'"squares": {[n * n for n in numbers]}' in row["result"]
        assert f'"rows": {numbers}' in row["result"]
    await stack.until_rows("SELECT 1 FROM noetl.outbox WHERE status <> 'PUBLISHED'", count=0)
    assert not await stack.until_rows("SELECT source, reason FROM noetl.dead_letter", count=0)


@pytest.mark.timeout(400)
async def test_killing_each_process_loses_no_item_no_child_and_no_timer(own_stack: Stack) -> None:
    await own_stack.register(CHILD)
    catalog_id = await own_stack.register(PARENT)
    victims = [partial(kill, own_stack, it) for it in VICTIMS]
    disturbances = [*victims[:3], partial(wipe_nats, own_stack), *victims[3:]]
    executions = [await own_stack.execute(catalog_id) for _ in range(EXECUTIONS)]
    for disturb in disturbances:
        await disturb()
        await progress(own_stack)
    for execution in executions:
        assert (await own_stack.until_ended(execution))["status"] == "COMPLETED"
    await check(own_stack)


async def progress(stack: Stack) -> None:
    """Wait until the log has grown, so that the next kill falls into the middle of work; not once all is done."""
    before: int | None = None
    async with asyncio.timeout(60):
        while True:
            number, running = await counts(stack)
            before = number if before is None else before
            if number >= before + 30 or running == 0:
                return
            await asyncio.sleep(0.05)


async def counts(stack: Stack) -> tuple[int, int]:
    """Return how many events there are and how many executions run, as soon as Postgres answers."""
    while True:
        try:
            connection = await asyncpg.connect(stack.ready["postgres_dsn"])
        except (asyncpg.PostgresError, OSError):
            await asyncio.sleep(0.05)
            continue
        try:
            number = await connection.fetchval("SELECT count(*) FROM noetl.event")
            return number, await connection.fetchval("SELECT count(*) FROM noetl.execution WHERE status = 'RUNNING'")
        finally:
            await connection.close()
