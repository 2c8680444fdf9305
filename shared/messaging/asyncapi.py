"""The AsyncAPI document: subjects and messages on NATS, declared with FastStream and never run by it."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel, Field

from shared.wire.subjects import COMMANDS_SUBJECT, EVENTS_PREFIX, OUTBOX_KICK_SUBJECT, STREAM_WAKE_SUBJECT


class EventEnvelope(BaseModel):
    """An event of an execution, as stored. `stream_version` counts from 1 without gaps per execution."""

    event_id: int
    execution_id: int
    catalog_id: int
    event_type: str
    node_id: str | None = None
    node_name: str | None = None
    node_type: str | None = None
    status: str | None = None
    context: dict[str, Any] | None = Field(None, description="`response` has a tool's output; null when elided")
    result: dict[str, Any] | None = None
    meta: dict[str, Any] | None = None
    error: str | None = None
    command_id: int | None = None
    worker_id: str | None = None
    parent_event_id: int | None = None
    parent_execution_id: int | None = None
    stream_id: str
    stream_version: int = Field(ge=1)
    event_time: datetime
    ingest_time: datetime
    created_at: datetime
    elided: bool = Field(False, description="the context was too large to travel; load it from the API")


class CommandNotice(BaseModel):
    """A wake-up for one command; claim it with `POST {server_url}/api/commands/{event_id}/claim`."""

    execution_id: int
    event_id: int
    command_id: int
    step: str
    server_url: str


class Nothing(BaseModel):
    """An empty body: the message only wakes its reader and may be lost."""


def _declare() -> Any:
    from faststream.nats import NatsBroker  # takes half a second, and only this document needs it

    broker = NatsBroker("nats://127.0.0.1:4222", description="JetStream and core NATS")
    events = f"{EVENTS_PREFIX}.{{tenant}}.{{organization}}.{{execution_id}}.{{partition}}"
    broker.publisher(
        events,
        schema=EventEnvelope,
        title="events",
        description="Stream NOETL_EVENTS. Published by playhead-outbox, after the commit, at least once; header "
        "Nats-Msg-Id is the event id. Durables: noetl_orchestrator, noetl_projector.",
    )
    broker.publisher(
        COMMANDS_SUBJECT,
        schema=CommandNotice,
        title="commands",
        description="Stream NOETL_COMMANDS. Durable: noetl_worker_pool. With NOETL_COMMAND_ROUTING_ENABLED the subject is "
        f"{COMMANDS_SUBJECT}.<pool>.<execution_id>.",
    )
    broker.publisher(
        OUTBOX_KICK_SUBJECT, schema=Nothing, title="outbox-kick", description="Core NATS: outbox rows wait."
    )
    broker.publisher(
        f"{STREAM_WAKE_SUBJECT}.{{execution_id}}",
        schema=Nothing,
        title="stream-wake",
        description="Core NATS: the log of an execution has grown; wakes readers of its event stream.",
    )
    return broker


@cache
def asyncapi_document() -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document."""
    from faststream.specification.asyncapi import AsyncAPI

    made = AsyncAPI(_declare(), title="Playhead", version=version("playhead"), schema_version="3.0.0")
    document: dict[str, Any] = made.to_specification().to_jsonable()
    return document
