"""NATS names: streams, subjects and their tokens (storage_messaging.md section 4). Pure."""

from __future__ import annotations

import re

from shared.wire.shard import shard_for

EVENTS_STREAM = "NOETL_EVENTS"
COMMANDS_STREAM = "NOETL_COMMANDS"
EVENTS_PREFIX = "noetl.events"
COMMANDS_SUBJECT = "noetl.commands"
OUTBOX_KICK_SUBJECT = "playhead.outbox.kick"  # core NATS, lossy on purpose; outside both streams' subjects
STREAM_WAKE_SUBJECT = "playhead.stream"  # + .<execution_id>: core NATS wake-up of SSE readers

_TOKEN_FORBIDDEN = re.compile(r"[^A-Za-z0-9_-]")


def subject_token(value: str | None, *, default: str = "default") -> str:
    """Return `value` as one subject token: every character outside [A-Za-z0-9_-] becomes '-', empty becomes `default`."""
    return _TOKEN_FORBIDDEN.sub("-", value) if value else default


def event_subject(
    execution_id: int, *, tenant: str = "default", organization: str = "default", partitions: int = 1
) -> str:
    """Return `noetl.events.<tenant>.<org>.<execution_id>.<partition>`: the third token is what the gateway reads."""
    partition = shard_for(execution_id, partitions)
    return f"{EVENTS_PREFIX}.{subject_token(tenant)}.{subject_token(organization)}.{execution_id}.{partition}"


def command_subject(execution_id: int, *, pool: str | None, base: str = COMMANDS_SUBJECT) -> str:
    """Return the bare subject when `pool` is None (routing off), else `<base>.<pool>.<execution_id>`."""
    return base if pool is None else f"{base}.{subject_token(pool, default='shared')}.{execution_id}"
