"""`noop`: does nothing, for steps that only route."""

from __future__ import annotations

from typing import Any

from services.worker.tools.base import ToolBox, ToolCall


async def run(call: ToolCall, _box: ToolBox) -> dict[str, Any]:
    """Return the original's output of a `noop`."""
    return {"status": "noop", "step": call.step}
