"""`container` and `script`: a Kubernetes job, waited for, with its output."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.worker.jsontext import encoded as json_bytes
from services.worker.tools.base import ToolBox, ToolCall, ToolError
from services.worker.tools.kubernetes import Kubernetes, find_cluster
from services.worker.tools.limits import (
    KUBERNETES_ATTEMPTS_MAX,
    KUBERNETES_BACKOFF_MAX,
    KUBERNETES_LOG_TAIL_CHARS,
    KUBERNETES_SCRIPT_MAX_BYTES,
    KUBERNETES_TTL_SECONDS,
    KUBERNETES_WAIT_GROWTH,
    KUBERNETES_WAIT_MAX_SECONDS,
    KUBERNETES_WAIT_SECONDS,
)
from services.worker.tools.python import tool_input
from services.worker.tools.script_source import script_text

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_INTERPRETERS = {"py": ["python", "-c"], "sh": ["/bin/sh", "-c"], "bash": ["/bin/bash", "-c"], "js": ["node", "-e"]}


@dataclass(frozen=True, slots=True)
class _Ended:
    succeeded: bool
    job: Mapping[str, Any]
    why: str


def _job_keys(call: ToolCall) -> dict[str, Any]:
    """Return the tool's keys with those of its `job` beside them."""
    job = call.config.get("job") or {}
    if not isinstance(job, Mapping):
        raise ToolError(call.kind, "BAD_CONFIG", "`job` must be an object: image, namespace, env, resources, ...")
    return {**call.config, **job}


def _number(call: ToolCall, given: Any, name: str, default: int, highest: int) -> int:
    if given in (None, ""):
        return default
    text = str(given)
    if not (text.isascii() and text.isdigit() and int(text[:9]) <= highest):
        raise ToolError(call.kind, "BAD_CONFIG", f"`{name}` must be a number from 0 to {highest}")
    return int(text)


def _words(call: ToolCall, given: Any, name: str) -> list[str]:
    if isinstance(given, str):
        return ["/bin/sh", "-c", given] if name == "command" else [given]
    if not isinstance(given, list):
        raise ToolError(call.kind, "BAD_CONFIG", f"`{name}` must be a list of words, or a text")
    return [str(word) for word in given]


def _env(call: ToolCall, given: Any) -> list[dict[str, Any]]:
    """Return environment variables as the cluster wants them, the tool's input among them as NOETL_ARGS (JSON)."""
    if isinstance(given, list) and all(isinstance(item, Mapping) and item.get("name") for item in given):
        found = [dict(item) for item in given]
    elif isinstance(given, Mapping) or not given:
        found = [{"name": str(k), "value": "" if v is None else str(v)} for k, v in (given or {}).items()]
    else:
        raise ToolError(call.kind, "BAD_CONFIG", "`env` must be an object, or a list of {name, value}")
    config = {**call.config, "args": call.config.get("args") if isinstance(call.config.get("args"), Mapping) else {}}
    values = tool_input(
        ToolCall(kind=call.kind, step=call.step, config=config, input=call.input, context={}, timeout_seconds=1.0)
    )
    args = json_bytes(values).decode()
    return [*found, {"name": "NOETL_ARGS", "value": args}, {"name": "NOETL_EXECUTION_ID", "value": str(call.execution)}]


def _interpreter(call: ToolCall) -> list[str]:
    script = call.config.get("script")
    uri = str(script.get("uri") or "") if isinstance(script, Mapping) else ""
    return _INTERPRETERS.get(uri.rsplit(".", 1)[-1].lower(), _INTERPRETERS["py" if call.kind == "script" else "sh"])


async def _container(call: ToolCall, box: ToolBox, keys: Mapping[str, Any]) -> dict[str, Any]:
    image = keys.get("image")
    if not isinstance(image, str) or not image:
        raise ToolError(
            call.kind,
            "BAD_CONFIG",
            f"a {call.kind} tool needs `image`" + (" in `job`" if call.kind == "script" else ""),
        )
    made: dict[str, Any] = {"name": "main", "image": image, "env": _env(call, keys.get("env"))}
    text = await script_text(call, box)
    if text is not None:
        if len(text.encode()) > KUBERNETES_SCRIPT_MAX_BYTES:
            raise ToolError(
                call.kind,
                "BAD_CONFIG",
                f"the script is over {KUBERNETES_SCRIPT_MAX_BYTES} bytes; put it into the image",
            )
        made["command"] = [*_interpreter(call), text]
    elif call.kind == "script":
        raise ToolError(call.kind, "BAD_CONFIG", "a script tool needs `script: {uri, source}`")
    elif keys.get("command"):
        made["command"] = _words(call, keys["command"], "command")
    if isinstance(keys.get("args"), (list, str)) and keys["args"]:
        made["args"] = _words(call, keys["args"], "args")
    for key, name in (
        ("resources", "resources"),
        ("image_pull_policy", "imagePullPolicy"),
        ("imagePullPolicy", "imagePullPolicy"),
    ):
        if keys.get(key):
            made[name] = keys[key]
    return made


async def _manifest(call: ToolCall, box: ToolBox) -> dict[str, Any]:
    keys = _job_keys(call)
    step = re.sub(r"[^a-z0-9]+", "-", call.step.lower()).strip("-")[:30] or "step"
    labels = {"app.kubernetes.io/managed-by": "playhead", "noetl/execution-id": str(call.execution), "noetl/step": step}
    pod: dict[str, Any] = {"restartPolicy": "Never", "containers": [await _container(call, box, keys)]}
    account = keys.get("service_account") or keys.get("serviceAccountName")
    if account:
        pod["serviceAccountName"] = str(account)
    backoff = keys.get("backoff_limit", keys.get("backoffLimit"))
    ttl = keys.get("ttl_seconds", keys.get("ttlSecondsAfterFinished"))
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"noetl-{step}-{uuid.uuid4().hex[:10]}", "labels": labels},
        "spec": {
            "backoffLimit": _number(call, backoff, "backoff_limit", 0, KUBERNETES_BACKOFF_MAX),
            "ttlSecondsAfterFinished": _number(call, ttl, "ttl_seconds", KUBERNETES_TTL_SECONDS, 7 * 86_400),
            "activeDeadlineSeconds": max(int(call.timeout_seconds), 1),
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _end_of(job: Mapping[str, Any]) -> _Ended | None:
    status = job.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition.get("status") == "True" and condition.get("type") in ("Complete", "Failed"):
            why = f"{condition.get('reason') or ''} {condition.get('message') or ''}".strip()
            return _Ended(condition["type"] == "Complete", job, why)
    return None


async def _ended(kubernetes: Kubernetes, name: str) -> _Ended:
    """Look at a job until it has ended; the time limit of the tool is around this."""
    wait, failures = KUBERNETES_WAIT_SECONDS, 0
    end: _Ended | None = None
    while end is None:
        try:
            end = _end_of(await kubernetes.job(name))
            failures = 0
        except ToolError as error:
            failures += 1
            if not error.retryable or failures >= KUBERNETES_ATTEMPTS_MAX:
                raise
        if end is None:
            await asyncio.sleep(wait)
            wait = min(wait * KUBERNETES_WAIT_GROWTH, KUBERNETES_WAIT_MAX_SECONDS)
    return end


async def _output(kubernetes: Kubernetes, name: str) -> dict[str, Any]:
    """Return pod, exit code and output of a job's last pod; what the cluster no longer has is null or empty."""
    shown: dict[str, Any] = {"pod_name": None, "exit_code": None, "reason": None, "output": ""}
    with contextlib.suppress(ToolError):
        pods = await kubernetes.pods(name)
        if pods:
            shown["pod_name"] = pods[-1]["metadata"]["name"]
            states = (pods[-1].get("status") or {}).get("containerStatuses") or [{}]
            ended = (states[0].get("state") or {}).get("terminated") or {}
            shown |= {"exit_code": ended.get("exitCode"), "reason": ended.get("reason")}
            shown["output"] = await kubernetes.log(shown["pod_name"])
    return shown


async def run(call: ToolCall, box: ToolBox) -> dict[str, Any]:
    """Run a job and return `{status, job_name, job_uid, namespace, pod_name, exit_code, output, succeeded, failed, ...}`.

    A job whose tool ends early (time limit, cancel) is deleted.

    Raises:
        ToolError: there is no cluster, it refuses the job, or the job failed (`JOB_FAILED`; `data` has its output).
    """
    cluster = find_cluster(box.settings, call.kind)
    namespace = str(_job_keys(call).get("namespace") or cluster.namespace)
    if not _NAMESPACE.fullmatch(namespace):
        raise ToolError(call.kind, "BAD_CONFIG", "`namespace` must be a name of lower-case letters, digits and dashes")
    kubernetes = Kubernetes(box.session, cluster, namespace, call.kind)
    manifest = await _manifest(call, box)
    began = time.monotonic()
    created = await kubernetes.create_job(manifest)
    name = str(manifest["metadata"]["name"])
    try:
        async with call.idle():
            ended = await _ended(kubernetes, name)
    except BaseException:
        with contextlib.suppress(ToolError):
            await asyncio.shield(kubernetes.delete_job(name))
        raise
    output = await _output(kubernetes, name)
    status = ended.job.get("status") or {}
    shown = {
        "status": "success" if ended.succeeded else "error",
        "job_name": name,
        "job_uid": (created.get("metadata") or {}).get("uid"),
        "namespace": namespace,
        "labels": manifest["metadata"]["labels"],
        "execution_time": round(time.monotonic() - began, 3),
        "succeeded": status.get("succeeded") or 0,
        "failed": status.get("failed") or 0,
        **output,
    }
    if ended.succeeded:
        return shown
    tail = str(output["output"]).strip()[-KUBERNETES_LOG_TAIL_CHARS:]
    reason = output["reason"] or ended.why or "it failed"
    code = f" with exit code {output['exit_code']}" if output["exit_code"] is not None else ""
    raise ToolError(
        call.kind, "JOB_FAILED", f"job {name} failed{code}: {reason}" + (f": {tail}" if tail else ""), data=shown
    )
