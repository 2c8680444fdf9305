"""Tools of the worker, one module per kind, and the one way to run them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

from services.worker.tools import http, noop, python, shell
from services.worker.tools.base import ToolBox, ToolCall, ToolError

Tool = Callable[[ToolCall, ToolBox], Awaitable[Any]]

TOOLS: Mapping[str, Tool] = MappingProxyType(
    {"python": python.run, "http": http.run, "shell": shell.run, "noop": noop.run}
)
_OWN_LIMIT = frozenset({"python"})  # applies the time limit itself: the wait for a free child is not part of it


async def run_tool(call: ToolCall, box: ToolBox) -> Any:
    """Run a tool within its time limit and return its output.

    Raises:
        ToolError: it failed, took too long, or there is no such tool.
    """
    tool = TOOLS.get(call.kind)
    if tool is None:
        known = ", ".join(sorted(TOOLS))
        raise ToolError("worker", "UNKNOWN_TOOL", f"Tool kind '{call.kind}' not implemented; this worker has {known}")
    try:
        async with asyncio.timeout(None if call.kind in _OWN_LIMIT else call.timeout_seconds):
            return await tool(call, box)
    except TimeoutError:
        text = f"{call.kind} tool took longer than {call.timeout_seconds:g} s and was stopped"
        raise ToolError(call.kind, "TIMEOUT", text, retryable=True) from None


__all__ = ["TOOLS", "Tool", "ToolBox", "ToolCall", "ToolError", "run_tool"]
