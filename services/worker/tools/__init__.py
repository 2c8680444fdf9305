"""Tools of the worker, one module per kind, and the one way to run them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

from services.worker.redaction import longest_first, redacted
from services.worker.tools import (
    absent,
    artifact,
    container,
    duckdb,
    http,
    nats,
    noop,
    playbook,
    postgres,
    python,
    secrets,
    shell,
    transfer,
)
from services.worker.tools.base import ToolBox, ToolCall, ToolError
from shared.platform.tracing import span

Tool = Callable[[ToolCall, ToolBox], Awaitable[Any]]

TOOLS: Mapping[str, Tool] = MappingProxyType(
    {
        "python": python.run,
        "http": http.run,
        "postgres": postgres.run,
        "duckdb": duckdb.run,
        "ducklake": duckdb.run,
        "playbook": playbook.run,
        "playbooks": playbook.run,
        "agent": playbook.run_agent,
        "artifact": artifact.run,
        "result_fetch": artifact.fetch,
        "nats": nats.run,
        "container": container.run,
        "script": container.run,
        "secrets": secrets.run,
        "transfer": transfer.run,
        "shell": shell.run,
        "noop": noop.run,
        **dict.fromkeys(absent.ABSENT, absent.run),
    }
)
_LOGIN_REFUSED = frozenset({"HTTP_401", "HTTP_403", "PG_28P01", "PG_28000", "AUTHORIZATION", "TOKEN"})
_OWN_LIMIT = frozenset({"python"})  # applies the time limit itself: the wait for a free child is not part of it


@asynccontextmanager
async def _slot(call: ToolCall, box: ToolBox) -> AsyncIterator[None]:
    if box.limits is None:
        yield
        return
    async with box.limits.slot(call.kind):
        yield


async def _run(tool: Tool, call: ToolCall, box: ToolBox) -> Any:
    seconds = None if call.kind in _OWN_LIMIT else call.timeout_seconds
    try:
        async with _slot(call, box), asyncio.timeout(seconds):
            return await tool(call, box)
    except TimeoutError:
        text = f"{call.kind} tool took longer than {call.timeout_seconds:g} s and was stopped"
        raise ToolError(call.kind, "TIMEOUT", text, retryable=True) from None


async def run_tool(call: ToolCall, box: ToolBox) -> Any:
    """Run a tool within its time limit and return its output, the secrets of its credentials replaced.

    The time limit begins when there is a free place for its kind.

    Raises:
        ToolError: it failed, took too long, or there is no such tool.
    """
    tool = TOOLS.get(call.kind)
    if tool is None:
        known = ", ".join(sorted(TOOLS))
        raise ToolError("worker", "UNKNOWN_TOOL", f"Tool kind '{call.kind}' not implemented; this worker has {known}")
    try:
        with span("tool", kind=call.kind, execution_id=call.execution):
            output = await _run(tool, call, box)
    except ToolError as error:
        if error.code in _LOGIN_REFUSED and box.credentials is not None:
            for name in call.credentials:  # it may have been changed: the next call reads it again
                box.credentials.forget(name)
        if not call.secrets:
            raise
        secrets = longest_first(call.secrets)
        raise ToolError(
            error.kind,
            error.code,
            redacted(error.message, secrets),
            retryable=error.retryable,
            data=redacted(error.data, secrets),
        ) from None
    return redacted(output, longest_first(call.secrets))


__all__ = ["TOOLS", "Tool", "ToolBox", "ToolCall", "ToolError", "run_tool"]
