"""The bounded document of an execution that the status route shows."""

from __future__ import annotations

from typing import Any

from shared.engine.jsontext import size_of
from shared.engine.limits import RESULT_BYTES_MAX
from shared.engine.state import State


def status_document(state: State) -> dict[str, Any]:
    """Return current step, completed steps and variables, `RESULT_BYTES_MAX` at most; large values become their size."""
    variables: dict[str, tuple[str, Any]] = {}  # the later of equal names wins; sizes are known, values may be large
    for prefix, values in (("w", state.workload), ("v", state.variables), ("r", state.results)):
        variables.update({name: (prefix, value) for name, value in values.items()})
    left = RESULT_BYTES_MAX
    shown: dict[str, Any] = {}
    for name, (prefix, value) in variables.items():
        known = state.sizes.get(f"{prefix}:{name}")
        size = size_of(value) if known is None else known
        if size <= left:
            shown[name] = value
            left -= size
        elif left > 0:
            shown[name] = {"truncated": True, "size_bytes": size}
            left -= 64
    return {
        "current_step": state.current_step,
        "completed_steps": list(state.completed_steps),
        "variables": shown,
        "failed": state.status == "FAILED" or bool(state.failures),
        "completed": state.is_terminal,
    }
