"""Results and temporary data by reference: stored, listed, counted, deleted, and those of the original's worker."""

from __future__ import annotations

import gzip
import json
import uuid

import nats
import pytest

from tests.e2e.playbooks import LINEAR
from tests.support.api import RunningApi
from tests.support.nats import NatsServer, result_bucket


@pytest.mark.parametrize("base", ["/api/result", "/api/temp"])
async def test_data_is_stored_resolved_listed_and_deleted(api: RunningApi, base: str) -> None:
    execution = await api.start(LINEAR)
    body = {"name": "rows", "data": {"rows": [1, 2, 3]}, "correlation": {"page": 1}}
    status, stored = await api.request("PUT", f"{base}/{execution}", body)
    assert (status, stored["bytes"], stored["store"], stored["scope"]) == (200, 16, "db", "execution")
    assert (stored["expires_at"] is None) == (base == "/api/result")
    assert await api.request("GET", f"{base}/resolve?ref={stored['ref']}") == (200, {"rows": [1, 2, 3]})
    assert await api.request("GET", f"{base}/{execution}/rows") == (200, {"rows": [1, 2, 3]})
    _, listed = await api.request("GET", f"{base}/{execution}/list")
    assert (listed["execution_id"], listed["count"]) == (str(execution), 1)
    assert listed["refs"][0]["ref"] == stored["ref"]
    assert listed["refs"][0]["correlation"] == {"page": 1}
    _, stats = await api.request("GET", f"{base}/stats")
    assert stats["scope_stats"]["total_refs"] == 1
    assert await api.request("DELETE", f"{base}/{execution}") == (
        200,
        {"execution_id": str(execution), "deleted": 1, "scope": "execution"},
    )
    _, stats = await api.request("GET", f"{base}/stats")
    assert (stats["execution_deleted"], stats["scope_stats"]["total_refs"]) == (1, 0)
    status, _ = await api.request("GET", f"{base}/resolve?ref={stored['ref']}")
    assert status == 404


async def test_data_of_a_step_is_deleted_by_its_step(api: RunningApi) -> None:
    execution = await api.start(LINEAR)
    for step in ("a", "b"):
        body = {"name": "x", "data": step, "scope": "step", "source_step": step}
        assert (await api.request("PUT", f"/api/temp/{execution}", body))[0] == 200
    _, answer = await api.request("DELETE", f"/api/temp/{execution}/step/a")
    assert answer == {"execution_id": str(execution), "deleted": 1, "scope": "step"}
    assert await api.request("GET", f"/api/temp/{execution}/x") == (200, "b")
    assert (await api.request("GET", f"/api/temp/{execution}/list"))[1]["count"] == 1


@pytest.mark.parametrize(
    ("scope", "detail"),
    [
        ("permanent", "Cannot bulk-clean 'permanent' scope. Delete individual refs instead."),
        ("step", "Step cleanup requires step_name parameter. Use DELETE /{execution_id}/step/{step_name}"),
        ("zz", "Invalid scope: zz"),
    ],
)
async def test_a_scope_that_cannot_be_cleaned_is_refused(api: RunningApi, scope: str, detail: str) -> None:
    assert await api.request("DELETE", f"/api/result/1?scope={scope}") == (400, {"detail": detail})


async def test_expired_data_is_gone(api: RunningApi) -> None:
    execution = await api.start(LINEAR)
    body = {"name": "x", "data": 1, "ttl_seconds": 1}
    _, stored = await api.request("PUT", f"/api/temp/{execution}", body)
    status, removed = 200, None
    while status == 200:  # the limit of the test bounds it
        status, removed = await api.request("GET", f"/api/temp/resolve?ref={stored['ref']}")
    assert (status, "TempRef not found" in removed["detail"]) == (404, True)
    await api.client.reconcile(10)
    assert (await api.request("GET", "/api/temp/stats"))[1]["ttl_deleted"] == 1


@pytest.mark.parametrize("packed", [False, True])
async def test_a_result_in_the_bucket_of_the_originals_worker_is_read(
    api: RunningApi, nats_server: NatsServer, packed: bool
) -> None:
    name = f"big-{uuid.uuid4().hex[:8]}"
    data = json.dumps({"rows": [1, 2]}).encode()
    client = await nats.connect(nats_server.url)
    bucket = await result_bucket(client)
    await bucket.put(f"execution_700_result_{name}_8ba28739", gzip.compress(data) if packed else data)
    await client.close()
    while not (await api.request("GET", "/readyz"))[1].get("nats", True):
        pass  # the API connects by itself; the limit of the test bounds it
    reference = f"noetl://execution/700/result/{name}/8ba28739"
    assert await api.request("GET", f"/api/result/resolve?ref={reference}") == (200, {"rows": [1, 2]})
    _, found = await api.request("GET", f"/api/results/lookup?result_ref={reference}")
    assert found["logical_uri"] == reference
    status, _ = await api.request("GET", f"/api/result/resolve?ref={reference}0")
    assert status == 404


async def test_variables_are_read_under_their_other_name(api: RunningApi) -> None:
    await api.request("POST", "/api/vars/5", {"variables": {"a": 1}})
    assert (await api.request("GET", "/api/variables/5"))[1]["variables"]["a"]["value"] == 1
    assert (await api.request("GET", "/api/variables/5/a"))[1]["value"] == 1
