"""Secrets of every kind go through the whole stack, and are then looked for everywhere a stack writes to.

With tokens asked for, every service at DEBUG, spans exported: credentials, keychain entries, tokens in headers, a postgres
password that works and one that does not, a step that fails with the secret in its message. Then: logs, the event log and every
other table, the files of NATS and Postgres, metrics, spans, and what the API answers to a viewer.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from aiohttp import web

from services.dev.processes import free_port
from tests.support.stack import Stack

HOMES = {"admin-token", "internal-api-token", "encryption-key", "password"}  # files whose content they are

PLAYBOOK = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: leaks, path: e2e/leaks}
workload: {url: ""}
workflow:
  - step: start
    tool:
      kind: http
      method: POST
      url: "{{ workload.url }}/keychain"
      headers: {X-Token: "{{ keychain.tok.access_token }}"}
      payload: {token: "{{ keychain.tok.access_token }}"}
    next: {arcs: [{step: bearer}]}
  - step: bearer
    tool:
      kind: http
      url: "{{ workload.url }}/bearer"
      auth: {api: {type: bearer, key: http_api}}
    next: {arcs: [{step: query}]}
  - step: query
    tool: {kind: postgres, auth: pg_good, command: "SELECT current_user AS who"}
    next: {arcs: [{step: refused}]}
  - step: refused
    tool: {kind: postgres, auth: pg_bad, command: "SELECT 1"}
    next: {arcs: [{step: failing, when: "{{ output.status == 'error' }}"}]}
  - step: failing
    tool:
      kind: python
      input: {token: "{{ keychain.tok.access_token }}"}
      code: |
        print("the token is", token)
        raise ValueError("cannot use " + token)
"""


class Leaky(Stack):
    """A stack with everything that talks switched on."""

    def command(self) -> list[str]:
        """Return the command line."""
        return [*super().command(), "--log-level", "DEBUG"]


class Listener:
    """The services outside: one that echoes what it is sent, and a collector of spans."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.spans = b""

    async def echo(self, request: web.Request) -> web.Response:
        text = await request.text()
        self.seen.append(str(dict(request.headers)) + text)
        return web.json_response({"headers": dict(request.headers), "body": text})

    async def collect(self, request: web.Request) -> web.Response:
        self.spans += await request.read()
        return web.Response()


@asynccontextmanager
async def listening(listener: Listener) -> AsyncIterator[str]:
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/traces", listener.collect)
    app.router.add_route("*", "/{tail:.*}", listener.echo)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def planted(name: str) -> str:
    return f"planted-{name}-{uuid.uuid4().hex}"


async def prepare(stack: Stack, secrets: dict[str, str]) -> str:
    """Store the secrets and return the catalog id of the playbook."""
    owner = await asyncpg.connect(stack.ready["postgres_dsn"])
    await owner.execute(f"CREATE ROLE leaky LOGIN PASSWORD '{secrets['pg_good']}'")
    await owner.close()
    place = urlsplit(stack.ready["postgres_dsn"])
    database = {"db_host": place.hostname, "db_port": place.port, "db_user": "leaky", "db_name": place.path[1:]}
    credentials: list[dict[str, Any]] = [
        {"name": name, "type": "postgres", "data": {**database, "db_password": secrets[name]}}
        for name in ("pg_good", "pg_bad")
    ]
    credentials.append({"name": "http_api", "type": "bearer", "data": {"token": secrets["http_api"]}})
    for body in credentials:
        status, answer = await stack.request("POST", "/api/credentials", body)
        assert status == 200, answer
    catalog_id = await stack.register(PLAYBOOK)
    renewal = {"endpoint": "http://127.0.0.1:1/token", "data": {"client_secret": secrets["renewal"]}}
    body = {"token_data": {"access_token": secrets["keychain"]}, "credential_type": "bearer", "auto_renew": True}
    status, answer = await stack.request("POST", f"/api/keychain/{catalog_id}/tok", {**body, "renew_config": renewal})
    assert status == 200, answer
    return catalog_id


async def provoke(stack: Stack, secrets: dict[str, str]) -> None:
    """Make errors of requests that carry secrets."""
    keychain = secrets["keychain"]
    for method, path, body in (
        ("POST", "/api/credentials", {"name": "x", "data": keychain}),
        ("POST", "/api/credentials", {"name": 5, "data": {"password": keychain}}),
        ("POST", "/api/credentials", {"data": {"of any name": keychain}}),
        ("POST", "/api/keychain/1/tok", {"token_data": keychain, "credential_type": "x"}),
        ("POST", "/api/keychain/1/tok", {"token_data": {"a": keychain}, "credential_type": "x"}),
        ("GET", f"/api/executions?token={keychain}", None),
        ("POST", "/api/tokens", {"name": "!", "role": "viewer"}),
    ):
        status, answer = await stack.request(method, path, body)
        assert 400 <= status < 500, (path, answer)
        assert keychain not in str(answer), path


async def shown(stack: Stack, execution_id: str, viewer: str) -> str:
    """Return everything that a viewer is answered about the run."""
    parts: list[str] = []
    headers = {"Authorization": f"Bearer {viewer}"}
    base = f"/api/executions/{execution_id}"
    paths = ["/api/executions", base, f"{base}/status?full=true", f"{base}/events?page_size=500", "/api/credentials"]
    paths += ["/api/worker/pools", "/metrics", "/openapi.json", f"/api/vars/{execution_id}"]
    assert stack.session is not None
    for path in paths:
        async with stack.session.get(stack.url + path, headers=headers) as response:
            assert response.status == 200, path
            parts.append(await response.text())
    for path in (
        "/api/internal/audit?limit=1000",
        "/api/internal/secret-audit?limit=1000",
        "/api/internal/dead-letters",
    ):
        _, answer = await stack.request("GET", path)
        parts.append(str(answer))
    return "\n".join(parts)


async def metrics(stack: Stack) -> str:
    """Return the metrics of every service; their ports are in their environments."""
    parts: list[str] = []
    assert stack.session is not None
    for pid in stack.ready["services"].values():
        variables = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
        for port in re.findall(r"NOETL_[A-Z]+_METRICS_PORT=(\d+)", variables):
            async with stack.session.get(f"http://127.0.0.1:{port}/metrics") as response:
                parts.append(await response.text())
    return "\n".join(parts)


async def tables(stack: Stack) -> dict[str, str]:
    """Return the rows of every table as text."""
    connection = await asyncpg.connect(stack.ready["postgres_dsn"])
    names = await connection.fetch(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'noetl' AND table_type = 'BASE TABLE'"
    )
    found: dict[str, str] = {}
    for row in names:
        rows = await connection.fetch(f'SELECT t::text AS row FROM noetl."{row["table_name"]}" t')
        found[row["table_name"]] = "\n".join(item["row"] for item in rows)
    await connection.close()
    return found


def files(stack: Stack) -> Iterator[tuple[str, bytes]]:
    """Yield every file that the stack wrote, but those that are the home of a secret."""
    for path in sorted(stack.directory.rglob("*")):
        if path.is_file() and path.name not in HOMES and path.name != "ready.json":
            yield str(path.relative_to(stack.directory)), path.read_bytes()


@pytest.fixture
async def listener() -> AsyncIterator[tuple[Listener, str]]:
    made = Listener()
    async with listening(made) as url:
        yield made, url


async def test_no_secret_is_anywhere_but_where_it_belongs(listener: tuple[Listener, str]) -> None:
    outside, url = listener
    stack = Leaky(
        env={"NOETL_AUTH_MODE": "token", "OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    )
    try:
        await stack.start()
        assert stack.session is not None
        admin = (stack.data_dir / "admin-token").read_text().strip()
        stack.session.headers["Authorization"] = f"Bearer {admin}"
        secrets = {name: planted(name) for name in ("pg_good", "pg_bad", "http_api", "keychain", "renewal")}
        catalog_id = await prepare(stack, secrets)
        status, made = await stack.request("POST", "/api/tokens", {"name": "looker", "role": "viewer"})
        assert status == 201, made
        secrets["viewer"] = made["token"].split("_", 2)[2]
        await provoke(stack, secrets)

        execution_id = await stack.execute(catalog_id, {"url": url})
        ended = await stack.until_ended(execution_id)

        assert ended["status"] == "FAILED", ended
        assert "cannot use" in str(ended["error"])
        used = "\n".join(outside.seen)
        assert secrets["keychain"] in used, "the run did use the secrets"
        assert secrets["http_api"] in used
        events = await stack.events(execution_id)
        done = {event["node_name"]: event for event in events if event["event_type"] in ("call.done", "call.error")}
        assert set(done) == {"start", "bearer", "query", "refused", "failing"}
        assert "leaky" in str(done["query"])
        assert done["refused"]["event_type"] == "call.error"

        secrets |= {
            "admin": admin,
            "internal": stack.token(),
            "own": urlsplit(stack.ready["postgres_dsn"]).password or "",
        }
        secrets["key"] = (stack.data_dir / "encryption-key").read_text().strip()
        places: dict[str, bytes] = {
            "answers": (await shown(stack, execution_id, made["token"])).encode(),
            "metrics": (await metrics(stack)).encode(),
            **{f"table {name}": text.encode() for name, text in (await tables(stack)).items()},
        }
        assert b"noetl_" in places["metrics"]
        assert b"leaks" in places["table catalog"]
        await stack.stop()
        places |= dict(files(stack))
        places["spans"] = outside.spans
        assert b"POST /api/execute" in outside.spans
        found = [
            f"{name} in {place}"
            for place, content in places.items()
            for name, text in secrets.items()
            if text.encode() in content
        ]
        assert not found
        assert any(place.endswith("logs/worker.log") for place in places)
    finally:
        await stack.close()
