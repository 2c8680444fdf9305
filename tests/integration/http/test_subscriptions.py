"""Subscriptions, ingress of the gateway, callbacks of container jobs, and components that announce themselves."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.playbooks import LINEAR
from tests.support.api import TOKEN, RunningApi

BEARER = {"Authorization": f"Bearer {TOKEN}"}
SUBSCRIPTION = """apiVersion: noetl.io/v2
kind: Subscription
metadata: {name: orders, path: sub/orders}
spec:
  ingress:
    gateway_path: /ingress/orders
    verify: {type: hmac_sha256, header: X-Signature, secret: orders_hmac}
  dispatch: {playbook: e2e/linear}
"""


async def registered(api: RunningApi) -> str:
    status, entry = await api.request("POST", "/api/catalog/register", {"content": SUBSCRIPTION})
    assert status == 200, entry
    status, found = await api.request("POST", "/api/subscriptions", {"path": "sub/orders"})
    assert (status, found["state"], found["last_event_type"]) == (200, "REGISTERED", "subscription.registered")
    return str(found["subscription_id"])


async def test_a_subscription_is_registered_once_until_it_is_deactivated(api: RunningApi) -> None:
    first = await registered(api)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(api.request("POST", "/api/subscriptions/register", {"path": "sub/orders"}))
            for _ in range(4)
        ]
    assert {task.result()[1]["subscription_id"] for task in tasks} == {first}
    await api.request("POST", f"/api/subscriptions/{first}/deactivate")
    assert await registered(api) != first
    _, listed = await api.request("GET", "/api/subscriptions")
    assert [item["state"] for item in listed["subscriptions"]] == ["REGISTERED", "DEACTIVATED"]


async def test_a_subscription_takes_only_the_actions_of_its_state(api: RunningApi) -> None:
    found = await registered(api)
    path = f"/api/subscriptions/{found}"
    steps = [
        ("pause", 422, "REGISTERED"),
        ("activate", 200, "ACTIVE"),
        ("pause", 200, "PAUSED"),
        ("resume", 200, "ACTIVE"),
        ("drain", 200, "DRAINING"),
        ("resume", 422, "DRAINING"),
        ("deactivate", 200, "DEACTIVATED"),
    ]
    for action, expected, state in steps:
        status, answer = await api.request("POST", f"{path}/{action}")
        assert status == expected, (action, answer)
        assert (await api.request("GET", path))[1]["state"] == state
    status, answer = await api.request("POST", f"{path}/explode")
    assert (status, answer["error"]) == (422, answer["detail"])


async def test_errors_carry_the_words_of_both_servers(api: RunningApi) -> None:
    assert await api.request("GET", "/api/subscriptions/5") == (
        404,
        {
            "detail": "Subscription 5 not registered",
            "error": "Subscription 5 not registered",
            "status": 404,
        },
    )
    await api.request("POST", "/api/catalog/register", {"content": LINEAR})
    status, answer = await api.request("POST", "/api/subscriptions", {"path": "e2e/linear"})
    assert (status, answer["status"]) == (422, 422)
    status, answer = await api.request("POST", "/api/subscriptions", {})
    assert (status, answer["error"]) == (422, "body.path: Field required")


async def test_a_gateway_learns_how_to_take_a_listeners_requests_in(api: RunningApi) -> None:
    subscription = await registered(api)
    status, answer = await api.request("GET", "/api/internal/ingress/orders", headers=BEARER)
    assert (status, "orders_hmac" in answer["detail"]) == (422, True)
    credential = {"name": "orders_hmac", "type": "generic", "data": {"secret": "s3cret"}}
    await api.request("POST", "/api/credentials", credential)
    status, answer = await api.request("GET", "/api/internal/ingress/orders", headers=BEARER)
    assert (status, answer) == (
        200,
        {
            "listener": "orders",
            "catalog_path": "sub/orders",
            "source": "webhook",
            "subscription_id": subscription,
            "verify": {"type": "hmac_sha256", "header": "X-Signature", "secret": "s3cret"},
            "dispatch": {"playbook": "e2e/linear", "payload_from": "message.json"},
        },
    )
    assert (await api.request("GET", "/api/internal/ingress/nobody", headers=BEARER))[0] == 404


@pytest.mark.parametrize(("state", "ended"), [("succeeded", "COMPLETED"), ("failed_oom", "FAILED")])
async def test_the_end_of_a_container_job_is_the_end_of_its_step(api: RunningApi, state: str, ended: str) -> None:
    execution = await api.start(LINEAR)
    path = f"/api/internal/container-callback/{execution}/start"
    body = {"state": state, "job_name": "job-1", "exit_code": 0, "stdout_uri": "s3://logs/1"}
    answers = [await api.request("POST", path, body, headers=BEARER) for _ in range(2)]
    assert [(status, answer["status"]) for status, answer in answers] == [(202, "accepted_in_flight")] * 2
    done = [item for item in await api.log(execution) if item["event_type"] == "call.done"]
    assert [(item["status"], item["result"]["status"]) for item in done] == [(ended, ended)]
    stale = await api.request("POST", "/api/internal/container-callback/5/start", body, headers=BEARER)
    assert stale == (202, {"status": "accepted_stale"})


async def test_components_of_every_kind_announce_themselves(api: RunningApi) -> None:
    body = {"name": "gateway-1", "component_type": "broker", "runtime": "rust"}
    status, answer = await api.request("POST", "/api/runtime/register", body)
    assert (status, answer["kind"], answer["runtime"]) == (200, "broker", "rust")
    beat = {"name": "gateway-1", "kind": "broker"}
    assert (await api.request("POST", "/api/runtime/heartbeat", beat))[0] == 200
    status, answer = await api.request("POST", "/api/runtime/heartbeat", {"name": "gateway-1"})
    assert (status, answer["detail"]) == (404, {"status": "unknown", "name": "gateway-1"})
    assert (await api.request("GET", "/api/worker/pools"))[1]["count"] == 0


@pytest.mark.parametrize(
    ("execution", "count", "index"),
    [(1, 2, 1), (1, 4, 1), (1, 16, 5), (1, 64, 21), (1, 1024, 405), (325, 8, 4), (320816801799737344, 16, 14)],
)
async def test_shards_are_those_of_the_gateway(api: RunningApi, execution: int, count: int, index: int) -> None:
    _, answer = await api.request("GET", f"/api/runtime/shard-info?execution_id={execution}&shard_count={count}")
    assert (answer["execution_id"], answer["shard_index"], answer["seed"]) == (execution, index, 0)


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("execution_id=1&shard_count=0", "shard_count must be >= 1"),
        ("execution_id=1&shard_count=2000", "shard_count 2000 exceeds practical maximum 1024"),
        ("execution_id=abc&shard_count=2", 'execution_id "abc" is not a valid i64'),
    ],
)
async def test_a_wrong_shard_is_refused_in_the_words_of_the_rust_server(
    api: RunningApi, query: str, error: str
) -> None:
    status, answer = await api.request("GET", f"/api/runtime/shard-info?{query}")
    assert (status, answer["error"]) == (400, error)


async def test_the_contract_of_the_server_is_shown(api: RunningApi) -> None:
    status, answer = await api.request("GET", "/api/runtime/contract")
    assert (status, answer["service"], answer["openapi"]) == (200, "playhead", "/openapi.json")
