"""`python`: runs code in a warm child process."""

from __future__ import annotations

import ast
import base64
from collections.abc import Mapping
from typing import Any

from services.worker.tools.base import ToolBox, ToolCall, ToolError
from services.worker.tools.limits import PYTHON_MEMORY_MIN_BYTES
from services.worker.tools.script_source import script_text

KIND = "python"
_CONTEXT_NAMES = ("context", "workload", "ctx", "iter", "execution_id", "job")  # given to code that mentions them


async def _code(call: ToolCall, box: ToolBox) -> str:
    config = call.config
    code = config.get("code")
    if isinstance(code, str) and code.strip():
        return code
    encoded = config.get("code_b64") or config.get("code_base64")
    if not isinstance(encoded, str) or not encoded:
        script = await script_text(call, box)
        if script is None or not script.strip():
            raise ToolError(KIND, "BAD_CONFIG", "a python tool needs `code`, `code_b64` or `script: {uri, source}`")
        return script
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except ValueError as error:
        raise ToolError(KIND, "BAD_CONFIG", "`code_b64` is no base64 of UTF-8 text") from error


def tool_input(call: ToolCall) -> dict[str, Any]:
    """Return the input of a call: the step's, then the tool's `args` and `input`; loop bookkeeping left out."""
    merged: dict[str, Any] = dict(call.input)
    for key in ("args", "input"):
        given = call.config.get(key)
        if isinstance(given, Mapping):
            merged |= given
    return {key: value for key, value in merged.items() if not key.startswith("__loop_")}


def _parameters(code: str) -> list[str]:
    """Return the parameters of `main`: those that the input lacks come from the names of templates, as in the original."""
    if "def main" not in code:
        return []
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError):  # the child says what is wrong, with the line
        return []
    mains = [
        node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == "main"
    ]
    return [parameter.arg for main in mains for parameter in (*main.args.args, *main.args.kwonlyargs)]


def _surroundings(call: ToolCall) -> dict[str, Any]:
    """Return environment, working directory and memory limit (bytes) that the tool asks for."""
    env, directory, memory = (call.config.get(key) for key in ("env", "cwd", "memory_bytes"))
    if env and not isinstance(env, Mapping):
        raise ToolError(KIND, "BAD_CONFIG", "`env` must be an object")
    text = str(memory) if memory not in (None, "") else ""
    if text and not (text.isascii() and text.isdigit() and int(text[:15]) >= PYTHON_MEMORY_MIN_BYTES):
        raise ToolError(KIND, "BAD_CONFIG", f"`memory_bytes` must be a number of at least {PYTHON_MEMORY_MIN_BYTES}")
    return {
        "env": {str(key): "" if value is None else str(value) for key, value in (env or {}).items()},
        "cwd": str(directory) if directory else None,
        "memory_bytes": int(text[:15]) if text else None,
    }


async def run(call: ToolCall, box: ToolBox) -> Any:
    """Return the value of the code: `result`, a top-level `return`, or what `main(**input)` returns.

    Raises:
        ToolError: the code raised, or its process died.
    """
    code = await _code(call, box)
    context = {"context": call.context, **call.context}
    wanted = (*_CONTEXT_NAMES, *_parameters(code))
    names = {name: context[name] for name in wanted if name in context and name in code}
    libs = call.config.get("libs")
    job = {
        "code": code,
        "input": tool_input(call),
        "names": names,
        "libs": libs if isinstance(libs, Mapping) else {},
        **_surroundings(call),
    }
    answer = await box.python.run(job, call.timeout_seconds)
    if answer["ok"]:
        return answer["value"]
    error = answer["error"]
    data = {"traceback": error["traceback"]} if error.get("traceback") else {}
    raise ToolError(KIND, error["code"], error["message"], data=data)
