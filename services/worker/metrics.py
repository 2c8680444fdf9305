"""Prometheus metrics of the worker."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

COMMANDS = Counter("playhead_worker_commands_total", "Commands by tool and outcome", ["tool", "outcome"])
TOOL_SECONDS = Histogram(
    "playhead_worker_tool_seconds",
    "Run time of a tool (s)",
    ["tool"],
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 180, 600),
)
INFLIGHT = Gauge("playhead_worker_inflight_commands", "Commands being claimed, run or reported")
CLAIMS = Counter("playhead_worker_claims_total", "Claims by outcome", ["outcome"])
CHILDREN_REPLACED = Counter("playhead_worker_python_children_replaced_total", "Python children replaced", ["reason"])
TASKS = Counter("playhead_worker_tasks_total", "Runs of tasks in sequences by tool and outcome", ["tool", "outcome"])
ROWS = Counter("playhead_worker_cursor_rows_total", "Rows of cursor loops by what became of them", ["outcome"])
