"""MCP: the JSON-RPC bridge as clients speak it, lifecycle agents, tool discovery from a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from services.api.discovery import is_public
from tests.e2e.playbooks import LINEAR, SLEEPING
from tests.support.api import RunningApi, running_api
from tests.support.web import serving

RPC = "/api/mcp/playbook/e2e/linear/jsonrpc"
SERVER = """
apiVersion: noetl.io/v2
kind: Mcp
metadata: {{name: m1, path: mcp/m1}}
spec:
  lifecycle: {{deploy: e2e/linear, broken: e2e/none}}
  tools: [{{name: old}}]
  discovery: {discovery}
"""


class ToolServer:
    """A server that answers a tool list, or what else a test wants."""

    def __init__(self) -> None:
        self.body = b'{"tools": [{"name": "a"}, {"name": "b"}]}'
        self.status = 200
        self.headers: dict[str, str] = {}
        self.url = ""

    async def answer(self, _: web.Request) -> web.Response:
        return web.Response(body=self.body, status=self.status, headers=self.headers)


@pytest.fixture
async def tools() -> AsyncIterator[ToolServer]:
    server = ToolServer()
    async with serving(web.get("/tools", server.answer)) as url:
        server.url = f"{url}/tools"
        yield server


@pytest.fixture(scope="module")
async def trusting(shared_api: RunningApi) -> AsyncIterator[RunningApi]:
    """An API that reads tool lists of 127.0.0.1 and waits briefly for calls."""
    async with running_api(
        shared_api.dsn, noetl_mcp_discovery_hosts="127.0.0.1", mcp_playbook_call_timeout_seconds=0.2
    ) as running:
        await running.request("POST", "/api/catalog/register", {"content": LINEAR})
        yield running


async def rpc(api: RunningApi, method: str | None, params: Any = None, path: str = RPC) -> dict[str, Any]:
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    status, answer = await api.request("POST", path, body)
    assert status == 200
    assert (answer["jsonrpc"], answer["id"]) == ("2.0", 7)
    return dict(answer)


async def register(api: RunningApi, discovery: str) -> int:
    content = SERVER.format(discovery=discovery)
    _, entry = await api.request("POST", "/api/catalog/register", {"content": content})
    return int(entry["version"])


async def test_the_handshake_and_the_tool_of_a_playbook(trusting: RunningApi) -> None:
    hello = (await rpc(trusting, "initialize", {"protocolVersion": "2025-03-26"}))["result"]
    assert hello["protocolVersion"] == "2025-03-26"
    assert hello["serverInfo"] == {"name": "noetl-playbook-mcp", "version": "1.0"}
    assert (await rpc(trusting, "initialize"))["result"]["protocolVersion"] == "2024-11-05"
    assert (await rpc(trusting, "ping"))["result"] == {}
    (tool,) = (await rpc(trusting, "tools/list"))["result"]["tools"]
    assert tool["name"] == "linear"
    assert tool["inputSchema"]["properties"]["name"] == {"type": "string", "default": "World"}


async def test_a_call_that_takes_too_long_names_its_execution(trusting: RunningApi) -> None:
    answer = await rpc(trusting, "tools/call", {"name": "linear", "arguments": {"name": "Ada"}})
    assert answer["error"]["code"] == -32011
    execution = answer["error"]["data"]["execution_id"]
    assert execution in answer["error"]["message"]
    first = (await trusting.log(int(execution)))[0]
    assert first["context"]["result"]["workload"]["name"] == "Ada"


async def test_what_is_wrong_is_a_json_rpc_error(trusting: RunningApi) -> None:
    hidden = SLEEPING.replace("{name: sleeping,", "{name: sleeping, exposes_as_mcp: false,")
    await trusting.request("POST", "/api/catalog/register", {"content": hidden})
    await register(trusting, "{}")
    for method, params, path, code in (
        ("zzz", None, RPC, -32601),
        (None, None, RPC, -32601),
        ("tools/call", [1], RPC, -32602),
        ("tools/call", {"name": "other"}, RPC, -32602),
        ("tools/call", {"name": "linear", "arguments": [1]}, RPC, -32602),
        ("tools/list", None, "/api/mcp/playbook/no/where/jsonrpc", -32600),
        ("tools/list", None, "/api/mcp/playbook/mcp/m1/jsonrpc", -32600),
        ("tools/call", None, "/api/mcp/playbook/e2e/sleeping/jsonrpc", -32020),
    ):
        assert (await rpc(trusting, method, params, path))["error"]["code"] == code
    _, answer = await trusting.request("POST", RPC, {"method": "ping"})
    assert answer == {"jsonrpc": "2.0", "id": None, "result": {}}
    status, answer = await trusting.request("POST", RPC, [1])
    assert (status, answer["detail"][0]["loc"]) == (422, ["body"])


async def test_a_lifecycle_verb_starts_its_agent_with_the_resource(trusting: RunningApi) -> None:
    version = await register(trusting, "{}")
    path = "/api/mcp/mcp/m1/lifecycle"
    status, answer = await trusting.request("POST", f"{path}/Deploy", {"workload_overrides": {"ticket": 5}})
    assert status == 200
    assert {key: answer[key] for key in ("status", "verb", "mcp_path", "mcp_version", "agent_path")} == {
        "status": "started",
        "verb": "deploy",
        "mcp_path": "mcp/m1",
        "mcp_version": version,
        "agent_path": "e2e/linear",
    }
    workload = (await trusting.log(int(answer["execution_id"])))[0]["context"]["result"]["workload"]
    assert (workload["verb"], workload["ticket"]) == ("deploy", 5)
    assert workload["mcp_resource"]["spec"]["tools"] == [{"name": "old"}]
    for where, body, expected, said in (
        (f"{path}/nope", None, 422, "known verbs: ['broken', 'deploy']"),
        (f"{path}/broken", None, 404, "Executable catalog entry not found: e2e/none"),
        (f"{path}/deploy", {"workload_overrides": {"verb": "x"}}, 422, "reserved fields: ['verb']"),
        (f"{path}/deploy", {"workload_overrides": []}, 422, "workload_overrides"),
        ("/api/mcp/e2e/linear/lifecycle/deploy", None, 400, "resource 'e2e/linear' is kind='playbook', expected 'mcp'"),
        ("/api/mcp/no/where/lifecycle/deploy", None, 404, "resource not found: no/where@latest"),
    ):
        status, answer = await trusting.request("POST", where, body)
        assert status == expected, where
        assert said in str(answer["detail"])


async def test_a_changed_tool_list_is_a_new_version(trusting: RunningApi, tools: ToolServer) -> None:
    version = await register(trusting, f'{{tools_list_url: "{tools.url}"}}')
    path = "/api/mcp/mcp/m1/discover"
    status, answer = await trusting.request("POST", path)
    assert (status, answer) == (
        200,
        {
            "status": "updated",
            "mcp_path": "mcp/m1",
            "mcp_version_old": version,
            "mcp_version_new": version + 1,
            "strategy": "direct",
            "execution_id": None,
            "tool_count_before": 1,
            "tool_count_after": 2,
        },
    )
    _, same = await trusting.request("POST", path, {})
    assert (same["status"], same["mcp_version_new"], same["tool_count_before"]) == ("started", None, 2)
    _, forced = await trusting.request("POST", path, {"force": True})
    assert forced["mcp_version_new"] == version + 2
    _, entry = await trusting.request("POST", "/api/catalog/resource", {"path": "mcp/m1"})
    assert entry["payload"]["spec"]["tools"] == [{"name": "a"}, {"name": "b"}]


async def test_an_agent_refreshes_the_tools(trusting: RunningApi) -> None:
    await register(trusting, "{refresh_via: e2e/linear}")
    status, answer = await trusting.request("POST", "/api/mcp/mcp/m1/discover", {"force": True})
    assert (status, answer["status"], answer["strategy"]) == (200, "started", "agent")
    workload = (await trusting.log(int(answer["execution_id"])))[0]["context"]["result"]["workload"]
    assert (workload["verb"], workload["force"]) == ("discover", True)


async def test_a_server_that_answers_nonsense_is_named(trusting: RunningApi, tools: ToolServer) -> None:
    await register(trusting, f'{{tools_list_url: "{tools.url}"}}')
    for body, status_sent, headers, said in (
        (b"<html>", 200, {}, "non-JSON body"),
        (b"[]", 200, {}, "must return {'tools': [...]} JSON"),
        (b" " * 30_000, 200, {}, "exceeded 20480 bytes"),
        (b"", 302, {"Location": "http://127.0.0.1/"}, "answered 302"),
    ):
        tools.body, tools.status, tools.headers = body, status_sent, headers
        status, answer = await trusting.request("POST", "/api/mcp/mcp/m1/discover")
        assert status == 502
        assert said in answer["detail"]


async def test_private_addresses_are_not_asked(shared_api: RunningApi, tools: ToolServer) -> None:
    for url, expected, said in (
        (tools.url, 400, "blocked address range"),
        (tools.url.replace("127.0.0.1", "localhost"), 400, "blocked address range"),
        ("http://169.254.169.254/x", 400, "blocked address range"),
        ("http://[::1]/x", 400, "blocked address range"),
        ("file:///etc/passwd", 400, "must be http or https"),
        ("http://", 400, "missing host"),
    ):
        await register(shared_api, f'{{tools_list_url: "{url}"}}')
        status, answer = await shared_api.request("POST", "/api/mcp/mcp/m1/discover")
        assert (status, said in answer["detail"]) == (expected, True), url
    await register(shared_api, "{}")
    status, answer = await shared_api.request("POST", "/api/mcp/mcp/m1/discover")
    assert (status, "has no discovery configured" in answer["detail"]) == (422, True)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("::ffff:127.0.0.1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("2606:4700:4700::1111", True),
        ("x", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public
