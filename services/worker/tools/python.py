"""`python`: runs code in a warm child process."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from services.worker.tools.base import ToolBox, ToolCall, ToolError

KIND = "python"
_CONTEXT_NAMES = ("context", "workload", "ctx", "iter", "execution_id", "job")  # given to code that mentions them


def _code(config: Mapping[str, Any]) -> str:
    code = config.get("code")
    if isinstance(code, str) and code.strip():
        return code
    encoded = config.get("code_b64") or config.get("code_base64")
    if not isinstance(encoded, str) or not encoded:
        raise ToolError(KIND, "BAD_CONFIG", "a python tool needs `code` or `code_b64`")
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ToolError(KIND, "BAD_CONFIG", "`code_b64` is no base64 of UTF-8 text") from error


def tool_input(call: ToolCall) -> dict[str, Any]:
    """Return the input of a call: the step's, then the tool's `args` and `input`; loop bookkeeping left out."""
    merged: dict[str, Any] = dict(call.input)
    for key in ("args", "input"):
        given = call.config.get(key)
        if isinstance(given, Mapping):
            merged |= given
    return {key: value for key, value in merged.items() if not key.startswith("__loop_")}


async def run(call: ToolCall, box: ToolBox) -> Any:
    """Return the value of the code: `result`, a top-level `return`, or what `main(**input)` returns.

    Raises:
        ToolError: the code raised, or its process died.
    """
    code = _code(call.config)
    context = {"context": call.context, **call.context}
    names = {name: context[name] for name in _CONTEXT_NAMES if name in context and name in code}
    libs = call.config.get("libs")
    answer = await box.python.run(
        {
            "code": code,
            "input": tool_input(call),
            "names": names,
            "libs": libs if isinstance(libs, Mapping) else {},
        },
        call.timeout_seconds,
    )
    if answer["ok"]:
        return answer["value"]
    error = answer["error"]
    data = {"traceback": error["traceback"]} if error.get("traceback") else {}
    raise ToolError(KIND, error["code"], error["message"], data=data)
