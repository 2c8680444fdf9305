"""Catalog, worker pools, secrets, variables, results, documents and health over HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from typing import Any

import asyncpg

from services.api.app import TABLES
from tests.e2e.playbooks import DIAMOND, LINEAR
from tests.support.api import RunningApi


async def test_versions_of_a_document_count_up_also_at_once(api: RunningApi) -> None:
    encoded = base64.b64encode(LINEAR.encode()).decode()

    async def register(content: str) -> int:
        status, answer = await api.request("POST", "/api/catalog/register", {"content": content})
        assert status == 200, answer
        return int(answer["version"])

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(register(content)) for content in [LINEAR, encoded] * 5]
    assert sorted(task.result() for task in tasks) == list(range(1, 11))
    _, listed = await api.request("POST", "/api/catalog/list", {"resource_type": "PLAYBOOK"})
    assert {entry["content"] for entry in listed["entries"]} == {LINEAR}


async def test_a_document_is_found_by_id_path_and_version(api: RunningApi) -> None:
    for _ in range(2):
        _, entry = await api.request("POST", "/api/catalog/register", {"content": LINEAR})
    for body, version in (
        ({"path": "e2e/linear"}, 2),
        ({"path": "e2e/linear", "version": "latest"}, 2),
        ({"path": "e2e/linear", "version": 1}, 1),
        ({"path": "e2e/linear", "version": "1"}, 1),
        ({"catalog_id": entry["catalog_id"]}, 2),
        ({"catalog_id": int(entry["catalog_id"])}, 2),
    ):
        status, found = await api.request("POST", "/api/catalog/resource", body)
        assert (status, found["version"]) == (200, version), body
    assert found["payload"]["metadata"]["path"] == "e2e/linear"
    assert found["meta"]["agent"] is False
    for body, expected in (
        ({"path": "e2e/linear", "version": 9}, 404),
        ({"path": "x"}, 404),
        ({}, 422),
        ({"version": "abc", "path": "x"}, 422),
    ):
        assert (await api.request("POST", "/api/catalog/resource", body))[0] == expected


async def test_a_batch_registers_what_is_right_and_names_what_is_not(api: RunningApi) -> None:
    items = [{"content": LINEAR}, {"content": "a: ["}, {"content": DIAMOND}]
    status, answer = await api.request("POST", "/api/catalog/register/batch", {"items": items})
    assert (status, answer["registered"], answer["failed"]) == (200, 2, 1)
    assert [result["status"] for result in answer["results"]] == ["registered", "failed", "registered"]


async def test_a_worker_pool_registers_beats_and_leaves(api: RunningApi) -> None:
    async with api.session.post(api.url + "/api/worker/pool/heartbeat", json={"name": "w1"}) as response:
        assert response.status == 404
        assert response.headers["Retry-After"] == "3"
        assert (await response.json())["detail"] == {"status": "unknown", "name": "w1"}
    body = {
        "name": "w1",
        "component_type": "worker_pool",
        "runtime": "python",
        "capacity": 2,
        "pid": 5,
        "meta": {"x": 1},
    }
    status, answer = await api.request("POST", "/api/worker/pool/register", body)
    assert (status, answer["status"], answer["runtime"], answer["kind"]) == (200, "ok", "python", "worker_pool")
    rust = {"name": "w2", "runtime": {"kind": "rust", "worker_public_key": "k"}, "labels": {"pool_name": "a"}}
    assert (await api.request("POST", "/api/worker/pool/register", rust))[0] == 200
    assert (await api.request("POST", "/api/worker/pool/heartbeat", {"name": "w1"}))[0] == 200
    _, answer = await api.request("GET", "/api/worker/pools?runtime=python")
    assert [(item["name"], item["runtime"]["x"]) for item in answer["items"]] == [("w1", 1)]
    for method in ("POST", "DELETE"):
        status, answer = await api.request(method, "/api/worker/pool/deregister", {"name": "w1"})
        assert (status, answer["status"]) == (200, "ok")
    _, answer = await api.request("GET", "/api/worker/pools?status=offline")
    assert answer["count"] == 1
    status, answer = await api.request("GET", "/api/pool/status")
    assert answer["status"] == "ok"
    assert answer["slots_available"] >= 1


async def test_secrets_are_encrypted_at_rest_and_shown_only_when_asked_for(api: RunningApi, database_dsn: str) -> None:
    secret = "s3cr3t-value-of-the-test"
    body = {"name": "pg", "type": "postgres", "data": {"password": secret}, "tags": "a,b"}
    status, answer = await api.request("POST", "/api/credentials", body)
    assert status in (200, 201)
    assert secret not in json.dumps(answer)
    _, entry = await api.request("POST", "/api/catalog/register", {"content": LINEAR})
    path = f"/api/keychain/{entry['catalog_id']}/token"
    status, answer = await api.request(
        "POST", path, {"token_data": {"access": secret}, "credential_type": "token", "scope_type": "global"}
    )
    assert status == 200, answer
    for where in ("/api/credentials", "/api/credentials/pg"):
        _, answer = await api.request("GET", where)
        assert secret not in json.dumps(answer)
    _, answer = await api.request("GET", "/api/credentials/pg?include_data=true")
    assert answer["data"] == {"password": secret}
    _, answer = await api.request("GET", path + "?scope_type=global")
    assert answer["token_data"] == {"access": secret}
    connection = await asyncpg.connect(database_dsn)
    for table in ("credential", "keychain"):
        rows = await connection.fetch(f"SELECT t::text AS row FROM noetl.{table} AS t")
        assert rows
        assert secret not in str([row["row"] for row in rows])
    await connection.close()


async def test_variables_are_set_read_and_deleted(api: RunningApi) -> None:
    execution = await api.start(LINEAR)
    path = f"/api/vars/{execution}"
    status, answer = await api.request("POST", path, {"variables": {"a": 1, "b": [2]}})
    assert (status, answer["variables_set"]) == (200, 2)
    _, answer = await api.request("GET", path)
    assert {key: item["value"] for key, item in answer["variables"].items()} == {"a": 1, "b": [2]}
    assert (await api.request("DELETE", path + "/a"))[0] == 200
    assert (await api.request("GET", path + "/a"))[0] == 404


async def test_a_result_is_stored_resolved_and_deleted(api: RunningApi) -> None:
    execution = await api.start(LINEAR)
    data = {"rows": list(range(1000))}
    body: dict[str, Any] = {"name": "big", "data": data, "source_step": "start", "scope": "execution"}
    status, stored = await api.request("PUT", f"/api/result/{execution}", body)
    assert status == 200
    assert stored["ref"].startswith(f"noetl://execution/{execution}/result/big/")
    assert await api.request("GET", "/api/result/resolve", params={"ref": stored["ref"]}) == (200, data)
    assert await api.request("GET", f"/api/result/{execution}/start") == (200, data)
    _, about = await api.request("GET", f"/api/result/{execution}/big?resolve=false")
    assert (about["bytes"], about["preview"]) == (stored["bytes"], {"rows": "[1000 items]"})
    assert (await api.request("GET", "/api/result/resolve", params={"ref": stored["ref"] + "1"}))[0] == 404
    for wrong in ({"scope": "zzz"}, {"store": "zzz"}, {"scope": "step", "source_step": None}):
        assert (await api.request("PUT", f"/api/result/{execution}", {**body, **wrong}))[0] == 400
    assert (await api.request("PUT", f"/api/result/{execution}", {**body, "ttl": "soon"}))[0] == 422
    _, answer = await api.request("DELETE", f"/api/result/{execution}")
    assert answer["deleted"] == 1


async def test_health_and_metrics_answer(api: RunningApi) -> None:
    for path in ("/health", "/api/health"):
        assert await api.request("GET", path) == (200, {"status": "ok"})
    assert (await api.request("GET", "/readyz"))[1]["problems"] == []
    assert (await api.request("GET", "/livez"))[0] == 200
    async with api.session.get(api.url + "/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain")
        assert "noetl_http_request_seconds" in await response.text()


async def test_the_openapi_document_has_every_route_and_resolves(api: RunningApi) -> None:
    _, document = await api.request("GET", "/openapi.json")
    served = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert served == {(spec.method, spec.path) for table in TABLES for spec in table.specs}
    for ref in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)):
        assert ref in document["components"]["schemas"]
    operations = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(set(operations)) == len(operations)


async def test_the_documents_are_readable(api: RunningApi) -> None:
    async with api.session.get(api.url + "/docs") as response:
        text = await response.text()
    assert "/api/execute" in text
    assert "<script" not in text
    status, document = await api.request("GET", "/asyncapi.json")
    assert (status, document["asyncapi"]) == (200, "3.0.0")
    assert {"events", "commands"} <= set(document["channels"])
