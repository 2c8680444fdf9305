"""The nats tool on a real nats-server."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from nats.aio.client import Client

from services.worker.tools import ToolError
from tests.integration.worker.conftest import RESULT_MAX_BYTES, Call, FakeApi
from tests.support.nats import NatsServer


@pytest.fixture
def bucket() -> str:
    return f"b{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def nats(call: Call, api: FakeApi, nats_server: NatsServer) -> Call:
    api.credentials["nats"] = ("nats", {"nats_url": nats_server.url})

    async def run(kind: str, **config: Any) -> Any:
        return await call("nats", auth="nats", operation=kind, **config)

    return run


async def refused(nats: Call, code: str, operation: str, **config: Any) -> ToolError:
    with pytest.raises(ToolError) as failure:
        await nats(operation, **config)
    assert failure.value.code == code, failure.value
    return failure.value


@pytest.mark.parametrize("value", [{"a": [1]}, "text", 7, "", None, True])
async def test_a_value_comes_back(nats: Call, bucket: str, value: Any) -> None:
    stored = await nats("kv_put", bucket=bucket, key="a/b.c", value=value if value is not None else {"n": None})
    assert (stored["status"], stored["revision"], stored["operation"]) == ("success", 1, "kv_put")
    found = await nats("kv_get", bucket=bucket, key="a/b.c")
    assert found["status"] == "success"
    assert found["value"] == (value if value is not None else {"n": None})


async def test_keys_deletes_and_what_is_not_there(nats: Call, bucket: str) -> None:
    for key in ("a.1", "a.2", "b.1"):
        await nats("kv_put", bucket=bucket, key=key, value=key)
    assert (await nats("kv_keys", bucket=bucket))["keys"] == ["a.1", "a.2", "b.1"]
    assert (await nats("kv_keys", bucket=bucket, pattern="a.*"))["count"] == 2
    await nats("kv_delete", bucket=bucket, key="a.1")
    await nats("kv_purge", bucket=bucket, key="a.2")
    assert (await nats("kv_keys", bucket=bucket))["keys"] == ["b.1"]
    for key in ("a.1", "never"):
        assert (await nats("kv_get", bucket=bucket, key=key))["status"] == "not_found"
    await nats("kv_purge", bucket=bucket, key="b.1")
    assert (await nats("kv_keys", bucket=bucket))["keys"] == []


async def test_a_bucket_that_does_not_exist(nats: Call, bucket: str) -> None:
    assert bucket in (await refused(nats, "NOT_FOUND", "kv_get", bucket=bucket, key="a")).message
    await refused(nats, "NOT_FOUND", "kv_put", bucket=bucket, key="a", value=1, create=False)
    await refused(nats, "NOT_FOUND", "object_get", bucket=bucket, name="a")


async def test_objects(nats: Call, bucket: str) -> None:
    data = {"big": "x" * 200_000}
    stored = await nats("object_put", bucket=bucket, name="o", data=data)
    found = await nats("object_get", bucket=bucket, name="o")
    assert (found["data"], found["size"], found["digest"]) == (data, stored["size"], stored["digest"])
    assert (await nats("object_list", bucket=bucket))["objects"] == [{"name": "o", "size": stored["size"]}]
    assert (await nats("object_info", bucket=bucket, name="o"))["size"] == stored["size"]
    await nats("object_put", bucket=bucket, name="large", data="x" * (RESULT_MAX_BYTES + 1))
    await refused(nats, "RESULT_TOO_LARGE", "object_get", bucket=bucket, name="large")
    assert (await nats("object_delete", bucket=bucket, name="o"))["deleted"] is True
    for operation in ("object_get", "object_info", "object_delete"):
        assert (await nats(operation, bucket=bucket, name="o"))["status"] == "not_found"


async def test_streams(nats: Call, nats_server: NatsServer, bucket: str) -> None:
    client = Client()
    await client.connect(nats_server.url)
    await client.jetstream().add_stream(name=bucket, subjects=[f"{bucket}.>"])
    stored = await nats("js_publish", subject=f"{bucket}.a", data={"n": 1}, headers={"Nats-Msg-Id": "1", "X": "y"})
    assert (stored["stream"], stored["seq"], stored["duplicate"]) == (bucket, 1, False)
    again = await nats("js_publish", subject=f"{bucket}.a", data={"n": 1}, headers={"Nats-Msg-Id": "1"})
    assert again["duplicate"] is True
    message = await nats("js_get_msg", stream=bucket, seq="1")
    assert (message["data"], message["subject"], message["headers"]["X"]) == ({"n": 1}, f"{bucket}.a", "y")
    assert (await nats("js_get_msg", stream=bucket, subject=f"{bucket}.a"))["seq"] == 1
    assert (await nats("js_get_msg", stream=bucket, last=True))["seq"] == 1
    assert (await nats("js_get_msg", stream=bucket, seq=99))["status"] == "not_found"
    info = await nats("js_stream_info", stream=bucket)
    assert (info["messages"], info["subjects"], info["last_seq"]) == (1, [f"{bucket}.>"], 1)
    assert (info["state"]["messages"], info["config"]["name"]) == (1, bucket)
    await refused(nats, "NOT_FOUND", "js_stream_info", stream="never")
    await refused(nats, "NOT_FOUND", "js_get_msg", stream="never", seq=1)
    await client.jetstream().delete_stream(bucket)
    await client.close()


async def test_publish_reaches_who_listens(nats: Call, nats_server: NatsServer, bucket: str) -> None:
    client = Client()
    await client.connect(nats_server.url)
    listening = await client.subscribe(f"{bucket}.>")
    await client.flush()
    await nats("publish", subject=f"{bucket}.a", data="hello")
    assert (await listening.next_msg(timeout=10)).data == b"hello"
    await client.close()


@pytest.mark.parametrize(
    ("operation", "config"),
    [
        ("", {}),
        ("kv_burn", {}),
        ("kv_get", {"bucket": "b"}),
        ("kv_put", {"bucket": "b", "key": "k"}),
        ("js_get_msg", {"stream": "s"}),
        ("js_get_msg", {"stream": "s", "seq": "x"}),
        ("publish", {"subject": "s", "data": "x", "headers": 7}),
    ],
)
async def test_bad_config(nats: Call, operation: str, config: dict[str, Any]) -> None:
    await refused(nats, "BAD_CONFIG", operation, **config)


async def test_names_that_nats_does_not_take(nats: Call, bucket: str) -> None:
    await nats("kv_put", bucket=bucket, key="a", value=1)
    await refused(nats, "InvalidKeyError", "kv_put", bucket=bucket, key="a b", value=1)
    await refused(nats, "InvalidBucketNameError", "kv_put", bucket="a b", key="a", value=1)


async def test_servers_that_cannot_be_reached(call: Call, unused_tcp_port: int) -> None:
    with pytest.raises(ToolError) as failure:
        await call("nats", operation="kv_get", bucket="b", key="k")
    assert failure.value.code == "BAD_CONFIG"
    url = f"nats://u:a-long-password@127.0.0.1:{unused_tcp_port}"
    with pytest.raises(ToolError) as failure:
        await call("nats", operation="kv_get", bucket="b", key="k", url=url)
    assert (failure.value.code, failure.value.retryable) == ("CONNECTION", True)
    assert "a-long-password" not in failure.value.message


async def test_a_server_that_went_away_and_came_back(call: Call, own_nats_server: NatsServer, bucket: str) -> None:
    config = {"url": own_nats_server.url, "bucket": bucket, "key": "k"}
    await call("nats", operation="kv_put", value=1, **config)
    await own_nats_server.stop()
    with pytest.raises(ToolError) as failure:
        await call("nats", operation="kv_get", **config)
    assert failure.value.retryable is True
    await own_nats_server.start()
    assert (await call("nats", operation="kv_get", **config))["value"] == 1
