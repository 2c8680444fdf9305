"""One command at work: its names, its secrets, and the one way in which it calls a tool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from services.worker.api import WorkerApi
from services.worker.command import Command
from services.worker.keychain import Keychain, named_entries, render_places
from services.worker.keychain_entries import KeychainEntries
from services.worker.limits import KEYCHAIN_REQUEST_SECONDS
from services.worker.metrics import TOOL_SECONDS
from services.worker.plain import NotPlainError, to_plain
from services.worker.redaction import redacted
from services.worker.slots import Slots
from services.worker.templates import Renderer, with_references
from services.worker.tools import TOOLS, ToolBox, ToolCall, ToolError, run_tool
from services.worker.tools.base import part, time_limit
from services.worker.tools.credentials import resolved
from services.worker.tools.secret_stores import read_secret
from shared.platform.settings import WorkerSettings

Path = list[str | int]
_PLAIN_KINDS = frozenset({"python"})  # its child has done it: a large output would hold up heartbeats here


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all commands of a worker share."""

    api: WorkerApi
    box: ToolBox
    settings: WorkerSettings
    slots: Slots
    keychain: KeychainEntries


class SecretsElsewhere:
    """Credentials and other stores of secrets, for definitions of keychain entries."""

    def __init__(self, box: ToolBox, command: Command) -> None:
        self._box = box
        self._command = command

    async def credential(self, name: str) -> Mapping[str, Any]:
        """Return the fields of a credential.

        Raises:
            ToolError: it cannot be had.
        """
        return (await part(self._box.credentials, "worker", "credentials").get(name, "worker")).fields

    async def secret(self, provider: str, name: str, auth: Any) -> Any:
        """Return a secret of another store: its value, or its members when it has several.

        Raises:
            ToolError: it cannot be had.
        """
        call = ToolCall(
            kind="secrets",
            step=self._command.step,
            config={},
            input={},
            context={},
            execution_id=self._command.execution_id,
            timeout_seconds=KEYCHAIN_REQUEST_SECONDS,
        )
        data = await read_secret(provider, name, await resolved(auth, call, self._box), call, self._box)
        return data.get("value", data)


class CommandScope:
    """What is true while one command runs. `names` are those of its templates, with references that can be reached into."""

    def __init__(self, command: Command, shared: Shared) -> None:
        self.command = command
        self.api = shared.api
        self.box = shared.box
        self.settings = shared.settings
        self.names: dict[str, Any] = {**with_references(command.render_context), **command.input}
        self.renderer = Renderer(shared.api)
        self._keychain = Keychain(shared.keychain, SecretsElsewhere(shared.box, command), command, self.renderer)
        self._slots = shared.slots
        self.keeps_slot = False  # whether it counts as in flight while it sleeps

    @property
    def log_fields(self) -> dict[str, Any]:
        """Return what every log line about the command carries."""
        return self.command.log_fields()

    async def rendered(self, value: Any, names: Mapping[str, Any], *, places: list[Path] | None = None) -> Any:
        """Return what an author wrote with its templates evaluated: all of them, or only those at `places`.

        Raises:
            ToolError: a template fails, or names a keychain entry or stored result that cannot be had.
        """
        lenient = self.command.deferred is None  # a server of the original: data may look like templates
        return await render_places(value, names, places, self._keychain, self.renderer, lenient=lenient)

    async def holds(self, condition: Any, names: Mapping[str, Any]) -> bool:
        """Return whether a condition of the author is true.

        Raises:
            ToolError: as `rendered`.
        """
        wanted = named_entries(condition)
        known = {**names, "keychain": await self._keychain.entries(wanted)} if wanted else names
        return await self.renderer.holds(condition, known)

    async def call(
        self, kind: str, config: Mapping[str, Any], given: Mapping[str, Any], names: Mapping[str, Any]
    ) -> Any:
        """Run a tool on a rendered configuration and return its output as plain data without secrets.

        Raises:
            ToolError: it failed.
        """
        label = kind if kind in TOOLS else "other"
        call = ToolCall(
            kind=kind,
            step=self.command.step,
            config=config,
            input=given,
            context=names,
            execution_id=self.command.execution_id,
            idle=self.idle,
            timeout_seconds=time_limit(kind, config, self.settings.noetl_worker_command_timeout_seconds),
        )
        began = time.monotonic()
        try:
            output = await run_tool(call, self.box)
            if kind not in _PLAIN_KINDS:
                output = to_plain(output)
        except NotPlainError as error:
            raise ToolError(kind, "BAD_RESULT", str(error)) from error
        except ToolError as error:
            raise self.without_secrets(error) from error
        finally:
            TOOL_SECONDS.labels(tool=label).observe(time.monotonic() - began)
        return redacted(output, self._keychain.secrets)

    def without_secrets(self, error: ToolError) -> ToolError:
        """Return `error` with every secret that this command has read replaced."""
        if not self._keychain.secrets:
            return error
        message = redacted(error.message, self._keychain.secrets)
        data = redacted(to_plain(error.data), self._keychain.secrets)
        return ToolError(error.kind, error.code, message, retryable=error.retryable, data=data)

    @asynccontextmanager
    async def idle(self) -> AsyncIterator[None]:
        """Do not count as a command in flight while the block runs, unless other work of the command goes on."""
        if self.keeps_slot:
            yield
            return
        async with self._slots.given_up():
            yield

    async def sleep(self, seconds: float) -> None:
        """Wait without counting as a command in flight."""
        async with self.idle():
            await asyncio.sleep(seconds)
