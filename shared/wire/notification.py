"""The command notification: what a worker receives from JetStream. Five keys, ids as integers (clients.md section 0)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shared.wire.types import parse_id


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandNotification:
    """A wake-up for one command; the command itself is claimed over HTTP by `event_id`."""

    execution_id: int
    event_id: int
    command_id: int
    step: str
    server_url: str

    def to_json(self) -> dict[str, Any]:
        """Return the five keys every worker requires; a missing key makes the original's workers loop or exit."""
        return {
            "execution_id": self.execution_id,
            "event_id": self.event_id,
            "command_id": self.command_id,
            "step": self.step,
            "server_url": self.server_url,
        }

    @classmethod
    def from_json(cls, body: object) -> CommandNotification:
        """Read a notification; unknown keys are ignored, ids may be digits in strings.

        Raises:
            ValueError: the body is no object or a key is missing or of the wrong type.
        """
        if not isinstance(body, dict):
            raise ValueError("a command notification is a JSON object")
        execution_id, event_id = parse_id(body.get("execution_id")), parse_id(body.get("event_id"))
        if execution_id is None or event_id is None:
            raise ValueError("a command notification needs integer execution_id and event_id")
        return cls(
            execution_id=execution_id,
            event_id=event_id,
            command_id=parse_id(body.get("command_id")) or 0,
            step=str(body.get("step", "")),
            server_url=str(body.get("server_url", "")),
        )
