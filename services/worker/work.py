"""What a command does by its kind: one tool, a sequence of tasks, or a slot of a cursor loop."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import orjson

from services.worker.command import Command
from services.worker.cursor import KIND as CURSOR
from services.worker.cursor import run_slot
from services.worker.limits import SEQUENCE_VARIABLES_MAX_BYTES
from services.worker.outcome import Outcome, outcome_of, sequence_outcome
from services.worker.plain import to_plain
from services.worker.scope import CommandScope
from services.worker.select import selecting, with_selected
from services.worker.sequence import KIND as SEQUENCE
from services.worker.sequence import run_sequence
from services.worker.tools import TOOLS, ToolError

Work = Callable[[CommandScope], Awaitable[Outcome]]


async def run_tool_command(scope: CommandScope) -> Outcome:
    """Run a command's one tool.

    Raises:
        ToolError: it cannot be run; one that failed is an outcome.
    """
    command = scope.command
    source = {"tool_config": command.tool_config, "input": command.input}
    source = await scope.rendered(source, scope.names, places=command.deferred)
    config = source["tool_config"]
    try:
        output = await scope.call(command.kind, config, source["input"], {**scope.names, **source["input"]})
    except ToolError as error:
        return outcome_of(to_plain(error.to_response()))
    select = selecting(config)
    outcome = outcome_of(with_selected(output, select), select)
    return replace(outcome, error=None) if command.kind == "agent" else outcome  # its failure is an answer


async def run_sequence_command(scope: CommandScope) -> Outcome:
    """Run a command's tasks.

    Raises:
        ToolError: they cannot be run; a sequence that failed is an outcome.
    """
    command = scope.command
    source = {"input": command.input}
    places = None if command.deferred is None else [path for path in command.deferred if path[:1] == ["input"]]
    given = (await scope.rendered(source, scope.names, places=places))["input"]
    result = await run_sequence(scope, command.tool_config, {**scope.names, **given}, given)
    size = len(orjson.dumps(result["ctx"]))
    if size > SEQUENCE_VARIABLES_MAX_BYTES:
        text = f"the tasks have set variables of {size} bytes; at most {SEQUENCE_VARIABLES_MAX_BYTES} are allowed"
        raise ToolError(command.kind, "VARIABLES_TOO_LARGE", text)
    return sequence_outcome(result, selecting(command.tool_config))


async def run_cursor_command(scope: CommandScope) -> Outcome:
    """Run one slot of a cursor loop.

    Raises:
        ToolError: it is malformed, or its rows cannot be claimed; rows that fail are counted.
    """
    command = scope.command
    source = {"tool_config": {"cursor": command.tool_config.get("cursor")}, "input": command.input}
    policy = command.tool_config.get("frame_policy")
    frame_rows = policy.get("max_rows") if isinstance(policy, Mapping) else None
    names = {**scope.names, "__frame_max_rows": frame_rows or 1}
    source = await scope.rendered(source, names, places=command.deferred)
    config = {**command.tool_config, **source["tool_config"]}
    return outcome_of(await run_slot(scope, config, source["input"]))


WORK: Mapping[str, Work] = MappingProxyType({SEQUENCE: run_sequence_command, CURSOR: run_cursor_command})
KINDS = frozenset({*TOOLS, *WORK})


def inline_max_bytes(command: Command) -> int:
    """Return how large (bytes) the author of a command lets its output be before it is stored; the setting may be lower."""
    output: Any = command.tool_config.get("output")
    given = output.get("inline_max_bytes") if isinstance(output, Mapping) else None
    return given if isinstance(given, int) and not isinstance(given, bool) and given > 0 else sys.maxsize
