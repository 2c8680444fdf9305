"""Kinds of the language that this worker does not have: a clear error that says what to do instead."""

from __future__ import annotations

from typing import Any

from services.worker.tools.base import ToolBox, ToolCall, ToolError

_WORKER = "run a NoETL worker that has it in a pool of its own and name it in the step's `execution_pool`"
ABSENT = {
    "snowflake": f"use a python tool with the library snowflake-connector-python, or {_WORKER}",
    "snowflake_transfer": f"export to files and use a transfer tool, or {_WORKER}",
    "gcs": "use an http tool with a bearer token on https://storage.googleapis.com, or a python tool with google-cloud-storage",
    "gateway": "a gateway answers its callers itself; post to its `/api/internal/callback` with an http tool",
    "mcp": "use an http tool that posts JSON-RPC 2.0 to the server's address",
    "subscription": f"it is a runtime of its own that listens for messages; {_WORKER}",
    "wasm": _WORKER,
    "iterator": "write the step's `loop` instead, which runs its tool for each item",
    "rhai": f"write it as a python tool, or {_WORKER}",
}


async def run(call: ToolCall, _box: ToolBox) -> Any:
    """Refuse.

    Raises:
        ToolError: always; the text says what to do.
    """
    raise ToolError(call.kind, "NOT_AVAILABLE", f"tool kind '{call.kind}' is not in this worker: {ABSENT[call.kind]}")
