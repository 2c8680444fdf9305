"""Recorded logs: every format of events that executions were ever written in folds for ever.

`python -m tests.unit.engine.histories` writes the end states of logs that have none yet, and never changes one that is there.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import orjson

from shared.engine import Event, State, initial_state, replay

HISTORIES = Path(__file__).resolve().parents[2] / "golden" / "histories"
ENDS = HISTORIES / "ends.json"
EXECUTION_ID, CATALOG_ID = 1_000_001, 2_000_002


def names() -> list[str]:
    """Return the logs, as `<who wrote it>/<scenario>`."""
    return sorted(str(file.relative_to(HISTORIES).with_suffix("")) for file in HISTORIES.glob("*/*.jsonl"))


def events_of(name: str) -> list[Event]:
    """Return the events of a log, numbered as they stand there."""
    lines = (HISTORIES / f"{name}.jsonl").read_text().splitlines()
    return [
        Event.from_envelope({"stream_version": number, "event_id": number, **json.loads(line)})
        for number, line in enumerate(lines, start=1)
    ]


def line_of(event: Event) -> str:
    """Return an event as a line of a log."""
    members = {
        "event_type": event.type,
        "node_name": event.step,
        "status": event.status,
        "context": event.context,
        "result": event.result,
        "meta": event.meta,
        "error": event.error,
        "command_id": event.command_id,
    }
    return orjson.dumps({key: value for key, value in members.items() if value not in (None, {}, "")}).decode()


def folded(name: str) -> State:
    """Return the end state of a log."""
    return replay(initial_state(EXECUTION_ID, CATALOG_ID), events_of(name))


def end_of(state: State) -> dict[str, Any]:
    """Return what must not change about an end: in clear what a person would look at, the rest as a digest."""
    runs = {run.step: f"{run.status} {run.epoch}" for run in state.runs.values()}
    whole = {
        "workload": state.workload,
        "variables": state.variables,
        "results": state.results,
        "completed": state.completed_steps,
        "errors": {run.step: run.error for run in state.runs.values() if run.error},
        "failures": state.failures,
        "open": sorted(step for step, _ in state.open.values()),
        "path": state.path,
    }
    text = orjson.dumps(whole, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return {
        "status": state.status,
        "error": state.error,
        "runs": runs,
        "events": state.version,
        "digest": hashlib.sha256(text).hexdigest(),
    }


def known_ends() -> dict[str, Any]:
    """Return the recorded end states by name."""
    known: dict[str, Any] = json.loads(ENDS.read_text()) if ENDS.exists() else {}
    return known


def main() -> None:
    """Record the ends that are not known yet."""
    ends = known_ends()
    for name in names():
        ends.setdefault(name, end_of(folded(name)))
    ENDS.write_text(json.dumps(dict(sorted(ends.items())), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
