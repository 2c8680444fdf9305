"""`playbook` and `agent` inside a task sequence: start another execution through the API, and wait for its end if asked.

As a step of its own a `playbook` is started by the engine and never reaches a worker.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from typing import Any

from services.worker.limits import ERROR_DETAIL_MAX_CHARS
from services.worker.tools.base import ToolBox, ToolCall, ToolError, is_true, part
from services.worker.tools.limits import (
    EXECUTE_ATTEMPTS_MAX,
    EXECUTE_REQUEST_SECONDS,
    STATUS_ATTEMPTS_MAX,
    STATUS_REQUEST_SECONDS,
    STATUS_WAIT_GROWTH,
    STATUS_WAIT_MAX_SECONDS,
    STATUS_WAIT_SECONDS,
)
from shared.platform.errors import ApiRefusedError, ApiUnavailableError
from shared.wire.types import parse_id

_TERMINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
_SHOWN = ("execution_id", "path", "version", "current_step", "completed_steps", "variables")


def _payload(call: ToolCall) -> dict[str, Any]:
    payload: dict[str, Any] = {}
    for given in (*(call.config.get(key) for key in ("args", "payload", "input")), call.input):
        if isinstance(given, Mapping):
            payload |= {key: value for key, value in given.items() if not str(key).startswith("__loop_")}
    return payload


async def _ask(box: ToolBox, kind: str, method: str, path: str, body: object, *, seconds: float, attempts: int) -> Any:
    try:
        return await part(box.api, kind, "an API").ask(method, path, body, seconds=seconds, attempts=attempts)
    except ApiUnavailableError as error:
        text = f"the API does not answer: {str(error)[:ERROR_DETAIL_MAX_CHARS]}"
        raise ToolError(kind, "API_UNAVAILABLE", text, retryable=True) from error
    except ApiRefusedError as error:
        code = "PLAYBOOK_NOT_FOUND" if error.status == 404 else f"HTTP_{error.status}"
        raise ToolError(kind, code, str(error)[:ERROR_DETAIL_MAX_CHARS]) from error


async def start(call: ToolCall, box: ToolBox, target: Mapping[str, Any]) -> dict[str, Any]:
    """Start an execution of `target` (`path` or `catalog_id`, `version`) and return the API's answer.

    Raises:
        ToolError: there is no such playbook, or the API does not answer (it may have started then).
    """
    body = {**target, "payload": _payload(call), "parent_execution_id": call.execution or None}
    answer = await _ask(
        *(box, call.kind, "POST", "/api/execute", body),
        seconds=EXECUTE_REQUEST_SECONDS,
        attempts=EXECUTE_ATTEMPTS_MAX,
    )
    if not isinstance(answer, dict) or parse_id(answer.get("execution_id")) is None:
        raise ToolError(call.kind, "BAD_ANSWER", "the API's answer has no `execution_id`")
    return answer


async def ended(call: ToolCall, box: ToolBox, execution_id: int) -> dict[str, Any]:
    """Wait for the end of an execution; the worker takes another command meanwhile. Returns what a parent step gets.

    Raises:
        ToolError: the API does not answer, or the execution is gone.
    """
    path, wait = f"/api/executions/{execution_id}/status", STATUS_WAIT_SECONDS
    status: dict[str, Any] = {}
    async with call.idle():
        while str(status.get("status") or "").upper() not in _TERMINAL:
            if status:
                await asyncio.sleep(wait)
                wait = min(wait * STATUS_WAIT_GROWTH, STATUS_WAIT_MAX_SECONDS)
            status = await _ask(
                *(box, call.kind, "GET", path, None), seconds=STATUS_REQUEST_SECONDS, attempts=STATUS_ATTEMPTS_MAX
            )
    detail = await _ask(
        *(box, call.kind, "GET", f"/api/executions/{execution_id}?include_events=false", None),
        seconds=STATUS_REQUEST_SECONDS,
        attempts=STATUS_ATTEMPTS_MAX,
    )
    terminal = detail.get("result") if isinstance(detail, dict) else None
    result = terminal.get("context") if isinstance(terminal, Mapping) else None
    state = str(status["status"]).upper()
    return {
        **(result if isinstance(result, Mapping) else {}),
        **{key: status.get(key, detail.get(key)) for key in _SHOWN},
        "status": state,
        "completed": True,
        "failed": state == "FAILED",
        "cancelled": state == "CANCELLED",
        "result": result,
        "data": result,
        "error": status.get("error") or detail.get("error"),
    }


def _failure(response: Mapping[str, Any], where: str) -> str | None:
    if response["status"] == "COMPLETED":
        return None
    reason = response["error"] or ("it was cancelled" if response["cancelled"] else "it failed")
    return f"sub-playbook {where} (execution {response['execution_id']}): {reason}"


def _target(call: ToolCall) -> dict[str, Any]:
    path, catalog_id = call.config.get("path"), call.config.get("catalog_id")
    if not (isinstance(path, str) and path) and not catalog_id:
        raise ToolError(call.kind, "BAD_CONFIG", "a playbook tool needs `path` or `catalog_id`")
    named = {"catalog_id": catalog_id} if catalog_id else {"path": path}
    version = call.config.get("version")
    return named if version in (None, "") else {**named, "version": version}


async def run(call: ToolCall, box: ToolBox) -> dict[str, Any]:
    """Start a playbook; with `return_step` or `wait: true` return its result, else what was started.

    Raises:
        ToolError: it cannot be started, or it failed and `ignore_failure` is not set (`data` has its end).
    """
    began, target = time.monotonic(), _target(call)
    answer = await start(call, box, target)
    execution_id = answer["execution_id"]
    wait = call.config.get("wait")
    if not (bool(call.config.get("return_step")) if wait is None else is_true(wait)):
        return {
            "id": str(uuid.uuid4()),
            "status": "success",
            "data": answer,
            "execution_id": str(execution_id),
            "path": target.get("path"),
            "async": True,
            "duration": round(time.monotonic() - began, 6),
        }
    response = await ended(call, box, int(execution_id))
    problem = _failure(response, str(target.get("path") or target.get("catalog_id")))
    if problem is None:
        return response
    if is_true(call.config.get("ignore_failure")) and not response["cancelled"]:
        return {**response, "status": "ok", "child_status": response["status"]}
    raise ToolError(call.kind, f"PLAYBOOK_{response['status']}", problem, data=response)


async def run_agent(call: ToolCall, box: ToolBox) -> dict[str, Any]:
    """Run the playbook that `entrypoint` names and wait for it. A failed agent is an answer, not an error.

    Raises:
        ToolError: the framework is not in this worker, or the API does not answer.
    """
    framework = str(call.config.get("framework") or "noetl").lower()
    if framework != "noetl":
        text = f"agent framework '{framework}' is not in this worker; use framework noetl, or a python tool with its library"
        raise ToolError(call.kind, "NOT_AVAILABLE", text)
    entrypoint = call.config.get("entrypoint") or call.config.get("path")
    if not isinstance(entrypoint, str) or not entrypoint:
        raise ToolError(call.kind, "BAD_CONFIG", "an agent tool needs `entrypoint`, the catalog path of its playbook")
    began = time.monotonic()
    envelope: dict[str, Any] = {"status": "ok", "framework": framework, "entrypoint": entrypoint, "data": None}
    try:
        execution_id = (await start(call, box, {"path": entrypoint}))["execution_id"]
        envelope["execution_id"] = str(execution_id)
        response = await ended(call, box, int(execution_id))
        envelope["data"] = response["result"]
        problem, code = _failure(response, entrypoint), f"PLAYBOOK_{response['status']}"
    except ToolError as error:
        if error.retryable:
            raise
        problem, code = error.message, error.code
    if problem is not None:
        envelope["status"] = "error"
        envelope["error"] = {"kind": "agent.execution", "code": code, "message": problem, "retryable": False}
    return {**envelope, "duration": round(time.monotonic() - began, 6)}
