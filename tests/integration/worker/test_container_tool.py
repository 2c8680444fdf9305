"""The container and script tools against a loopback API server that behaves as Kubernetes does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
import yaml
from aiohttp import web

from services.worker.tools import ToolError
from tests.integration.worker.conftest import EXECUTION, Call

TOKEN = "the-token-of-a-user"
JOBS = "/apis/batch/v1/namespaces/work/jobs"


@dataclass
class Cluster:
    """Jobs that end after `looks` looks, with an exit code and a log."""

    url: str = ""
    looks: int = 2
    exit_code: int | None = 0
    reason: str | None = None
    refuse: tuple[int, str] | None = None
    flaky: int = 0
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"kind": "Status", "message": "Unauthorized"}, status=401)
        if request.method == "POST" and request.path == JOBS:
            return await self.create(request)
        name = request.path.rsplit("/", 1)[1]
        if request.method == "DELETE":
            self.deleted.append(name)
            return web.json_response({"kind": "Status"})
        if request.path.startswith(JOBS):
            return self.look(name)
        if request.path.endswith("/log"):
            return web.Response(text="hello from the pod\n")
        assert request.path == "/api/v1/namespaces/work/pods"
        job = request.query["labelSelector"].removeprefix("job-name=")
        state = {"terminated": {"exitCode": self.exit_code, "reason": self.reason}}
        pod = {"metadata": {"name": f"{job}-x"}, "status": {"containerStatuses": [{"state": state}]}}
        return web.json_response({"items": [pod]})

    async def create(self, request: web.Request) -> web.Response:
        if self.refuse is not None:
            status, message = self.refuse
            return web.json_response({"kind": "Status", "message": message}, status=status)
        job = orjson.loads(await request.read())
        self.jobs[job["metadata"]["name"]] = job
        return web.json_response({**job, "metadata": {**job["metadata"], "uid": "uid-1"}}, status=201)

    def look(self, name: str) -> web.Response:
        if self.flaky:
            self.flaky -= 1
            return web.json_response({}, status=503)
        self.looks -= 1
        if self.looks > 0:
            return web.json_response({"metadata": {"name": name}, "status": {"active": 1}})
        good = self.exit_code == 0
        condition = {"type": "Complete" if good else "Failed", "status": "True", "reason": "BackoffLimitExceeded"}
        return web.json_response({"status": {"conditions": [condition], "succeeded" if good else "failed": 1}})


@pytest_asyncio.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = "http://{}:{}".format(*runner.addresses[0][:2])
    yield made
    await runner.cleanup()


@pytest.fixture
def settings(cluster: Cluster, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "token").write_text(TOKEN + "\n")
    document = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "work"}}],
        "clusters": [{"name": "c", "cluster": {"server": cluster.url}}],
        "users": [{"name": "u", "user": {"tokenFile": "token"}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(document))
    return {"kubeconfig": str(tmp_path / "kubeconfig")}


async def refused(call: Call, code: str, kind: str = "container", **config: Any) -> ToolError:
    with pytest.raises(ToolError) as failure:
        await call(kind, **config)
    assert failure.value.code == code, failure.value
    return failure.value


async def test_a_job_that_succeeds(call: Call, cluster: Cluster) -> None:
    output = await call(
        "container",
        image="busybox",
        command=["echo", "hi"],
        args=["-n"],
        env={"A": 1, "B": None},
        resources={"limits": {"memory": "64Mi"}},
        backoff_limit="2",
        service_account="runner",
        given={"x": 1},
    )
    (name,) = cluster.jobs
    spec = cluster.jobs[name]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert (output["status"], output["job_name"], output["job_uid"], output["namespace"]) == (
        "success",
        name,
        "uid-1",
        "work",
    )
    assert (output["exit_code"], output["output"], output["succeeded"]) == (0, "hello from the pod\n", 1)
    assert output["pod_name"] == f"{name}-x"
    assert (container["image"], container["command"], container["args"]) == ("busybox", ["echo", "hi"], ["-n"])
    env = {item["name"]: item["value"] for item in container["env"]}
    assert env == {"A": "1", "B": "", "NOETL_ARGS": '{"x":1}', "NOETL_EXECUTION_ID": str(EXECUTION)}
    assert container["resources"] == {"limits": {"memory": "64Mi"}}
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (2, 20, 600)
    assert spec["template"]["spec"]["serviceAccountName"] == "runner"
    assert cluster.deleted == []


async def test_a_job_that_fails_says_why(call: Call, cluster: Cluster) -> None:
    cluster.exit_code, cluster.reason = 137, "OOMKilled"
    error = await refused(call, "JOB_FAILED", image="busybox", command="exit 1")
    assert "exit code 137: OOMKilled: hello from the pod" in error.message
    assert error.data is not None
    assert (error.data["failed"], error.data["output"]) == (1, "hello from the pod\n")


@pytest.mark.parametrize(("uri", "command"), [("s.py", ["python", "-c"]), ("s.sh", ["/bin/sh", "-c"])])
async def test_a_script(call: Call, cluster: Cluster, tmp_path: Path, uri: str, command: list[str]) -> None:
    (tmp_path / uri).write_text("the text")
    job = {"image": "python:3.12", "namespace": "work", "ttlSecondsAfterFinished": 5, "backoffLimit": 1}
    await call("script", script={"uri": uri, "source": {"type": "file"}}, job=job, args={"a": 1})
    ((_, made),) = cluster.jobs.items()
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert container["command"] == [*command, "the text"]
    assert {"name": "NOETL_ARGS", "value": '{"a":1}'} in container["env"]
    assert (made["spec"]["backoffLimit"], made["spec"]["ttlSecondsAfterFinished"]) == (1, 5)


async def test_an_api_server_that_is_busy_for_a_while(call: Call, cluster: Cluster) -> None:
    cluster.flaky = 2
    assert (await call("container", image="busybox"))["status"] == "success"


async def test_a_job_whose_tool_ends_early_is_deleted(call: Call, cluster: Cluster) -> None:
    cluster.looks = 1_000_000
    await refused(call, "TIMEOUT", image="busybox", seconds=0.3)
    assert cluster.deleted == list(cluster.jobs)


async def test_what_the_cluster_refuses(call: Call, cluster: Cluster) -> None:
    cluster.refuse = (403, "jobs.batch is forbidden")
    error = await refused(call, "KUBERNETES_403", image="busybox")
    assert "forbidden" in error.message
    assert error.retryable is False


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("container", {}),
        ("container", {"image": "x", "command": 7}),
        ("container", {"image": "x", "env": 7}),
        ("container", {"image": "x", "namespace": "../default"}),
        ("container", {"image": "x", "backoff_limit": 99}),
        ("container", {"image": "x", "job": 7}),
        ("container", {"image": "x", "script": "x" * 200_000}),
        ("script", {"job": {"image": "x"}}),
    ],
)
async def test_bad_config(call: Call, kind: str, config: dict[str, Any]) -> None:
    await refused(call, "BAD_CONFIG", kind, **config)


@pytest.mark.parametrize("text", ["", "[1]", "current-context: x", "{"])
async def test_a_kubeconfig_that_cannot_be_used(call: Call, settings: dict[str, Any], text: str) -> None:
    Path(settings["kubeconfig"]).write_text(text)
    await refused(call, "NOT_CONFIGURED", image="x")


class TestWithoutACluster:
    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return {"kubeconfig": "", "kubernetes_service_host": ""}

    async def test_the_error_says_what_to_do(self, call: Call) -> None:
        error = await refused(call, "NOT_CONFIGURED", image="x")
        assert "KUBECONFIG" in error.message
