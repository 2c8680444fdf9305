"""Tools that talk to the API, to databases and to NATS, through every service."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from tests.support.stack import Stack

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{name: {name}, path: tools/{name}}}\n"
CHILD = (
    HEAD.format(name="child")
    + """
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
)
CHILDREN = (
    HEAD.format(name="children")
    + """
workflow:
  - step: start
    tool:
      - {name: good, kind: playbook, path: tools/child, return_step: end, input: {n: 7}}
      - {name: forgiven, kind: playbook, path: tools/child, wait: true, ignore_failure: true, input: {fail: true}}
      - {name: asked, kind: agent, framework: noetl, entrypoint: tools/child, payload: {fail: true}}
      - name: sum
        kind: python
        input: {good: "{{ good }}", forgiven: "{{ forgiven }}", asked: "{{ asked }}"}
        code: |
          result = {"square": good["square"], "child": forgiven["child_status"], "agent": asked["error"]["code"]}
"""
)
SECRET = (
    HEAD.format(name="secret")
    + """
workload: {credential: ""}
workflow:
  - step: start
    tool: {kind: secrets, credential: "{{ workload.credential }}", keychain: login}
    next: {arcs: [{step: use}]}
  - step: use
    tool:
      kind: python
      input: {password: "{{ keychain.login.password }}"}
      code: |
        result = {"length": len(password), "echo": password}
"""
)
STORED = (
    HEAD.format(name="stored")
    + """
workflow:
  - step: start
    tool: {kind: artifact, action: put, data: {rows: [1, 2, 3]}}
    next: {arcs: [{step: get}]}
  - step: get
    tool: {kind: artifact, action: get, result_ref: "{{ start.result_ref }}"}
    next: {arcs: [{step: fetch}]}
  - step: fetch
    tool: {kind: result_fetch, ref: "{{ start.result_ref }}"}
    next: {arcs: [{step: sum}]}
  - step: sum
    tool:
      kind: python
      input: {a: "{{ get.data.rows }}", b: "{{ fetch.rows }}"}
      code: |
        result = {"sum": sum(a) + sum(b)}
"""
)
MOVED = (
    HEAD.format(name="moved")
    + """
workload: {pg: "", nats: "", bucket: ""}
workflow:
  - step: start
    tool:
      kind: postgres
      auth: "{{ workload.pg }}"
      command: |
        CREATE TABLE source_rows AS SELECT n AS id, 'row ' || n AS note FROM generate_series(1, 3000) n;
        CREATE TABLE target_rows (LIKE source_rows);
    next: {arcs: [{step: move}]}
  - step: move
    tool:
      kind: transfer
      source: {type: postgres, auth: "{{ workload.pg }}", query: "SELECT * FROM source_rows"}
      target: {type: postgres, auth: "{{ workload.pg }}", table: target_rows, mode: replace}
    next: {arcs: [{step: count}]}
  - step: count
    tool: {kind: postgres, auth: "{{ workload.pg }}", query: "SELECT count(*) AS n, min(note) AS first FROM target_rows"}
    next: {arcs: [{step: keep}]}
  - step: keep
    tool:
      kind: nats
      auth: "{{ workload.nats }}"
      operation: kv_put
      bucket: "{{ workload.bucket }}"
      key: "counts/{{ execution_id }}"
      value: {n: "{{ count.rows[0].n }}", first: "{{ count.rows[0].first }}", moved: "{{ move.data.rows_transferred }}"}
    next: {arcs: [{step: read}]}
  - step: read
    tool:
      kind: nats
      auth: "{{ workload.nats }}"
      operation: kv_get
      bucket: "{{ workload.bucket }}"
      key: "counts/{{ execution_id }}"
    next: {arcs: [{step: crunch}]}
  - step: crunch
    tool:
      kind: duckdb
      query: |
        CREATE TABLE t AS SELECT * FROM range({{ read.value.n }}) r(i);
        SELECT count(*) AS n, '{{ read.value.first }}' AS first, {{ read.value.moved }} AS moved FROM t;
    next: {arcs: [{step: end}]}
  - step: end
    tool:
      kind: python
      input: {row: "{{ crunch.rows[0] }}", flat: "{{ crunch.command_0.row_count }}"}
      code: "result = row"
"""
)
ABSENT = (
    HEAD.format(name="absent")
    + """
workflow:
  - step: start
    tool: {kind: snowflake, auth: sf, query: "SELECT 1"}
"""
)


async def ended(stack: Stack, text: str, payload: dict[str, Any] | None = None) -> tuple[dict[str, Any], Any]:
    """Return the status document and what the last step returned."""
    execution_id = await stack.execute(await stack.register(text), payload)
    status = await stack.until_ended(execution_id)
    _, detail = await stack.request("GET", f"/api/executions/{execution_id}")
    return status, (detail.get("result") or {}).get("context")


async def credential(stack: Stack, kind: str, data: dict[str, Any]) -> str:
    name = f"{kind}_{uuid.uuid4().hex[:8]}"
    status, answer = await stack.request("POST", "/api/credentials", {"name": name, "type": kind, "data": data})
    assert status == 200, answer
    return name


async def test_children_inside_a_sequence(stack: Stack) -> None:
    await stack.register(CHILD)
    status, result = await ended(stack, CHILDREN)
    assert status["status"] == "COMPLETED", status["error"]
    assert result["square"] == 49
    assert (result["child"], result["agent"]) == ("FAILED", "PLAYBOOK_FAILED")


async def test_a_secret_reaches_the_step_that_uses_it_and_no_log(stack: Stack) -> None:
    password = uuid.uuid4().hex
    name = await credential(stack, "custom", {"username": "u", "password": password})
    status, result = await ended(stack, SECRET, {"credential": name})
    assert status["status"] == "COMPLETED", status["error"]
    assert (result["length"], result["echo"]) == (len(password), "[REDACTED]")
    assert password not in str(await stack.events(str(status["execution_id"])))


async def test_what_is_stored_comes_back(stack: Stack) -> None:
    status, result = await ended(stack, STORED)
    assert status["status"] == "COMPLETED", status["error"]
    assert result["sum"] == 12


async def test_rows_through_postgres_nats_and_duckdb(stack: Stack) -> None:
    parts = urlsplit(stack.ready["postgres_dsn"])
    database = f"tools_{uuid.uuid4().hex[:8]}"
    admin = await asyncpg.connect(stack.ready["postgres_dsn"])
    await admin.execute(f"CREATE DATABASE {database}")
    await admin.close()
    fields = {
        "db_host": parts.hostname,
        "db_port": parts.port,
        "db_user": parts.username,
        "db_password": parts.password,
        "db_name": database,
    }
    payload = {
        "pg": await credential(stack, "postgres", fields),
        "nats": await credential(stack, "nats", {"nats_url": stack.ready["nats_url"]}),
        "bucket": database,
    }
    status, result = await ended(stack, MOVED, payload)
    assert status["status"] == "COMPLETED", status["error"]
    assert result == {"n": 3000, "first": "row 1", "moved": 3000}


async def test_a_kind_that_is_not_here_says_what_to_do(stack: Stack) -> None:
    status, _ = await ended(stack, ABSENT)
    assert status["status"] == "FAILED"
    assert "'snowflake' is not in this worker" in status["error"]
    assert "execution_pool" in status["error"]
