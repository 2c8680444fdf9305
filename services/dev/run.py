"""`playhead run`: register a playbook, execute it, show it live."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import aiohttp
import orjson
import yaml

from services.dev.client import TERMINAL, PublicApi, RequestError

EXIT_COMPLETED, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 130
VALUE_CHARS_MAX = 4000  # of the result in a terminal; --json prints all of it
BAR_CHARS = 24  # width of a loop's progress bar


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What `playhead run` can be told."""

    file: Path
    server: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    as_json: bool = False
    follow: bool = True
    token: str | None = field(default=None, repr=False)  # None: the one in the environment


class UsageError(Exception):
    """The command line cannot be understood; the text says which part and how it should look."""


def payload_of(text: str | None, assignments: Sequence[str]) -> dict[str, Any]:
    """Return the payload: `--payload` JSON with every `--set a.b=value` on top; values are read as YAML.

    Raises:
        UsageError: it is no JSON object, or an assignment is malformed.
    """
    payload: dict[str, Any] = {}
    if text is not None:
        try:
            payload = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise UsageError(f"--payload is no JSON: {error}") from error
        if not isinstance(payload, dict):
            raise UsageError('--payload must be a JSON object, such as {"name": "Ada"}')
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not all(key.split(".")):
            raise UsageError(f"--set {assignment}: write key=value, or outer.inner=value")
        *parents, last = key.split(".")
        into = payload
        for parent in parents:
            inner = into.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise UsageError(f"--set {assignment}: {parent} has a value already and cannot have keys")
            into = inner
        try:
            into[last] = yaml.safe_load(value) if value else ""
        except yaml.YAMLError:
            into[last] = value
    return payload


class Screen:
    """Lines for a person: one per step that ended, with its duration; a bar for a loop that runs."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._is_terminal = out.isatty()
        self._issued: dict[int, datetime] = {}
        self._ended: set[int] = set()
        self._loops: dict[str, tuple[int, int]] = {}  # step: (done, total)
        self._has_bar = False

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._is_terminal else text

    def line(self, text: str) -> None:
        """Print a line, taking a progress bar off first."""
        if self._has_bar:
            self._out.write("\r\x1b[2K")
            self._has_bar = False
        self._out.write(text + "\n")
        self._out.flush()

    def show(self, event: Mapping[str, Any]) -> None:
        """Show one event if it means something to a person."""
        kind, step, at = event["event_type"], str(event.get("node_name") or ""), _time(event)
        command_id = event.get("command_id")
        if kind == "command.issued" and isinstance(command_id, int):
            self._issued[command_id] = at
            total = _loop_total(event)
            if total:
                self._loops[step] = (self._loops.get(step, (0, 0))[0], total)
        elif kind in ("call.done", "call.error", "command.completed", "command.failed", "command.cancelled"):
            if isinstance(command_id, int) and command_id not in self._ended:
                self._ended.add(command_id)
                self._step_ended(event, step, failed=kind in ("call.error", "command.failed", "command.cancelled"))
        elif kind == "step.skipped":
            self.line(f"  {self._paint('2', '-')} {step:<32} skipped")
        elif kind == "command.claimed" and (event.get("meta") or {}).get("attempt", 1) != 1:
            self.line(f"  {self._paint('33', '↻')} {step:<32} attempt {event['meta']['attempt']}")

    def _step_ended(self, event: Mapping[str, Any], step: str, *, failed: bool) -> None:
        if step in self._loops and not failed:
            done, total = self._loops[step]
            self._loops[step] = (done + 1, total)
            self._bar(step, done + 1, total)
            return
        issued = self._issued.get(int(event["command_id"]))
        seconds = f"{(_time(event) - issued).total_seconds():.3f} s" if issued else ""
        mark = self._paint("31", "✗") if failed else self._paint("32", "✓")
        error = f"  {event.get('error')}" if failed and event.get("error") else ""
        self.line(f"  {mark} {step:<32} {seconds:>10}{error}")

    def _bar(self, step: str, done: int, total: int) -> None:
        filled = BAR_CHARS * min(done, total) // total
        text = f"  {step:<34} [{'#' * filled}{'.' * (BAR_CHARS - filled)}] {done}/{total}"
        if done >= total:
            self.line(text)
        elif self._is_terminal:
            self._out.write("\r" + text)
            self._out.flush()
            self._has_bar = True


def _time(event: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(str(event.get("event_time") or event["created_at"]))


def _loop_total(event: Mapping[str, Any]) -> int | None:
    """Return how many iterations the command's loop has, None when it belongs to none."""
    total = (event.get("meta") or {}).get("loop_total")
    return total if isinstance(total, int) and total > 0 else None


def _result_text(value: object) -> str:
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    return text if len(text) <= VALUE_CHARS_MAX else f"{text[:VALUE_CHARS_MAX]}\n... (--json prints all of it)"


async def _run(options: RunOptions, content: str) -> int:
    screen = Screen(sys.stderr if options.as_json else sys.stdout)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=4)) as session:
        api = PublicApi(session, options.server, options.token)
        entry = await api.request("POST", "/api/catalog/register", {"content": content})
        for warning in entry.get("warnings", ()):
            screen.line(f"warning: {warning}")
        started = await api.request(
            "POST", "/api/execute", {"catalog_id": entry["catalog_id"], "payload": dict(options.payload)}
        )
        execution_id = started["execution_id"]
        if not options.as_json:
            screen.line(f"{entry['path']} version {entry['version']}, execution {execution_id}")
        if not options.follow:
            if options.as_json:
                _print_json({"execution_id": execution_id, "status": "RUNNING"})
            return EXIT_COMPLETED
        ended: dict[str, Any] = {}
        async for event in api.events(execution_id):
            if not options.as_json:
                screen.show(event)
            if event["event_type"] in TERMINAL:
                ended = event
        return await _finish(api, options, screen, execution_id, ended)


async def _finish(
    api: PublicApi, options: RunOptions, screen: Screen, execution_id: str, ended: Mapping[str, Any]
) -> int:
    detail = await api.request("GET", f"/api/executions/{execution_id}?include_events=false")
    status = str(detail["status"])
    result = (detail.get("result") or {}).get("context")
    if options.as_json:
        document = {key: detail.get(key) for key in ("execution_id", "path", "version", "status", "error")}
        _print_json({**document, "duration_seconds": detail.get("duration_seconds"), "result": result})
    else:
        screen.line(f"{status} in {detail.get('duration_seconds')} s")
        error = detail.get("error") or ended.get("error")
        if error:
            screen.line(f"error: {error}")
        if result:
            screen.line(_result_text(result))
    return EXIT_COMPLETED if status == "COMPLETED" else EXIT_FAILED


def _print_json(document: object) -> None:
    sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")


async def _interruptible(options: RunOptions, content: str) -> int:
    """Run until the end or SIGINT/SIGTERM; the execution itself goes on."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await _run(options, content)
    except asyncio.CancelledError:
        sys.stderr.write("interrupted; the execution goes on (cancel it: POST /api/executions/ID/cancel)\n")
        return EXIT_INTERRUPTED


def run_playbook(options: RunOptions) -> int:
    """Run `playhead run` and return its exit code: 0 completed, 1 failed, 130 interrupted."""
    try:
        content = options.file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        sys.stderr.write(f"playhead run: {options.file} cannot be read: {error}\n")
        return EXIT_FAILED
    try:
        return asyncio.run(_interruptible(options, content))
    except RequestError as error:
        sys.stderr.write(f"playhead run: {error}\n")
        return EXIT_FAILED
