"""Bad input is answered with what is wrong, never with a 500, and leaves no row."""

from __future__ import annotations

import io
import json
import re
from collections.abc import AsyncIterator

import asyncpg
import pytest

from services.api.app import TABLES
from services.api.http import RouteSpec
from tests.e2e.playbooks import FAILING, LINEAR
from tests.support.api import TOKEN, RunningApi

SPECS = [spec for table in TABLES for spec in table.specs]
WITH_BODY = [spec for spec in SPECS if spec.body is not None]
WITH_ID = [spec for spec in SPECS if re.search(r"\{\w+_id\}", spec.path)]
TABLES_WRITTEN = (
    "execution",
    "event",
    "command",
    "outbox",
    "catalog",
    "credential",
    "keychain",
    "runtime",
    "result_store",
    "subscription_dedup",
    "playbook_test_suite",
)
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}


def name(spec: RouteSpec) -> str:
    return f"{spec.method} {spec.path}"


def filled(path: str, value: str = "1") -> str:
    return re.sub(r"\{\w+\}", value, path)


@pytest.fixture
async def guarded(api: RunningApi, database_dsn: str) -> AsyncIterator[RunningApi]:
    """An API that must have as many rows after the test as before, and still work."""
    connection = await asyncpg.connect(database_dsn)

    async def counts() -> dict[str, int]:
        return {table: await connection.fetchval(f"SELECT count(*) FROM noetl.{table}") for table in TABLES_WRITTEN}

    before = await counts()
    yield api
    assert await counts() == before
    await api.start(LINEAR)
    await connection.close()


BODIES = {
    "nothing": b"",
    "no json": b"{",
    "a list": b"[1]",
    "a number": b"7",
    "wrong types": json.dumps(
        dict.fromkeys(  # noqa: RUF024 - it is only read
            ("execution_id", "path", "content", "events", "name", "data", "worker_id", "limit", "items", "decisions",
             "outbox_ids", "executions", "variables", "step", "token_data", "outbox_id", "reason", "source"),
            {"x": [1]},
        )
    ).encode(),
    "no utf-8": b'{"path": "\xff\xfe"}',
    "deep": b'{"payload": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "lone surrogate": b'{"path": "\\ud800", "name": "\\ud800", "content": "\\ud800"}',
    "huge number": b'{"execution_id": 1' + b"0" * 400 + b"}",
}  # fmt: skip


@pytest.mark.parametrize("kind", BODIES)
async def test_a_body_that_is_wrong_is_refused_by_every_route(guarded: RunningApi, kind: str) -> None:
    for spec in WITH_BODY:
        async with guarded.session.request(
            spec.method, guarded.url + filled(spec.path), data=BODIES[kind], headers=HEADERS
        ) as response:
            text = await response.text()
            allowed = 200 if _may_be_empty(spec, kind) else 400
            assert allowed <= response.status < 500, (name(spec), response.status, text)
            if response.status >= 400:
                assert "detail" in json.loads(text), name(spec)
            assert "Traceback" not in text


def _may_be_empty(spec: RouteSpec, kind: str) -> bool:
    """Whether a body without anything known in it is a good one: filters, bounds, and names that mean themselves."""
    lax = (
        "/list",
        "/reconcile",
        "/rotate-kek",
        "/outbox/claim",
        "/cancel",
        "/stop",
        "/finalize",
        "/cleanup",
        "/jsonrpc",
        "/vars/",
        "/keychain/",
        "/pool/",
    )
    return any(part in spec.path for part in lax) and kind not in ("a list", "a number", "no json")


@pytest.mark.parametrize("value", ["abc", "9223372036854775808", "99999999999999999999", "1.5", "%00", "١٢"])
async def test_an_id_that_is_no_id_is_refused_by_every_route(guarded: RunningApi, value: str) -> None:
    for spec in WITH_ID:
        path = re.sub(r"\{\w+_id\}", value, spec.path)
        async with guarded.session.request(
            spec.method, guarded.url + filled(path), data=b"{}", headers=HEADERS
        ) as response:
            text = await response.text()
            assert 400 <= response.status < 500, (name(spec), value, response.status, text)
            assert "detail" in json.loads(text)


@pytest.mark.parametrize("value", ["-1", "0"])
async def test_an_id_that_nothing_can_have_is_not_found(guarded: RunningApi, value: str) -> None:
    for path in ("/api/executions/{}", "/api/executions/{}/status", "/api/commands/{}"):
        status, answer = await guarded.request("GET", path.format(value))
        assert (status, "not found" in answer["detail"].lower()) == (404, True), path
    for spec in WITH_ID:
        path = re.sub(r"\{\w+_id\}", value, spec.path)
        async with guarded.session.request(
            spec.method, guarded.url + filled(path), data=b"{}", headers=HEADERS
        ) as response:
            assert response.status < 500, (name(spec), value, await response.text())


async def test_an_unknown_path_is_404_and_a_wrong_method_405(guarded: RunningApi) -> None:
    assert await guarded.request("GET", "/api/nothing/here") == (404, {"detail": "Not Found"})
    assert await guarded.request("DELETE", "/api/execute") == (405, {"detail": "Method Not Allowed"})


async def test_what_does_not_exist_is_404(guarded: RunningApi) -> None:
    for path in ("", "/status", "/events", "/events/stream", "/cancellation-check"):
        status, answer = await guarded.request("GET", f"/api/executions/123456789{path}")
        assert status == 404, path
        assert "not found" in answer["detail"].lower()
    for body in ({"path": "no/where"}, {"catalog_id": "123"}):
        status, _ = await guarded.request("POST", "/api/execute", body)
        assert status == 404
    event = {"execution_id": "123456789", "step": "a", "name": "call.done", "payload": {}}
    assert (await guarded.request("POST", "/api/events", event))[0] == 404


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [1\n", "line 2"),
        ("- 1\n", "mapping"),
        (FAILING.replace("kind: python", "kind: pithon"), "workflow.0.tool.kind"),
        (FAILING.replace("kind: python", "kind: pithon"), "line 7"),
        (FAILING + "    next: {arcs: [{step: nowhere}]}\n", "nowhere"),
        (FAILING.replace("v2", "v3"), "apiVersion"),
        ("kind: Playbook\n" + "a: &a [x]\nb: [" + ", ".join(["*a"] * 3) + "]\n", "apiVersion"),
        ("x: " + "[" * 100_000, "deep"),
        ('x: "a\\0b"\n', "NUL"),
        ('"k\\ud800": 1\n', "surrogate"),
    ],
)
async def test_a_document_that_cannot_run_is_refused_with_line_and_key(
    guarded: RunningApi, content: str, said: str
) -> None:
    status, answer = await guarded.request("POST", "/api/catalog/register", {"content": content})
    assert status == 422
    assert said in str(answer["detail"])


async def test_a_body_over_the_limit_is_413(guarded: RunningApi) -> None:
    large = b'{"content": "' + b"x" * (8 * 1024 * 1024) + b'"}'
    async with guarded.session.post(
        guarded.url + "/api/catalog/register", data=io.BytesIO(large), headers=HEADERS
    ) as response:
        assert response.status == 413
        assert "detail" in await response.json()


async def test_a_first_step_that_cannot_be_rendered_is_refused(api: RunningApi) -> None:
    text = LINEAR.replace("{{ workload.name }}", "{{ 1 / workload.zero }}")
    _, entry = await api.request("POST", "/api/catalog/register", {"content": text})
    status, answer = await api.request("POST", "/api/execute", {"path": entry["path"], "payload": {"zero": 0}})
    assert status == 422
    assert "1 / workload.zero" in answer["detail"]
    assert (await api.request("GET", "/api/executions"))[1] == []


async def test_an_output_over_the_inline_limit_is_stored_by_reference(api: RunningApi) -> None:
    execution = await api.start(LINEAR)
    event = {
        "execution_id": execution,
        "step": "start",
        "name": "call.done",
        "payload": {"response": {"t": "x" * 300_000}},
    }
    status, answer = await api.request("POST", "/api/events", event)
    assert status == 200, answer
    stored = (await api.log(execution))[-1]
    assert stored["context"] is None
    locator = stored["result"]["reference"]["locator"]
    status, data = await api.request("GET", "/api/result/resolve", params={"ref": locator})
    assert (status, data) == (200, {"t": "x" * 300_000})


async def test_a_large_output_of_an_unknown_execution_is_404(api: RunningApi) -> None:
    event = {"execution_id": 12345, "step": "start", "name": "call.done", "payload": {"response": "x" * 300_000}}
    assert (await api.request("POST", "/api/events", event))[0] == 404


@pytest.mark.parametrize("key", ["x" * 1025, "kläy", "a\tb"])
async def test_an_idempotency_key_that_cannot_be_kept_is_refused(api: RunningApi, key: str) -> None:
    execution = await api.start(LINEAR)
    event = {"execution_id": execution, "step": "start", "name": "note", "payload": {}}
    status, answer = await api.request("POST", "/api/events", event, headers={"Idempotency-Key": key})
    assert status == 422
    assert answer["detail"][0]["loc"] == ["header", "Idempotency-Key"]


async def test_a_nul_character_is_refused_or_replaced_and_never_a_500(api: RunningApi) -> None:
    execution = await api.start(LINEAR, {"name": "a\x00b"})
    status, answer = await api.request("GET", f"/api/executions/{execution}/status")
    assert (status, answer["status"]) == (200, "RUNNING")
    event = {"execution_id": execution, "step": "st\x00art", "name": "note\x00", "payload": {"a\x00": "\x00"}}
    assert (await api.request("POST", "/api/events", event))[0] in (200, 422)
    assert (await api.request("POST", "/api/execute", {"path": "a\x00"}))[0] in (404, 422)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.internal], ids=name)
async def test_the_internal_routes_want_their_token(guarded: RunningApi, spec: RouteSpec) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer"},
    ):
        status, answer = await guarded.request(spec.method, filled(spec.path), {}, headers=headers)
        assert status == 403, answer


async def test_null_stands_for_absent_where_something_may_be_absent(api: RunningApi) -> None:
    body = {"name": "n", "data": {}, "tags": None, "meta": None, "description": None}
    status, answer = await api.request("POST", "/api/credentials", body)
    assert (status, answer["tags"]) == (200, [])
