"""One command from its notification to its last event: claim, run, report."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import replace
from typing import Any, Protocol

import orjson

from services.worker.api import WorkerApi
from services.worker.cancelling import CancelWatch
from services.worker.command import BadCommandError, Command, parse_command, placeholder_of
from services.worker.keychain_entries import KeychainEntries
from services.worker.limits import (
    CANCEL_CHECK_SECONDS,
    CLAIM_NAK_SECONDS,
    ERROR_DETAIL_MAX_CHARS,
    STARTED_GRACE_SECONDS,
)
from services.worker.metrics import CLAIMS, COMMANDS
from services.worker.outcome import Outcome, ended_events, heartbeat_event, outcome_of, started_events
from services.worker.plain import to_plain
from services.worker.scope import CommandScope, Shared
from services.worker.slots import Slots
from services.worker.tools import ToolBox, ToolError
from services.worker.work import KINDS, WORK, inline_max_bytes, run_tool_command
from shared.platform.errors import ApiRefusedError, ApiUnavailableError
from shared.platform.lifecycle import pause
from shared.platform.settings import WorkerSettings
from shared.platform.tracing import extract, span
from shared.wire.notification import CommandNotification

log = logging.getLogger(__name__)


class Delivery(Protocol):
    """A delivered notification, as `shared.messaging.consumer.Message`."""

    data: bytes
    headers: dict[str, str]

    async def ack(self) -> None:
        """Say that it is handled."""

    async def nak(self, delay_seconds: float = 0.0) -> None:
        """Give it back."""

    async def term(self) -> None:
        """Say that it must not come again."""


def failed(error: ToolError) -> Outcome:
    """Return the outcome of a tool that failed."""
    return replace(outcome_of(to_plain(error.to_response())), error=error.message)


class CommandRunner:
    """Handles notifications; safe to use by many tasks at once. `slots` counts what is in flight."""

    def __init__(self, api: WorkerApi, box: ToolBox, settings: WorkerSettings, slots: Slots | None = None) -> None:
        self._api = api
        self._box = box
        self._settings = settings
        self._shared = Shared(
            api=api,
            box=box,
            settings=settings,
            slots=slots or Slots(settings.noetl_worker_max_inflight_commands),
            keychain=KeychainEntries(api, box.session),
        )
        self._cancelled = CancelWatch(api, min(CANCEL_CHECK_SECONDS, settings.noetl_command_heartbeat_interval_seconds))
        self._held: set[int] = set()  # event ids of commands in hand

    async def handle(self, message: Delivery) -> None:
        """Handle one notification; it is acknowledged as soon as the command is claimed or known to be somebody else's."""
        try:
            notification = CommandNotification.from_json(orjson.loads(message.data))
        except ValueError as error:
            log.warning("not a command notification; dropped", extra={"error": str(error)})
            await message.term()
            return
        if notification.event_id in self._held:  # announced again before our claim was marked as running
            await message.ack()
            return
        self._held.add(notification.event_id)
        try:
            with span("worker command", parent=extract(message.headers), execution_id=notification.execution_id):
                command = await self._claim(notification, message)
                if command is not None:
                    await self.execute(command)
        finally:
            self._held.discard(notification.event_id)

    async def _claim(self, notification: CommandNotification, message: Delivery) -> Command | None:
        fields = {"execution_id": notification.execution_id, "command_id": notification.command_id}
        try:
            answer = await self._api.claim(notification.event_id)
        except ApiUnavailableError as error:
            CLAIMS.labels(outcome="unavailable").inc()
            log.warning("claim not answered; given back", extra={**fields, "error": str(error)})
            await message.nak(CLAIM_NAK_SECONDS * (1 + random.random()))  # noqa: S311 - jitter
            return None
        except ApiRefusedError as error:
            expected = error.status in (404, 409)
            CLAIMS.labels(outcome=str(error.status)).inc()
            log.log(
                logging.DEBUG if expected else logging.ERROR, "claim refused", extra={**fields, "error": str(error)}
            )
            await message.ack()  # the reconciler announces it again if it is still to be done
            return None
        await message.ack()
        CLAIMS.labels(outcome="claimed").inc()
        try:
            return parse_command(answer, event_id=notification.event_id, command_id=notification.command_id)
        except BadCommandError as error:
            log.error("the claimed command cannot be read", extra={**fields, "error": str(error)})  # noqa: TRY400
            return None

    async def execute(self, command: Command) -> None:
        """Run a claimed command and report it; returns when its last event is stored or given up."""
        reported = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            tool = group.create_task(self._outcome(command))
            beating = group.create_task(self._heartbeat(command, reported))
            watching = group.create_task(self._stop_when_cancelled(command, tool))
            await asyncio.wait({tool}, timeout=STARTED_GRACE_SECONDS)
            begun = started_events(command, self._api.worker_id)
            if not tool.done():
                await self._report(command, begun, batch=1)
                begun = []
            await asyncio.wait({tool})
            watching.cancel()
            if tool.cancelled():
                outcome = failed(ToolError(command.kind, "CANCELLED", "the execution was cancelled"))
            else:
                outcome = tool.result()
            await self._report_end(command, begun, outcome)
            reported.set()
            beating.cancel()  # it may be in the middle of a request that nobody needs

    async def _heartbeat(self, command: Command, reported: asyncio.Event) -> None:
        """Renew the lease at intervals."""
        event = heartbeat_event(command, self._api.worker_id)
        interval = self._settings.noetl_command_heartbeat_interval_seconds
        await pause(reported, interval)
        while not reported.is_set():
            try:
                await self._api.command_heartbeat(command.execution_id, event)
            except (ApiUnavailableError, ApiRefusedError) as error:
                log.warning("lease not renewed", extra={**command.log_fields(), "error": str(error)})
            await pause(reported, interval)

    async def _stop_when_cancelled(self, command: Command, tool: asyncio.Task[Outcome]) -> None:
        await self._cancelled.until_cancelled(command.execution_id, command.command_id)
        if not tool.done():
            log.info("cancelled; stopping its tool", extra=command.log_fields())
            tool.cancel()

    async def _outcome(self, command: Command) -> Outcome:
        """Run the command; whatever happens in it becomes an outcome."""
        label = command.kind if command.kind in KINDS else "other"
        began = time.monotonic()
        try:
            outcome = await self._run(command)
        except ToolError as error:
            outcome = failed(error)
        except Exception as error:
            log.exception("tool broke", extra=command.log_fields())
            outcome = failed(
                ToolError(command.kind, type(error).__name__, f"the worker failed: {type(error).__name__}")
            )
        seconds = time.monotonic() - began
        ended = {"step": command.step, "tool": label, "status": outcome.status, "seconds": round(seconds, 4)}
        log.info("command ended", extra={**command.log_fields(), **ended})
        COMMANDS.labels(tool=label, outcome=outcome.status.lower()).inc()
        return outcome

    async def _run(self, command: Command) -> Outcome:
        """Return what a command's tool, tasks or cursor give.

        Raises:
            ToolError: it failed, or its output is too large.
        """
        try:
            scope = CommandScope(await self._completed(command), self._shared)
            outcome = await WORK.get(command.kind, run_tool_command)(scope)
        except (ApiUnavailableError, ApiRefusedError) as error:
            text = f"the API does not give what the command needs: {str(error)[:ERROR_DETAIL_MAX_CHARS]}"
            raise ToolError("worker", "API", text, retryable=True) from error
        if len(outcome.encoded) > self._box.result_max_bytes:
            text = f"the output has {len(outcome.encoded)} bytes; at most {self._box.result_max_bytes} are allowed"
            raise ToolError(command.kind, "RESULT_TOO_LARGE", text)
        return outcome

    async def _completed(self, command: Command) -> Command:
        """Return the command with the parts that the original's server keeps elsewhere because they are large.

        Raises:
            ToolError: one is gone.
        """
        parts: dict[str, Any] = {}
        for name in ("tool_config", "input", "render_context"):
            locator = placeholder_of(getattr(command, name))
            if locator is None:
                continue
            found = await self._api.stored_result(locator)
            if found is None or not isinstance(found[0], dict):
                text = f"`{name}` of the command is stored as {locator}, which does not exist or has expired"
                raise ToolError("worker", "REFERENCE_NOT_AVAILABLE", text)
            parts[name] = found[0]
        return replace(command, **parts) if parts else command

    def _key(self, command: Command, batch: int) -> str:
        return f"{command.command_id}:{command.attempt}:{batch}"

    async def _report(self, command: Command, events: list[dict[str, object]], *, batch: int) -> int:
        """Send a batch; return 0 when it is stored, else the status of the refusal (503: given up)."""
        try:
            await self._api.events(command.execution_id, events, key=self._key(command, batch))
        except ApiUnavailableError as error:
            log.error("events given up", extra={**command.log_fields(), "error": str(error)})  # noqa: TRY400
            return 503
        except ApiRefusedError as error:
            log.error("events refused", extra={**command.log_fields(), "error": str(error)})  # noqa: TRY400
            return error.status
        return 0

    async def _report_end(self, command: Command, begun: list[dict[str, object]], outcome: Outcome) -> None:
        """Send the last batch, the output by reference when it is large; a refusal is reported as the command's failure."""
        if len(outcome.encoded) > min(self._settings.noetl_inline_max_bytes, inline_max_bytes(command)):
            outcome = await self._stored(command, outcome)
        refusal = await self._report(command, begun + ended_events(command, self._api.worker_id, outcome), batch=2)
        if refusal == 413 and outcome.reference is None:  # the API's inline limit is below ours
            outcome = await self._stored(command, outcome)
            refusal = await self._report(command, begun + ended_events(command, self._api.worker_id, outcome), batch=3)
        if refusal not in (0, 404, 503):
            outcome = failed(
                ToolError("worker", f"HTTP_{refusal}", f"the API refused the output with status {refusal}")
            )
            await self._report(command, begun + ended_events(command, self._api.worker_id, outcome), batch=4)

    async def _stored(self, command: Command, outcome: Outcome) -> Outcome:
        """Put the output into the result store; one that cannot be stored fails the command."""
        try:
            encoded = outcome.stored or outcome.encoded
            name = command.step.removesuffix(":task_sequence")
            reference = await self._api.put_result(command.execution_id, name, encoded)
        except (ApiUnavailableError, ApiRefusedError) as error:
            size = len(outcome.encoded)
            text = f"the output of {size} bytes cannot be stored: {str(error)[:ERROR_DETAIL_MAX_CHARS]}"
            return failed(ToolError("worker", "RESULT_STORE", text, retryable=isinstance(error, ApiUnavailableError)))
        return replace(outcome, reference=reference)
