"""`noop`: does nothing, for steps that only route."""

from __future__ import annotations

from typing import Any

from services.worker.tools.base import ToolBox, ToolCall


async def run(call: ToolCall, _box: ToolBox) -> Any:
    """Return `result` when the tool has one, `message` with status ok, else the original's output of a `noop`."""
    if call.config.get("result") is not None:
        return call.config["result"]
    if call.config.get("message") is not None:
        return {"status": "ok", "message": call.config["message"], "step": call.step}
    return {"status": "noop", "step": call.step}
